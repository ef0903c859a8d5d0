"""Reductions over axes: Reduce*, ArgMax and ArgMin, cumulative operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from partita.ir import dims
from partita.ir.expression import Axis, Computation, Expr, Index, Reduce, call, literal, replace_indices
from partita.ir.formula import cast, highest, load, lowest, reduce, select, size, wide
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import axis_of, normalized_axes, normalized_axis, required, required_ints
from partita.ir.operators.older import attributes_to_inputs
from partita.ir.operators.registry import computes, infers, performs
from partita.ir.procedure import Loops, Procedure, axes_of, current, store
from partita.ir.types import DType, Type

Finish = Callable[[Expr, Expr], Expr]  # (the reduced value, the number of elements) -> the result


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes of a Reduce operator; none given means all, or none with `noop_with_empty_axes`."""
    rank = len(node.operand(0).shape)
    axes = node.input(1)
    given = () if axes is None or dims.same(dims.product(axes.shape), 0) else required_ints(node, 1)
    if given:
        return normalized_axes(node, given, rank)
    return () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))


@dataclass(frozen=True, slots=True)
class Reduction:
    """`element` of every entry combined from `initial` (of the entries' type) on, then `finish`ed."""

    combine: str
    initial: Callable[[DType], float | int | bool]
    element: Callable[[Expr], Expr] = lambda e: e
    finish: Finish = lambda total, count: total

    def apply(self, entry: Expr, axes: Sequence[Axis]) -> Expr:
        """The reduction of `entry` over `axes`."""
        body = self.element(wide(entry))
        total = reduce(self.combine, axes, body, self.initial(body.dtype)) if axes else body
        return cast(
            self.finish(total, cast(size(dims.product(axis.extent for axis in axes)), total.dtype)), entry.dtype
        )


class LogSumExp(Reduction):
    """log(sum(exp(x))), without overflow: the largest entry goes out of the sum."""

    def apply(self, entry: Expr, axes: Sequence[Axis]) -> Expr:
        if not axes:
            return entry
        kind, entry = entry.dtype, wide(entry)
        largest = reduce("max", axes, entry, lowest(entry.dtype))
        shift = select(call("isinf", largest), 0, largest)
        again = [Axis(axis.name, axis.extent) for axis in axes]
        other = replace_indices(entry, dict(zip(axes, map(Index, again), strict=True)))
        return cast(call("log", reduce("sum", again, call("exp", other - shift), 0)) + shift, kind)


def reduced(x: Value, axes: tuple[int, ...], keep: bool, kind: Reduction) -> Computation:
    """A reduction of `x` over `axes`."""
    inner = {axis: Axis(f"k{axis}", x.shape[axis]) for axis in axes}
    outer = {n: Axis(f"i{n}", 1 if n in axes else dim) for n, dim in enumerate(x.shape)}
    place = [Index(inner[n] if n in axes else outer[n]) for n in range(len(x.shape))]
    kept = [axis for n, axis in outer.items() if keep or n not in axes]
    return Computation(tuple(kept), kind.apply(load(x, *place), list(inner.values())))


def _zero(dtype: DType) -> int:
    return 0


MAX = Reduction("max", lambda dtype: False if dtype is DType.BOOL else lowest(dtype))
MEAN = Reduction("sum", _zero, finish=lambda total, count: total / count)

REDUCTIONS = {
    "ReduceSum": Reduction("sum", _zero),
    "ReduceProd": Reduction("prod", lambda dtype: 1),
    "ReduceMax": MAX,
    "ReduceMin": Reduction("min", lambda dtype: True if dtype is DType.BOOL else highest(dtype)),
    "ReduceMean": MEAN,
    "ReduceL1": Reduction("sum", _zero, lambda e: call("abs", e)),
    "ReduceSumSquare": Reduction("sum", _zero, lambda e: e * e),
    "ReduceL2": Reduction("sum", _zero, lambda e: e * e, lambda total, count: call("sqrt", total)),
    "ReduceLogSum": Reduction("sum", _zero, finish=lambda total, count: call("log", total)),
    "ReduceLogSumExp": LogSumExp("sum", _zero),
}


@computes(*REDUCTIONS)
def reduce_operator(node: Node) -> Computation:
    keep = bool(node.attributes.get("keepdims", 1))
    return reduced(node.operand(0), reduced_axes(node), keep, REDUCTIONS[node.op_type])


@infers("CumSum", "CumProd")
def cumulative_type(node: Node) -> Type:
    x = node.operand(0)
    normalized_axis(node, required(node, 1).item(), len(x.shape))
    return x.type


@performs("CumSum", "CumProd")
def cumulative(node: Node) -> Procedure:
    """Each element with all before it on the axis, or, with `exclusive`, those before it alone."""
    x, y = node.operand(0), node.output
    axis = normalized_axis(node, required(node, 1).item(), len(x.shape))
    exclusive, backward = node.attributes.get("exclusive", 0), node.attributes.get("reverse", 0)
    is_sum = node.op_type == "CumSum"
    axes = axes_of(x.shape)
    step, extent = Index(axes[axis]), size(x.shape[axis])

    def along(place: Expr) -> list[Expr]:
        place = extent - 1 - place if backward else place
        return [place if n == axis else Index(a) for n, a in enumerate(axes)]

    here, before = along(step), along(step - 1)
    element = load(x, *(before if exclusive else here))
    total = current(y, before) + element if is_sum else current(y, before) * element
    first = literal(0 if is_sum else 1, x.tensor.dtype) if exclusive else element
    body = select(step > 0, total, first)
    return Procedure((Loops(axes[axis:], (store(y, here, body),)),), rows=axes[:axis])


@computes("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Computation:
    """The index of the first (or, with `select_last_index`, last) extreme element along one axis."""
    x = node.operand(0)
    axis = axis_of(node, len(x.shape))
    keep = node.attributes.get("keepdims", 1)
    last = node.attributes.get("select_last_index", 0)
    kind = node.op_type.lower() + ("_last" if last else "")
    inner = Axis(f"k{axis}", x.shape[axis])
    outer = [Axis(f"i{n}", 1 if n == axis else dim) for n, dim in enumerate(x.shape)]
    place = [Index(inner if n == axis else a) for n, a in enumerate(outer)]
    index = Reduce(kind, (inner,), load(x, *place), literal(0, DType.INT64), DType.INT64)
    return Computation(tuple(a for n, a in enumerate(outer) if keep or n != axis), index)


attributes_to_inputs("ReduceSum", before=13, axes=1)
attributes_to_inputs(
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare", before=18, axes=1,
)  # fmt: skip
