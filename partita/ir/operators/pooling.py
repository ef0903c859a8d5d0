"""Pooling: windows and whole spatial extents reduced to one value, on `[N, C, *spatial]`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Computation, Expr, Index, Operand, Reduce, call, literal
from partita.ir.formula import cast, compute, load, lowest, reduction, select, size, wide
from partita.ir.graph import Node
from partita.ir.operators.contents import required_ints
from partita.ir.operators.contraction import Window, geometry, seen, sources, window
from partita.ir.operators.dynamic import by_observed_sizes
from partita.ir.operators.movement import all_within, indices_at, linear_index, wrapped
from partita.ir.operators.reduction import MAX, MEAN, REDUCTIONS, Reduction, reduced
from partita.ir.operators.registry import computes, infers, performs, upgrades
from partita.ir.procedure import Loops, Procedure, axes_of, fill, once, store
from partita.ir.types import DType, TensorType, Type

Scalar = Callable[[Expr], Expr]


def pool_window(node: Node) -> Window:
    ceil = bool(node.attributes.get("ceil_mode", 0))
    return window(node, node.operand(0).shape[2:], node.attributes["kernel_shape"], ceil=ceil)


def pooled(
    node: Node, combine: str, element: Scalar, initial: Operand, finish: Callable[[Expr, Sequence[Expr]], Expr]
) -> Computation:
    """`element` of all that a window sees, combined from `initial` on, and `finish`ed for its output position."""
    x, view = node.operand(0), pool_window(node)

    def body(n: Expr, c: Expr, *out: Expr) -> Expr:
        def term(*inner: Expr) -> Expr:
            return seen(view, x.shape[2:], out, inner, lambda *place: element(load(x, n, c, *place)), initial)

        return cast(finish(reduction(combine, view.kernel, term, initial), out), x.tensor.dtype)

    return compute((*x.shape[:2], *view.output), body)


@computes("MaxPool")
def max_pool(node: Node) -> list[Computation]:
    """The largest element of each window; the second output is its row-major position in the input."""
    x, view = node.operand(0), pool_window(node)
    spatial, least = x.shape[2:], lowest(x.tensor.dtype)
    flat = Axis("k", dims.product(view.kernel))

    def position(n: Expr, c: Expr, *out: Expr) -> Expr:
        element = seen(view, spatial, out, indices_at(Index(flat), view.kernel), lambda *i: load(x, n, c, *i), least)
        best = Reduce("argmax", (flat,), element, literal(0, DType.INT64), DType.INT64)
        places = sources(view, out, indices_at(best, view.kernel))
        step = -1 if node.attributes.get("storage_order", 0) else 1
        within = linear_index(places[::step], spatial[::step])
        return (n * size(x.shape[1]) + c) * size(dims.product(spatial)) + within

    largest = pooled(node, "max", lambda x: x, least, lambda total, out: total)
    return [largest, compute(largest.shape, position)][: len(node.outputs)]


@computes("AveragePool")
def average_pool(node: Node) -> Computation:
    """The mean of each window; padding counts only with `count_include_pad`."""
    return pooled(node, "sum", wide, 0, lambda total, out: total / cast(averaged_count(node, out), total.dtype))


@computes("LpPool")
def lp_pool(node: Node) -> Computation:
    p = node.attributes.get("p", 2)
    power = functools.partial(_power, exponent=float(p))
    return pooled(node, "sum", lambda x: power(wide(x)), 0, lambda total, out: call("pow", total, 1 / p))


def _power(x: Expr, exponent: float) -> Expr:
    return call("pow", call("abs", x), exponent)


def averaged_count(node: Node, out: Sequence[Expr]) -> Expr:
    """Of how many elements an AveragePool takes the mean at an output position."""
    view, include = pool_window(node), bool(node.attributes.get("count_include_pad", 0))
    count: Expr = literal(1, DType.INT64)
    for axis, dim in enumerate(node.operand(0).shape[2:]):
        count = count * _covered(view, axis, out[axis], dim, include)
    return count


def _covered(view: Window, axis: int, out: Expr, dim: dims.Dim, include: bool) -> Expr:
    """How many positions of the window on one axis count."""
    kernel, stride, dilation = view.kernel[axis], view.strides[axis], view.dilations[axis]
    low, high = (-view.begin[axis], dim + view.end[axis]) if include else (0, dim)
    overhang = (view.output[axis] - 1) * stride - view.begin[axis] + dilation * (kernel - 1)
    if dims.all_static([low, high, overhang, view.begin[axis]]) and -view.begin[axis] >= low and overhang < high:
        return size(kernel)
    start = out * stride - size(view.begin[axis])
    before = call("max", (size(low) - start + (dilation - 1)) // dilation, 0)
    end = call("min", (size(high) - start + (dilation - 1)) // dilation, size(kernel))
    return end - before


@computes("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(node: Node) -> Computation:
    """One value for each channel of each sample."""
    x = node.operand(0)
    kinds = {"GlobalAveragePool": MEAN, "GlobalMaxPool": MAX}
    kind = kinds.get(node.op_type) or _power_mean(node.attributes.get("p", 2))
    return reduced(x, tuple(range(2, len(x.shape))), True, kind)


def _power_mean(p: int) -> Reduction:
    if p == 2:
        return REDUCTIONS["ReduceL2"]
    power = functools.partial(_power, exponent=float(p))
    return Reduction("sum", lambda dtype: 0, power, lambda total, count: call("pow", total, 1 / p))


# ---------------------------------------------------------------------- back to the image


by_observed_sizes("MaxUnpool", operands=[2])
by_observed_sizes("Col2Im", operands=[1, 2])


def _unpooled(node: Node) -> tuple[Dim, ...]:
    """The shape of what was pooled, as far as the attributes tell."""
    x, kernel = node.operand(0), node.attributes["kernel_shape"]
    rank = len(kernel)
    strides, _, pads = geometry(node, rank, kernel)
    spatial = [
        dims.simplified((dim - 1) * strides[n] - pads[n] - pads[n + rank] + kernel[n])
        for n, dim in enumerate(x.shape[2:])
    ]
    return (*x.shape[:2], *spatial)


@infers("MaxUnpool")
def max_unpool_type(node: Node) -> Type:
    shape = _unpooled(node) if node.input(2) is None else required_ints(node, 2)
    return TensorType(node.operand(0).tensor.dtype, tuple(shape))


@performs("MaxUnpool")
def max_unpool(node: Node) -> Procedure:
    """Each element at the place in the pooled image that its index tells; zeros elsewhere."""
    x, indices, y = node.operand(0), node.operand(1), node.output
    axes, shape = axes_of(x.shape), _unpooled(node)
    place = indices_at(wrapped(load(indices, *map(Index, axes)), dims.product(shape)), shape)
    is_inside = all_within(
        (index, new)
        for index, old, new in zip(place, shape, y.shape, strict=True)
        if not (dims.all_static([old, new]) and old <= new)
    )
    zero = fill(y, lambda *i: literal(0, y.tensor.dtype))
    return Procedure((once(zero), Loops(axes, (store(y, place, load(x, *map(Index, axes)), is_inside),))))


@computes("Col2Im")
def columns_to_image(node: Node) -> Computation:
    """The sum of all that blocks `[N, C * block, blocks]` hold for each pixel: `[N, C, *image]`."""
    x, image, block = node.operand(0), required_ints(node, 1), required_ints(node, 2)
    view = window(node, image, block)
    shape = (x.shape[0], dims.floor_div(x.shape[1], dims.product(block)), *image)

    def body(n: Expr, c: Expr, *out: Expr) -> Expr:
        def term(*k: Expr) -> Expr:
            places, condition = [], literal(True, DType.BOOL)
            for axis, count in enumerate(view.output):
                moved = out[axis] + size(view.begin[axis]) - k[axis] * view.dilations[axis]
                number = moved // view.strides[axis]
                places.append(number)
                condition = condition & (moved >= 0) & (number < size(count))
                condition = condition & call("eq", moved % view.strides[axis], 0)
            row = linear_index([c, *k], [shape[1], *block])
            return select(condition, load(x, n, row, linear_index(places, view.output)), 0)

        return reduction("sum", block, term, 0)

    return compute(shape, body)


# ---------------------------------------------------------------------- older opsets


@upgrades("LpPool", "GlobalLpPool", before=2)
def whole_power(build: Builder, node: Node) -> None:
    power = node.attributes.get("p", 2.0)
    if power != int(power):
        raise ModelError(f"{node.describe()}: p is {power}, but only whole numbers have a meaning in newer opsets")
    node.attributes["p"] = int(power)
