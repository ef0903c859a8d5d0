"""Reductions over axes: Reduce*, ArgMax and ArgMin, cumulative operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from partita.ir import dims
from partita.ir.contents import axis_of, normalized_axes, normalized_axis, required, required_ints
from partita.ir.expression import Axis, Computation, Expr, Index, Reduce, call, literal, replace_indices
from partita.ir.formula import cast, load, put, reduce, select, size, wide
from partita.ir.graph import Node, Value
from partita.ir.procedure import Procedure, current, each, indices_over, store
from partita.ir.registry import computes, performs
from partita.ir.types import DType


@dataclass(frozen=True, slots=True)
class Reduction:
    """`element` of every entry combined, then, with the number of entries, `finish`ed."""

    combine: str
    element: Callable[[Expr], Expr] = lambda e: e
    finish: Callable[[Expr, Expr], Expr] = lambda total, count: total

    def apply(self, entry: Expr, axes: Sequence[Axis]) -> Expr:
        """The reduction of `entry` over `axes`."""
        body = self.element(wide(entry))
        total = reduce(self.combine, axes, body) if axes else body
        count = cast(size(dims.product(axis.extent for axis in axes)), total.dtype)
        return cast(self.finish(total, count), entry.dtype)


class LogSumExp(Reduction):
    """log(sum(exp(x))), without overflow: the largest entry goes out of the sum."""

    def apply(self, entry: Expr, axes: Sequence[Axis]) -> Expr:
        if not axes:
            return entry
        kind, entry = entry.dtype, wide(entry)
        largest = reduce("max", axes, entry)
        shift = select(call("isinf", largest), 0, largest)
        again = [Axis(axis.name, axis.extent) for axis in axes]
        other = replace_indices(entry, dict(zip(axes, map(Index, again), strict=True)))
        return cast(call("log", reduce("sum", again, call("exp", other - shift))) + shift, kind)


def reduced(x: Value, axes: Sequence[int], keep: bool, combined: Callable[[Expr, Sequence[Axis]], Expr]) -> Computation:
    """`x` with its elements `combined` over `axes`."""
    inner = {axis: Axis(f"k{axis}", x.shape[axis]) for axis in axes}
    outer = {n: Axis(f"i{n}", 1 if n in axes else dim) for n, dim in enumerate(x.shape)}
    place = [Index(inner[n] if n in axes else outer[n]) for n in range(len(x.shape))]
    kept = [axis for n, axis in outer.items() if keep or n not in axes]
    return Computation(tuple(kept), combined(load(x, *place), list(inner.values())))


MAX = Reduction("max")
MEAN = Reduction("sum", finish=lambda total, count: total / count)

REDUCTIONS = {
    "ReduceSum": Reduction("sum"),
    "ReduceProd": Reduction("prod"),
    "ReduceMax": MAX,
    "ReduceMin": Reduction("min"),
    "ReduceMean": MEAN,
    "ReduceL1": Reduction("sum", lambda e: call("abs", e)),
    "ReduceSumSquare": Reduction("sum", lambda e: e * e),
    "ReduceL2": Reduction("sum", lambda e: e * e, lambda total, count: call("sqrt", total)),
    "ReduceLogSum": Reduction("sum", finish=lambda total, count: call("log", total)),
    "ReduceLogSumExp": LogSumExp("sum"),
}


@computes(*REDUCTIONS)
def reduce_operator(
    node: Node, x: Value, axes: Value | None, *, keepdims: int = 1, noop_with_empty_axes: int = 0
) -> Computation:
    """No axes given means all, or none with `noop_with_empty_axes`."""
    given = () if axes is None or dims.same(dims.product(axes.shape), 0) else required_ints(node, 1)
    places = given or range(0 if noop_with_empty_axes else len(x.shape))
    return reduced(x, normalized_axes(node, places, len(x.shape)), bool(keepdims), REDUCTIONS[node.op_type].apply)


@computes("ArgMax", "ArgMin")
def arg_extreme(node: Node, x: Value, *, keepdims: int = 1, select_last_index: int = 0) -> Computation:
    """The index of the first (or, with `select_last_index`, last) extreme element along one axis."""
    kind, zero = node.op_type.lower() + ("_last" if select_last_index else ""), literal(0, DType.INT64)
    return reduced(
        x, [axis_of(node, len(x.shape))], bool(keepdims),
        lambda entry, axes: Reduce(kind, tuple(axes), entry, zero, DType.INT64),
    )  # fmt: skip


@performs("CumSum", "CumProd")
def cumulative(node: Node, x: Value, *, exclusive: int = 0, reverse: int = 0) -> Procedure:
    """Each element with all before it on the axis, or, with `exclusive`, those before it alone."""
    axis, i = normalized_axis(node, required(node, 1).item(), len(x.shape)), indices_over(x.shape)
    combine, neutral = ("add", 0) if node.op_type == "CumSum" else ("mul", 1)
    here, before = (
        put(i, axis, size(x.shape[axis]) - 1 - place if reverse else place) for place in (i[axis], i[axis] - 1)
    )
    element = load(x, *(before if exclusive else here))
    total = call(combine, current(node.output, before), element)
    step = store(node.output, here, select(i[axis] > 0, total, neutral if exclusive else element))
    return Procedure((each(i[axis:], step),), rows=tuple(index.axis for index in i[:axis]))
