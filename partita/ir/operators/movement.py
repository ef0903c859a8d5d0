"""Operators that move elements without computing on them: each is a map from output to input indices."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call, literal
from partita.ir.formula import compute, load, only, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import axis_of, normalized_axes, normalized_axis, required, required_ints
from partita.ir.operators.older import attribute_renamed, attributes_to_inputs, default_was
from partita.ir.operators.registry import computes, operator, upgrades
from partita.ir.types import DType

# ---------------------------------------------------------------------- views: the same elements in the same order


def all_within(places: Iterable[tuple[Expr, Dim]]) -> Expr | None:
    """Whether every place lies on its axis, of a size each; None where there is no place."""
    conditions = [(place >= 0) & (place < size(dim)) for place, dim in places]
    return functools.reduce(lambda a, b: a & b, conditions) if conditions else None


def linear_index(indices: Sequence[Expr], shape: Sequence[Dim]) -> Expr:
    """Position in row-major order."""
    position: Expr = literal(0, DType.INT64)
    for index, dim in zip(indices, shape, strict=True):
        position = position * size(dim) + index
    return position


def indices_at(position: Expr, shape: Sequence[Dim]) -> list[Expr]:
    """The indices of an element from its position in row-major order."""
    result: list[Expr] = []
    for axis, dim in enumerate(shape):
        inner = dims.product(shape[axis + 1 :])
        index = position // size(inner)
        result.append(index % size(dim) if axis else index)
    return result


def reshaped(value: Value, shape: Sequence[Dim]) -> Computation:
    dims.may_equal(dims.product(value.shape), dims.product(shape))  # a run compares what is not known
    return compute(shape, lambda *i: load(value, *indices_at(linear_index(i, shape), value.shape)))


def reshaped_shape(node: Node) -> tuple[Dim, ...]:
    """The output shape of Reshape: 0 keeps a dimension (without `allowzero`), one -1 takes what is left."""
    source = node.operand(0).shape
    target = list(required_ints(node, 1))
    if not node.attributes.get("allowzero", 0):
        for axis, dim in enumerate(target):
            if dims.is_static(dim) and dim == 0:
                if axis >= len(source):
                    raise ShapeError(f"{node.describe()}: the shape {target} copies axis {axis}, which the input lacks")
                target[axis] = source[axis]
    wild = [axis for axis, dim in enumerate(target) if dims.is_static(dim) and dim == -1]
    if len(wild) > 1 or any(dims.is_static(dim) and dim < -1 for dim in target):
        raise ShapeError(f"{node.describe()}: the shape {target} may hold one -1 and no other negative size")
    total = dims.product(source)
    if wild:
        rest = dims.product(dim for axis, dim in enumerate(target) if axis != wild[0])
        if dims.is_static(rest) and rest == 0:
            raise ShapeError(f"{node.describe()}: the -1 in shape {target} is not determined, as another size is 0")
        target[wild[0]] = dims.floor_div(total, rest)
    if dims.all_static([total, *target]) and dims.product(target) != total:
        raise ShapeError(f"{node.describe()}: shape {tuple(target)} does not hold {total} elements")
    return tuple(target)


@computes("Reshape")
def reshape(node: Node) -> Computation:
    return reshaped(node.operand(0), reshaped_shape(node))


@computes("Flatten")
def flatten(node: Node) -> Computation:
    shape = node.operand(0).shape
    axis = node.attributes.get("axis", 1)
    axis = axis if axis == len(shape) else normalized_axis(node, axis, len(shape))
    return reshaped(node.operand(0), (dims.product(shape[:axis]), dims.product(shape[axis:])))


@computes("Squeeze")
def squeeze(node: Node) -> Computation:
    shape = node.operand(0).shape
    if node.input(1) is None:
        axes = tuple(axis for axis, dim in enumerate(shape) if dims.is_static(dim) and dim == 1)
    else:
        axes = normalized_axes(node, required_ints(node, 1), len(shape))
    wrong = [axis for axis in axes if not dims.may_equal(shape[axis], 1)]
    if wrong:
        raise ShapeError(f"{node.describe()}: axes {wrong} cannot be squeezed, as their size is not 1")
    return reshaped(node.operand(0), [dim for axis, dim in enumerate(shape) if axis not in axes])


@computes("Unsqueeze")
def unsqueeze(node: Node) -> Computation:
    shape = node.operand(0).shape
    given = required_ints(node, 1)
    axes = normalized_axes(node, given, len(shape) + len(given))
    rest = iter(shape)
    return reshaped(node.operand(0), [1 if n in axes else next(rest) for n in range(len(shape) + len(axes))])


for _name in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"):
    operator(_name).is_view = True


# ---------------------------------------------------------------------- index maps


@computes("Transpose")
def transpose(node: Node) -> Computation:
    x = node.operand(0)
    permutation = node.attributes.get("perm", tuple(reversed(range(len(x.shape)))))
    permutation = normalized_axes(node, permutation, len(x.shape))
    if len(permutation) != len(x.shape):
        raise ModelError(f"{node.describe()}: perm {permutation} must name every axis of {x.type} once")

    def body(*i: Expr) -> Expr:
        source = dict(zip(permutation, i, strict=True))
        return load(x, *(source[axis] for axis in range(len(i))))

    return compute([x.shape[axis] for axis in permutation], body)


@computes("Expand")
def expand(node: Node) -> Computation:
    x = node.operand(0)
    try:
        shape = dims.broadcast_shapes(x.shape, required_ints(node, 1))
    except ValueError as error:
        raise ShapeError(f"{node.describe()}: {error}") from error
    skipped = len(shape) - len(x.shape)
    keep = [dims.same(dim, shape[axis + skipped]) for axis, dim in enumerate(x.shape)]
    return compute(shape, lambda *i: load(x, *(i[axis + skipped] if k else 0 for axis, k in enumerate(keep))))


@computes("Tile")
def tile(node: Node) -> Computation:
    x = node.operand(0)
    repeats = required_ints(node, 1)
    if len(repeats) != len(x.shape):
        raise ShapeError(f"{node.describe()}: {len(repeats)} repeats for rank {len(x.shape)}")
    shape = [dim * count for dim, count in zip(x.shape, repeats, strict=True)]
    return compute(shape, lambda *i: load(x, *(index % size(dim) for index, dim in zip(i, x.shape, strict=True))))


def window_of(x: Value, shape: Sequence[Dim], starts: Sequence[Expr], steps: Sequence[Expr | int]) -> Computation:
    """Elements `start + index * step` along each axis."""
    places = list(zip(starts, steps, strict=True))
    return compute(
        shape,
        lambda *i: load(x, *(index * step + start for index, (start, step) in zip(i, places, strict=True))),
    )


def slice_bounds(node: Node) -> list[tuple[Any, int, Dim]]:
    """(start, step, size) of Slice for every axis."""
    x = node.operand(0)
    starts, ends = required_ints(node, 1), required_ints(node, 2)
    axes = range(len(starts)) if node.input(3) is None else required_ints(node, 3)
    steps = [1] * len(starts) if node.input(4) is None else required_ints(node, 4)
    bounds: list[tuple[Any, int, Dim]] = [(0, 1, dim) for dim in x.shape]
    places = normalized_axes(node, axes, len(x.shape))
    for axis, start, end, step in zip(places, starts, ends, steps, strict=True):
        if step == 0:
            raise ShapeError(f"{node.describe()}: step 0 on axis {axis}; steps must not be zero")
        bounds[axis] = _slice_axis(x.shape[axis], start, end, step)
    return bounds


def _slice_axis(dim: Dim, start: Dim, end: Dim, step: int) -> tuple[Dim, int, Dim]:
    if dims.all_static([dim, start, end]):
        indices = range(dim)[start:end:step]
        return (indices.start if len(indices) else 0), step, len(indices)

    def position(value: Dim, low: Dim, high: Dim) -> Dim:
        """A start or end counted from the front and held in [low, high]."""
        if not dims.is_static(value):
            return value
        if value < 0:
            return low if value <= -(2**31) else dims.maximum(dim + value, low)
        return high if value >= 2**31 - 1 else dims.minimum(value, high)

    low, high = (0, dim) if step > 0 else (-1, dim - 1)
    first, last = position(start, low, high), position(end, low, high)
    if step > 0 and dims.same(first, 0):
        return first, step, dims.ceil_div(last, step)
    return first, step, dims.maximum(dims.ceil_div(*((last - first, step) if step > 0 else (first - last, -step))), 0)


@computes("Slice")
def slice_operator(node: Node) -> Computation:
    bounds = slice_bounds(node)
    starts, steps, shape = ([bound[part] for bound in bounds] for part in range(3))
    return window_of(node.operand(0), shape, list(map(size, starts)), steps)


@computes("Concat")
def concat(node: Node) -> Computation:
    values = node.operands
    rank = len(values[0].shape)
    axis = normalized_axis(node, node.attributes["axis"], rank)
    for value in values[1:]:
        for place, (a, b) in enumerate(zip(values[0].shape, value.shape, strict=True)):
            if place != axis and not dims.may_equal(a, b):
                raise ShapeError(f"{node.describe()}: the operands differ on axis {place}, which is not joined")
    shape = list(values[0].shape)
    ends = [dims.simplified(end) for end in itertools.accumulate(value.shape[axis] for value in values)]
    shape[axis] = ends[-1]

    def body(*i: Expr) -> Expr:
        pieces = [
            load(value, *(index - size(start) if n == axis else index for n, index in enumerate(i)))
            for value, start in zip(values, [0, *ends], strict=False)
        ]
        result = pieces.pop()
        for piece, end in reversed(list(zip(pieces, ends, strict=False))):
            result = select(i[axis] < size(end), piece, result)
        return result

    return compute(shape, body)


@computes("Split")
def split(node: Node) -> list[Computation]:
    x = node.operand(0)
    axis = axis_of(node, len(x.shape))
    count = len(node.outputs)
    if node.input(1) is not None:
        sizes = required_ints(node, 1)
    else:
        part = dims.ceil_div(x.shape[axis], count)
        sizes = (*[part] * (count - 1), dims.simplified(x.shape[axis] - part * (count - 1)))
    if len(sizes) != count or (dims.all_static([*sizes, x.shape[axis]]) and sum(sizes) != x.shape[axis]):
        raise ShapeError(f"{node.describe()}: sizes {sizes} do not split axis {axis} into {count} outputs")
    result = []
    start: Dim = 0
    for part in sizes:
        shape = [part if n == axis else dim for n, dim in enumerate(x.shape)]
        starts = [size(start if n == axis else 0) for n in range(len(shape))]
        result.append(window_of(x, shape, starts, [1] * len(shape)))
        start = start + part
    return result


@computes("Gather")
def gather(node: Node) -> Computation:
    x, indices = node.operand(0), node.operand(1)
    axis = axis_of(node, len(x.shape))
    rank = len(indices.shape)

    def body(*i: Expr) -> Expr:
        place = wrapped(load(indices, *i[axis : axis + rank]), x.shape[axis])
        return load(x, *i[:axis], place, *i[axis + rank :])

    return compute((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), body)


def wrapped(index: Expr, dim: Dim) -> Expr:
    """An index from data: negative ones count from the end; one outside [-dim, dim) is an error at run time."""
    return call("checked_index", index, size(dim), dtype=DType.INT64)


@computes("DepthToSpace")
def depth_to_space(node: Node) -> Computation:
    x, block = node.operand(0), node.attributes["blocksize"]
    batch, channels, *spatial = x.shape
    if not dims.may_be_multiple(channels, block * block):
        raise ShapeError(f"{node.describe()}: {channels} channels are no multiple of {block * block}")
    depth = dims.floor_div(channels, block * block)
    row_major = node.attributes.get("mode", "DCR") == "DCR"

    def body(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
        place = (h % block) * block + w % block
        channel = place * size(depth) + c if row_major else c * (block * block) + place
        return load(x, n, channel, h // block, w // block)

    return compute((batch, depth, *(dim * block for dim in spatial)), body)


@computes("SpaceToDepth")
def space_to_depth(node: Node) -> Computation:
    x, block = node.operand(0), node.attributes["blocksize"]
    batch, channels, *spatial = x.shape
    for axis, dim in enumerate(spatial, start=2):
        if not dims.may_be_multiple(dim, block):
            raise ShapeError(f"{node.describe()}: the size {dim} of axis {axis} is no multiple of {block}")
    by_place = node.attributes.get("mode", "DCR") == "DCR"

    def body(n: Expr, c: Expr, h: Expr, w: Expr) -> Expr:
        place, channel = (c // size(channels), c % size(channels)) if by_place else (c % block**2, c // block**2)
        return load(x, n, channel, h * block + place // block, w * block + place % block)

    return compute((batch, channels * block * block, *(dims.floor_div(dim, block) for dim in spatial)), body)


# ---------------------------------------------------------------------- padding


def reflected(index: Expr, dim: Dim) -> Expr:
    """Mirrored at both ends without repeating the edge: ... 2 1 0 1 2 ..."""
    period = dims.maximum(2 * dim - 2, 1)
    folded = call("mod", index, size(period))
    return select(folded < size(dim), folded, size(period) - folded)


def clamped(index: Expr, dim: Dim) -> Expr:
    return call("max", call("min", index, size(dim - 1)), 0)


PLACES: dict[str, Callable[[Expr, Dim], Expr]] = {
    "reflect": reflected, "edge": clamped, "wrap": lambda index, dim: call("mod", index, size(dim)),
}  # fmt: skip


@computes("Pad")
def pad(node: Node) -> Computation:
    x = node.operand(0)
    rank = len(x.shape)
    axes = range(rank) if node.input(3) is None else normalized_axes(node, required_ints(node, 3), rank)
    pads = required_ints(node, 1)
    if len(pads) != 2 * len(axes):
        raise ShapeError(f"{node.describe()}: {len(pads)} pads for {len(axes)} axes; there must be two an axis")
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    shape = [dims.simplified(dim + before[n] + after[n]) for n, dim in enumerate(x.shape)]
    touched = [n for n in range(rank) if not (dims.is_static(before[n]) and before[n] == after[n] == 0)]
    mode = node.attributes.get("mode", "constant")
    return padded(x, shape, list(map(size, before)), touched, mode, node.input(2))


def padded(
    x: Value, shape: Sequence[Dim], before: Sequence[Expr], axes: Iterable[int], mode: str, fill: Value | None
) -> Computation:
    """Elements `index - before`; what lies outside along `axes` is as `mode` says, `fill` (or 0) where constant."""

    def body(*i: Expr) -> Expr:
        source = [index - first for index, first in zip(i, before, strict=True)]
        if mode != "constant":
            held = {n: PLACES[mode](source[n], x.shape[n]) for n in axes}
            return load(x, *(held.get(n, index) for n, index in enumerate(source)))
        inside = all_within((source[n], x.shape[n]) for n in axes)
        outside = literal(0, x.tensor.dtype) if fill is None else only(fill)
        return load(x, *source) if inside is None else select(inside, load(x, *source), outside)

    return compute(shape, body)


# ---------------------------------------------------------------------- older opsets

attributes_to_inputs("Reshape", before=5, shape=1)
attributes_to_inputs("Squeeze", "Unsqueeze", before=13, axes=1)
attributes_to_inputs("Slice", before=10, starts=1, ends=2, axes=3)
attributes_to_inputs("Split", before=13, split=1)
attribute_renamed("Pad", before=2, attribute="paddings", to="pads")
attributes_to_inputs("Pad", before=11, pads=1)
default_was("Concat", before=4, axis=1)


@upgrades("Pad", before=11)
def fill_as_operand(build: Builder, node: Node) -> None:
    if fill := node.attributes.pop("value", 0.0):
        build.graph.set_input(node, 2, build.scalar(fill, node.operand(0)))


@upgrades("Split", before=18)
def equal_parts(build: Builder, node: Node) -> None:
    if node.input(1) is None:
        node.attributes["num_outputs"] = len(node.outputs)


@upgrades("Tile", before=6)
def repeats_of_one_axis(build: Builder, node: Node) -> None:
    count, axis = required(node, 1).item(), required(node, 2).item()
    repeats = [count if n == axis else 1 for n in range(len(node.operand(0).shape))]
    build.graph.set_inputs(node, [node.operand(0), build.ints(repeats)])
