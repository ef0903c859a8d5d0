"""Reductions over axes: Reduce*, ArgMax and ArgMin, cumulative operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from partita.ir import dims
from partita.ir.contents import axis_of, normalized_axes, normalized_axis, required, required_ints
from partita.ir.expression import Computation, Expr, Index, call, replace_indices
from partita.ir.formula import cast, indices_over, load, over, put, reduce, select, size, tensor, wide
from partita.ir.graph import Node, Value
from partita.ir.procedure import Procedure, current, each, procedure, store
from partita.ir.registry import computes, performs


@dataclass(frozen=True, slots=True)
class Reduction:
    """`element` of every entry combined, then, with the number of entries, `finish`ed."""

    combine: str
    element: Callable[[Expr], Expr] = lambda e: e
    finish: Callable[[Expr, Expr], Expr] = lambda total, count: total

    def apply(self, entry: Expr, k: Sequence[Index], count: Expr | None = None) -> Expr:
        """The reduction of `entry` over `k`, and all of these or `count` entries."""
        body = self.element(wide(entry))
        total = reduce(self.combine, k, body) if k else body
        count = size(dims.product(index.axis.extent for index in k)) if count is None else count
        return cast(self.finish(total, cast(count, total.dtype)), entry.dtype)


class LogSumExp(Reduction):
    """log(sum(exp(x))), without overflow: the largest entry goes out of the sum."""

    def apply(self, entry: Expr, k: Sequence[Index], count: Expr | None = None) -> Expr:
        if not k:
            return entry
        kind, entry = entry.dtype, wide(entry)
        largest = reduce("max", k, entry)
        shift = select(call("isinf", largest), 0, largest)
        again = [over(index.axis.name, index.axis.extent) for index in k]
        other = replace_indices(entry, {index.axis: other for index, other in zip(k, again, strict=True)})
        return cast(call("log", reduce("sum", again, call("exp", other - shift))) + shift, kind)


def reduced(x: Value, axes: Sequence[int], keep: bool, combine: Callable[[Expr, Sequence[Index]], Expr]) -> Computation:
    """`x` with its elements combined over `axes`."""
    inner = {axis: over(f"k{axis}", x.shape[axis]) for axis in axes}
    outer = indices_over([1 if n in axes else dim for n, dim in enumerate(x.shape)])
    place = [inner.get(n, index) for n, index in enumerate(outer)]
    kept = [index for n, index in enumerate(outer) if keep or n not in axes]
    return tensor(kept, combine(load(x, *place), list(inner.values())))


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
    kind = node.op_type.lower() + ("_last" if select_last_index else "")
    return reduced(x, [axis_of(node, len(x.shape))], bool(keepdims), lambda entry, k: reduce(kind, k, entry))


@performs("CumSum", "CumProd")
def cumulative(node: Node, x: Value, *, exclusive: int = 0, reverse: int = 0) -> Procedure:
    """Each element with all before it on the axis, or, with `exclusive`, those before it alone."""
    axis, i = normalized_axis(node, required(node, 1).item(), len(x.shape)), indices_over(x.shape)
    combine, neutral = ("add", 0) if node.op_type == "CumSum" else ("mul", 1)
    ahead = [size(x.shape[axis]) - 1 - place if reverse else place for place in (i[axis], i[axis] - 1)]
    here, before = (put(i, axis, place) for place in ahead)
    element = load(x, *(before if exclusive else here))
    total = call(combine, current(node.output, before), element)
    step = store(node.output, here, select(i[axis] > 0, total, neutral if exclusive else element))
    return procedure(each(i[axis:], step), rows=i[:axis])
