"""Reductions over axes: Reduce*, ArgMax and ArgMin, cumulative operators."""

from __future__ import annotations

from collections.abc import Callable

from partita.ir import dims
from partita.ir.expression import (
    Axis,
    Computation,
    Expr,
    Index,
    Reduce,
    call,
    cast,
    highest,
    literal,
    load,
    lowest,
    reduce,
    size,
)
from partita.ir.graph import Node, Value
from partita.ir.operators.older import attribute_to_input
from partita.ir.operators.registry import computes, ints, normalized_axes, normalized_axis, operator, required
from partita.ir.types import DType

Finish = Callable[[Expr, Expr], Expr]  # (the reduced value, the number of elements) -> the result


def reduced_axes(node: Node) -> tuple[int, ...]:
    """The axes of a Reduce operator; none given means all, or none with `noop_with_empty_axes`."""
    rank = len(node.operand(0).shape)
    given = ints(required(node, 1)) if node.input(1) is not None else ()
    if given:
        return normalized_axes(node, given, rank)
    return () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))


def reduced(
    x: Value,
    axes: tuple[int, ...],
    keep: bool,
    combine: str,
    initial: float | int | bool,
    element: Callable[[Expr], Expr] = lambda e: e,
    finish: Finish = lambda total, count: total,
) -> Computation:
    """`element` of every entry combined over `axes`, then `finish`ed."""
    inner = {axis: Axis(f"k{axis}", x.shape[axis]) for axis in axes}
    outer = {n: Axis(f"i{n}", 1 if n in axes else dim) for n, dim in enumerate(x.shape)}
    place = [Index(inner[n] if n in axes else outer[n]) for n in range(len(x.shape))]
    body = element(load(x, *place))
    total = reduce(combine, list(inner.values()), body, initial) if axes else body
    count = cast(size(dims.product(axis.extent for axis in inner.values())), total.dtype)
    kept = [axis for n, axis in outer.items() if keep or n not in axes]
    return Computation(tuple(kept), finish(total, count))


def _reduction(
    name: str,
    combine: str,
    initial: Callable[[DType], float | int | bool],
    element: Callable[[Expr], Expr] = lambda e: e,
    finish: Finish = lambda total, count: total,
) -> None:
    def compute(node: Node) -> Computation:
        keep = bool(node.attributes.get("keepdims", 1))
        x = node.operand(0)
        return reduced(x, reduced_axes(node), keep, combine, initial(x.tensor.dtype), element, finish)

    operator(name).compute = compute


_reduction("ReduceSum", "sum", lambda dtype: 0)
_reduction("ReduceProd", "prod", lambda dtype: 1)
_reduction("ReduceMax", "max", lambda dtype: False if dtype is DType.BOOL else lowest(dtype))
_reduction("ReduceMin", "min", lambda dtype: True if dtype is DType.BOOL else highest(dtype))
_reduction("ReduceMean", "sum", lambda dtype: 0, finish=lambda total, count: total / count)
_reduction("ReduceL1", "sum", lambda dtype: 0, lambda e: call("abs", e))
_reduction("ReduceSumSquare", "sum", lambda dtype: 0, lambda e: e * e)
_reduction("ReduceL2", "sum", lambda dtype: 0, lambda e: e * e, lambda total, count: call("sqrt", total))
_reduction("ReduceLogSum", "sum", lambda dtype: 0, finish=lambda total, count: call("log", total))


@computes("ArgMax", "ArgMin")
def arg_extreme(node: Node) -> Computation:
    """The index of the first (or, with `select_last_index`, last) extreme element along one axis."""
    x = node.operand(0)
    axis = normalized_axis(node, node.attributes.get("axis", 0), len(x.shape))
    keep = node.attributes.get("keepdims", 1)
    last = node.attributes.get("select_last_index", 0)
    kind = node.op_type.lower() + ("_last" if last else "")
    inner = Axis(f"k{axis}", x.shape[axis])
    outer = [Axis(f"i{n}", 1 if n == axis else dim) for n, dim in enumerate(x.shape)]
    place = [Index(inner if n == axis else a) for n, a in enumerate(outer)]
    index = Reduce(kind, (inner,), load(x, *place), literal(0, DType.INT64), DType.INT64)
    return Computation(tuple(a for n, a in enumerate(outer) if keep or n != axis), index)


attribute_to_input("ReduceSum", before=13, attribute="axes", index=1)
attribute_to_input(
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSumSquare", before=18, attribute="axes", index=1,
)  # fmt: skip
