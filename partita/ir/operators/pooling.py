"""Pooling: windows and whole spatial extents reduced to one value, on `[N, C, *spatial]`."""

from __future__ import annotations

from collections.abc import Sequence

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import (
    Axis,
    Computation,
    Expr,
    Index,
    Reduce,
    call,
    cast,
    compute,
    literal,
    load,
    lowest,
    reduction,
    select,
    size,
    wide,
)
from partita.ir.graph import Node
from partita.ir.operators.contraction import Window, inside, sources, window
from partita.ir.operators.dynamic import by_observed_sizes
from partita.ir.operators.movement import indices_at, linear_index, wrapped
from partita.ir.operators.reduction import MAX, MEAN, REDUCTIONS, Reduction, reduced
from partita.ir.operators.registry import computes, infers, ints, performs, required, upgrades
from partita.ir.procedure import Loops, Procedure, axes_of, fill, once, store
from partita.ir.types import DType, TensorType, Type


@computes("MaxPool")
def max_pool(node: Node) -> list[Computation]:
    """The largest element of each window; the second output is its row-major position in the input."""
    x = node.operand(0)
    spatial = x.shape[2:]
    view = window(node, spatial, node.attributes["kernel_shape"], ceil=bool(node.attributes.get("ceil_mode", 0)))
    least = lowest(x.tensor.dtype)
    shape = (*x.shape[:2], *view.output)

    def element(n: Expr, c: Expr, out: tuple[Expr, ...], inner: tuple[Expr, ...]) -> Expr:
        places = sources(view, out, inner)
        condition = inside(view, places, spatial)
        value = load(x, n, c, *places)
        return value if condition is None else select(condition, value, least)

    def largest(n: Expr, c: Expr, *out: Expr) -> Expr:
        return reduction("max", view.kernel, lambda *inner: element(n, c, out, inner), least)

    result = [compute(shape, largest)]
    if len(node.outputs) > 1:

        def position(n: Expr, c: Expr, *out: Expr) -> Expr:
            flat = Axis("k", dims.product(view.kernel))
            inner = indices_at(Index(flat), view.kernel)
            best = Reduce("argmax", (flat,), element(n, c, out, tuple(inner)), literal(0, DType.INT64), DType.INT64)
            places = sources(view, out, indices_at(best, view.kernel))
            order = list(range(len(spatial)))
            if node.attributes.get("storage_order", 0):
                order.reverse()
            within = linear_index([places[a] for a in order], [spatial[a] for a in order])
            return (n * size(x.shape[1]) + c) * size(dims.product(spatial)) + within

        result.append(compute(shape, position))
    return result


@computes("AveragePool")
def average_pool(node: Node) -> Computation:
    """The mean of each window; padding counts only with `count_include_pad`."""
    x = node.operand(0)
    spatial = x.shape[2:]
    view = window(node, spatial, node.attributes["kernel_shape"], ceil=bool(node.attributes.get("ceil_mode", 0)))

    def body(n: Expr, c: Expr, *out: Expr) -> Expr:
        def value(*inner: Expr) -> Expr:
            places = sources(view, out, inner)
            condition = inside(view, places, spatial)
            element = wide(load(x, n, c, *places))
            return element if condition is None else select(condition, element, 0)

        total = reduction("sum", view.kernel, value, 0)
        return cast(total / cast(averaged_count(node, out), total.dtype), x.tensor.dtype)

    return compute((*x.shape[:2], *view.output), body)


def averaged_count(node: Node, out: Sequence[Expr]) -> Expr:
    """Of how many elements an AveragePool takes the mean at an output position."""
    spatial = node.operand(0).shape[2:]
    view = window(node, spatial, node.attributes["kernel_shape"], ceil=bool(node.attributes.get("ceil_mode", 0)))
    include = bool(node.attributes.get("count_include_pad", 0))
    count: Expr = literal(1, DType.INT64)
    for a in range(len(spatial)):
        count = count * _covered(view, a, out[a], spatial[a], include)
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
    power = lambda e: call("pow", call("abs", e), float(p))  # noqa: E731
    return Reduction("sum", lambda dtype: 0, power, lambda total, count: call("pow", total, 1 / p))


@computes("LpPool")
def lp_pool(node: Node) -> Computation:
    x, p = node.operand(0), node.attributes.get("p", 2)
    spatial = x.shape[2:]
    view = window(node, spatial, node.attributes["kernel_shape"], ceil=bool(node.attributes.get("ceil_mode", 0)))

    def body(n: Expr, c: Expr, *out: Expr) -> Expr:
        def value(*inner: Expr) -> Expr:
            places = sources(view, out, inner)
            condition = inside(view, places, spatial)
            element = call("pow", call("abs", wide(load(x, n, c, *places))), float(p))
            return element if condition is None else select(condition, element, 0)

        return cast(call("pow", reduction("sum", view.kernel, value, 0), 1 / p), x.tensor.dtype)

    return compute((*x.shape[:2], *view.output), body)


# ---------------------------------------------------------------------- back to the image


by_observed_sizes("MaxUnpool", operands=[2])
by_observed_sizes("Col2Im", operands=[1, 2])


def _unpooled(node: Node) -> tuple[Dim, ...]:
    """The shape of what was pooled, as far as the attributes tell."""
    x, kernel = node.operand(0), node.attributes["kernel_shape"]
    rank = len(kernel)
    strides, pads = node.attributes.get("strides", (1,) * rank), node.attributes.get("pads", (0,) * (2 * rank))
    spatial = [
        dims.simplified((dim - 1) * strides[n] - pads[n] - pads[n + rank] + kernel[n])
        for n, dim in enumerate(x.shape[2:])
    ]
    return (*x.shape[:2], *spatial)


@infers("MaxUnpool")
def max_unpool_type(node: Node) -> Type:
    shape = _unpooled(node) if node.input(2) is None else ints(required(node, 2))
    return TensorType(node.operand(0).tensor.dtype, tuple(shape))


@performs("MaxUnpool")
def max_unpool(node: Node) -> Procedure:
    """Each element at the place in the pooled image that its index tells; zeros elsewhere."""
    x, indices, y = node.operand(0), node.operand(1), node.output
    axes, shape = axes_of(x.shape), _unpooled(node)
    place = indices_at(wrapped(load(indices, *map(Index, axes)), dims.product(shape)), shape)
    is_inside: Expr | None = None
    for index, old, new in zip(place, shape, y.shape, strict=True):
        if not (dims.all_static([old, new]) and old <= new):
            within = index < size(new)
            is_inside = within if is_inside is None else is_inside & within
    zero = fill(y, lambda *i: literal(0, y.tensor.dtype))
    return Procedure((once(zero), Loops(axes, (store(y, place, load(x, *map(Index, axes)), is_inside),))))


@computes("Col2Im")
def columns_to_image(node: Node) -> Computation:
    """The sum of all that blocks `[N, C * block, blocks]` hold for each pixel: `[N, C, *image]`."""
    x, image, block = node.operand(0), ints(required(node, 1)), ints(required(node, 2))
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
