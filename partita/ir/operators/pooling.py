"""Pooling: windows and whole spatial extents reduced to one value, on `[N, C, *spatial]`."""

from __future__ import annotations

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import required_ints
from partita.ir.dims import Dim
from partita.ir.expression import Computation, call, literal
from partita.ir.formula import all_within, indices_over, load, lowest, over, reduce, size, tensor
from partita.ir.graph import Node, Value
from partita.ir.operators.dynamic import by_observed_sizes
from partita.ir.operators.movement import indices_at, linear_index, wrapped
from partita.ir.operators.reduction import MAX, MEAN, REDUCTIONS, Reduction, reduced
from partita.ir.operators.transposed import from_windows, window_onto
from partita.ir.procedure import Procedure, each, fill, procedure, store
from partita.ir.registry import computes, infers, performs, upgrades
from partita.ir.types import TensorType, Type
from partita.ir.window import averaged_count, pool_window, window


def pooled(node: Node, kind: Reduction, outside: float = 0) -> Computation:
    """What a window sees, reduced; padding counts as `outside`."""
    x, view = node.operand(0), pool_window(node)
    n, c, *out = i = indices_over((*x.shape[:2], *view.output))
    k = indices_over(view.kernel, "k")
    entry = view.seen(out, k, lambda *place: load(x, n, c, *place), outside)
    return tensor(i, kind.apply(entry, k, averaged_count(node, out)))


@computes("MaxPool")
def max_pool(node: Node, x: Value, *, storage_order: int = 0) -> list[Computation]:
    """The largest element of each window; the second output is its row-major position in the input."""
    view, least = pool_window(node), lowest(x.tensor.dtype)
    largest, flat = pooled(node, MAX, least), over("k", dims.product(view.kernel))
    n, c, *out = i = indices_over(largest.shape)
    element = view.seen(out, indices_at(flat, view.kernel), lambda *place: load(x, n, c, *place), least)
    best = reduce("argmax", [flat], element)
    places, step = view.sources(out, indices_at(best, view.kernel)), -1 if storage_order else 1
    within = linear_index(places[::step], view.spatial[::step])
    position = (n * size(x.shape[1]) + c) * size(dims.product(view.spatial)) + within
    return [largest, tensor(i, position)][: len(node.outputs)]


@computes("AveragePool")
def average_pool(node: Node) -> Computation:
    """The mean of each window; padding counts only with `count_include_pad`."""
    return pooled(node, MEAN)


@computes("LpPool")
def lp_pool(node: Node, *, p: int = 2) -> Computation:
    return pooled(node, _norm(p))


def _norm(p: int) -> Reduction:
    if p == 2:
        return REDUCTIONS["ReduceL2"]
    powers = (lambda e: call("pow", call("abs", e), float(p))), (lambda total, count: call("pow", total, 1 / p))
    return Reduction("sum", *powers)


@computes("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(node: Node, x: Value, *, p: int = 2) -> Computation:
    """One value for each channel of each sample."""
    kind = {"GlobalAveragePool": MEAN, "GlobalMaxPool": MAX}.get(node.op_type) or _norm(p)
    return reduced(x, range(2, len(x.shape)), True, kind.apply)


# ---------------------------------------------------------------------- back to the image


by_observed_sizes("MaxUnpool", operands=[2])
by_observed_sizes("Col2Im", operands=[1, 2])


def _unpooled(node: Node) -> tuple[Dim, ...]:
    """The shape of what was pooled, as far as the attributes tell."""
    x = node.operand(0)
    return (*x.shape[:2], *window_onto(node, x.shape[2:], node.attributes["kernel_shape"]).spatial)


@infers("MaxUnpool")
def max_unpool_type(node: Node, x: Value, _: Value, shape: Value | None) -> Type:
    return TensorType(x.tensor.dtype, _unpooled(node) if shape is None else required_ints(node, 2))


@performs("MaxUnpool")
def max_unpool(node: Node, x: Value, indices: Value, given: Value | None) -> Procedure:
    """Each element at the place in the pooled image that its index tells; zeros elsewhere."""
    y, i, shape = node.output, indices_over(x.shape), _unpooled(node)
    place = indices_at(wrapped(load(indices, *i), dims.product(shape)), shape)
    is_inside = None if given is None else all_within(zip(place, y.shape, strict=True))
    zero = fill(y, lambda *i: literal(0, y.tensor.dtype))
    return procedure(zero, each(i, store(y, place, load(x, *i), is_inside)))


@computes("Col2Im")
def columns_to_image(node: Node, x: Value) -> Computation:
    """The sum of all that blocks `[N, C * block, blocks]` hold for each pixel: `[N, C, *image]`."""
    image, block = required_ints(node, 1), required_ints(node, 2)
    view, channels = window(node, image, block), dims.floor_div(x.shape[1], dims.product(block))
    n, c, *out = i = indices_over((x.shape[0], channels, *image))
    k = indices_over(block, "k")
    row = linear_index([c, *k], [channels, *block])
    held = from_windows(view, out, k, lambda *place: load(x, n, row, linear_index(place, view.output)))
    return tensor(i, reduce("sum", k, held))


# ---------------------------------------------------------------------- older opsets


@upgrades("LpPool", "GlobalLpPool", before=2)
def whole_power(build: Builder, node: Node, *, p: float = 2.0) -> None:
    if p != int(p):
        raise ModelError(f"{node.describe()}: p is {p}, but only whole numbers have a meaning in newer opsets")
    node.attributes["p"] = int(p)
