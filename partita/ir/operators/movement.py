"""Operators that move elements without computing on them: each is a map from output to input indices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import axis_of, normalized_axes, normalized_axis, required, required_ints
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call, literal
from partita.ir.formula import all_within, broadcast_load, compute, indices_over, load, only, put, select, size, tensor
from partita.ir.graph import Node, Value
from partita.ir.registry import computes, operator, upgrades, value_renamed
from partita.ir.types import DType

# ---------------------------------------------------------------------- views: the same elements in the same order


def linear_index(indices: Sequence[Expr], shape: Sequence[Dim]) -> Expr:
    """Position in row-major order."""
    position: Expr = literal(0, DType.INT64)
    for index, dim in zip(indices, shape, strict=True):
        position = position * size(dim) + index
    return position


def indices_at(position: Expr, shape: Sequence[Dim]) -> list[Expr]:
    """The indices of an element from its position in row-major order."""
    inner = [position // size(dims.product(shape[axis + 1 :])) for axis in range(len(shape))]
    return [*inner[:1], *(index % size(dim) for index, dim in zip(inner[1:], shape[1:], strict=True))]


def reshaped(value: Value, shape: Sequence[Dim]) -> Computation:
    dims.may_equal(dims.product(value.shape), dims.product(shape))  # a run compares what is not known
    return compute(shape, lambda *i: load(value, *indices_at(linear_index(i, shape), value.shape)))


@computes("Reshape")
def reshape(node: Node, x: Value, *, allowzero: int = 0) -> Computation:
    """0 keeps a dimension (without `allowzero`), one -1 takes what is left."""
    source, target = x.shape, list(required_ints(node, 1))
    for axis, dim in enumerate(target):
        if dim == 0 and not allowzero:
            if axis >= len(source):
                raise ShapeError(f"{node.describe()}: the shape {target} copies axis {axis}, which the input lacks")
            target[axis] = source[axis]
    if target.count(-1) > 1 or any(dims.is_static(dim) and dim < -1 for dim in target):
        raise ShapeError(f"{node.describe()}: the shape {target} may hold one -1 and no other negative size")
    total = dims.product(source)
    if -1 in target:
        rest = dims.product(put(target, target.index(-1)))
        if rest == 0:
            raise ShapeError(f"{node.describe()}: the -1 in shape {target} is not determined, as another size is 0")
        target[target.index(-1)] = dims.floor_div(total, rest)
    if dims.all_static([total, *target]) and dims.product(target) != total:
        raise ShapeError(f"{node.describe()}: shape {tuple(target)} does not hold {total} elements")
    return reshaped(x, target)


@computes("Flatten")
def flatten(node: Node, x: Value, *, axis: int = 1) -> Computation:
    axis = axis if axis == len(x.shape) else normalized_axis(node, axis, len(x.shape))
    return reshaped(x, (dims.product(x.shape[:axis]), dims.product(x.shape[axis:])))


@computes("Squeeze")
def squeeze(node: Node, x: Value, given: Value | None) -> Computation:
    ones = [axis for axis, dim in enumerate(x.shape) if dims.is_one(dim)]
    axes = ones if given is None else normalized_axes(node, required_ints(node, 1), len(x.shape))
    wrong = [axis for axis in axes if not dims.may_equal(x.shape[axis], 1)]
    if wrong:
        raise ShapeError(f"{node.describe()}: axes {wrong} cannot be squeezed, as their size is not 1")
    return reshaped(x, [dim for axis, dim in enumerate(x.shape) if axis not in axes])


@computes("Unsqueeze")
def unsqueeze(node: Node, x: Value) -> Computation:
    given, rest = required_ints(node, 1), iter(x.shape)
    axes = normalized_axes(node, given, len(x.shape) + len(given))
    return reshaped(x, [1 if n in axes else next(rest) for n in range(len(x.shape) + len(axes))])


for _name in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"):
    operator(_name).is_view = True


# ---------------------------------------------------------------------- index maps


@computes("Transpose")
def transpose(node: Node, x: Value, *, perm: Sequence[int] | None = None) -> Computation:
    permutation = normalized_axes(node, reversed(range(len(x.shape))) if perm is None else perm, len(x.shape))
    if len(permutation) != len(x.shape):
        raise ModelError(f"{node.describe()}: perm {permutation} must name every axis of {x.type} once")
    back = [permutation.index(axis) for axis in range(len(permutation))]
    return compute([x.shape[axis] for axis in permutation], lambda *i: load(x, *(i[place] for place in back)))


@computes("Expand")
def expand(node: Node, x: Value) -> Computation:
    return compute(dims.broadcast_shapes(x.shape, required_ints(node, 1)), lambda *i: broadcast_load(x, i))


@computes("Tile")
def tile(node: Node, x: Value) -> Computation:
    repeats = required_ints(node, 1)
    if len(repeats) != len(x.shape):
        raise ShapeError(f"{node.describe()}: {len(repeats)} repeats for rank {len(x.shape)}")
    shape = [dim * count for dim, count in zip(x.shape, repeats, strict=True)]
    return compute(shape, lambda *i: load(x, *(index % size(dim) for index, dim in zip(i, x.shape, strict=True))))


def slice_bounds(node: Node) -> list[tuple[Dim, int, Dim]]:
    """(start, step, size) of Slice for every axis."""
    x, starts, ends = node.operand(0), required_ints(node, 1), required_ints(node, 2)
    axes = range(len(starts)) if node.input(3) is None else required_ints(node, 3)
    steps = [1] * len(starts) if node.input(4) is None else required_ints(node, 4)
    bounds: list[tuple[Dim, int, Dim]] = [(0, 1, dim) for dim in x.shape]
    places = normalized_axes(node, axes, len(x.shape))
    for axis, start, end, step in zip(places, starts, ends, steps, strict=True):
        if step == 0:
            raise ShapeError(f"{node.describe()}: step 0 on axis {axis}; steps must not be zero")
        first, last = (_bound(place, x.shape[axis], step) for place in (start, end))
        length = last - first if step > 0 else first - last
        bounds[axis] = first, step, dims.maximum(dims.ceil_div(length, abs(step)), 0)
    return bounds


def _bound(place: Dim, dim: Dim, step: int) -> Dim:
    """A start or end, counted from the front and held where steps may lead."""
    low, high = (0, dim) if step > 0 else (-1, dim - 1)
    if not dims.is_static(place):
        return place
    if place < 0:
        return low if place <= -(2**31) else dims.maximum(dim + place, low)
    return high if place >= 2**31 - 1 else dims.minimum(place, high)


@computes("Slice")
def slice_operator(node: Node, x: Value) -> Computation:
    starts, steps, shape = ([bound[part] for bound in slice_bounds(node)] for part in range(3))
    return window_of(x, shape, list(map(size, starts)), steps)


@computes("Concat")
def concat(node: Node, *values: Value) -> Computation:
    shape = values[0].shape
    axis = axis_of(node, len(shape))
    for place, sizes in enumerate(zip(*(value.shape for value in values), strict=True)):
        if place != axis and not all(dims.may_equal(sizes[0], other) for other in sizes[1:]):
            raise ShapeError(f"{node.describe()}: the operands differ on axis {place}, which is not joined")
    ends = [dims.simplified(end) for end in itertools.accumulate(value.shape[axis] for value in values)]
    i = indices_over(put(shape, axis, ends[-1]))
    starts = zip(values, [0, *ends], strict=False)
    *pieces, result = (load(value, *put(i, axis, i[axis] - size(start))) for value, start in starts)
    for piece, end in reversed(list(zip(pieces, ends, strict=False))):
        result = select(i[axis] < size(end), piece, result)
    return tensor(i, result)


@computes("Split")
def split(node: Node, x: Value, given: Value | None) -> list[Computation]:
    axis, count = axis_of(node, len(x.shape)), len(node.outputs)
    part = dims.ceil_div(x.shape[axis], count)
    sizes = (*[part] * (count - 1), dims.simplified(x.shape[axis] - part * (count - 1)))
    sizes = sizes if given is None else required_ints(node, 1)
    if len(sizes) != count or not dims.may_equal(dims.simplified(sum(sizes)), x.shape[axis]):
        raise ShapeError(f"{node.describe()}: sizes {sizes} do not split axis {axis} into {count} outputs")

    def part_from(start: Dim, extent: Dim) -> Computation:
        return compute(put(x.shape, axis, extent), lambda *i: load(x, *put(i, axis, i[axis] + size(start))))

    return list(map(part_from, itertools.accumulate(sizes, initial=0), sizes))


@computes("Gather")
def gather(node: Node, x: Value, indices: Value) -> Computation:
    axis, rank = axis_of(node, len(x.shape)), len(indices.shape)
    i = indices_over(put(x.shape, axis, *indices.shape))
    place = wrapped(load(indices, *i[axis : axis + rank]), x.shape[axis])
    return tensor(i, load(x, *i[:axis], place, *i[axis + rank :]))


def wrapped(index: Expr, dim: Dim) -> Expr:
    """An index from data: negative ones count from the end; one outside [-dim, dim) is an error at run time."""
    return call("checked_index", index, size(dim), dtype=DType.INT64)


@computes("DepthToSpace")
def depth_to_space(node: Node, x: Value, *, blocksize: int, mode: str = "DCR") -> Computation:
    (batch, channels, *spatial), block = x.shape, blocksize
    if not dims.may_be_multiple(channels, block * block):
        raise ShapeError(f"{node.describe()}: {channels} channels are no multiple of {block * block}")
    depth = dims.floor_div(channels, block * block)
    i = n, c, h, w = indices_over((batch, depth, *(dim * block for dim in spatial)))
    place = (h % block) * block + w % block
    channel = place * size(depth) + c if mode == "DCR" else c * (block * block) + place
    return tensor(i, load(x, n, channel, h // block, w // block))


@computes("SpaceToDepth")
def space_to_depth(node: Node, x: Value, *, blocksize: int, mode: str = "DCR") -> Computation:
    (batch, channels, *spatial), block = x.shape, blocksize
    for axis, dim in enumerate(spatial, start=2):
        if not dims.may_be_multiple(dim, block):
            raise ShapeError(f"{node.describe()}: the size {dim} of axis {axis} is no multiple of {block}")
    i = n, c, h, w = indices_over((batch, channels * block**2, *(dims.floor_div(dim, block) for dim in spatial)))
    parts = (c // size(channels), c % size(channels)), (c % block**2, c // block**2)
    place, channel = parts[mode != "DCR"]
    return tensor(i, load(x, n, channel, h * block + place // block, w * block + place % block))


# ---------------------------------------------------------------------- padding


def reflected(index: Expr, dim: Dim, edge: int = 0) -> Expr:
    """Mirrored at both ends: ... 2 1 0 1 2 ..., or ... 1 0 0 1 2 ... where the `edge` is repeated."""
    period = dims.maximum(2 * (dim + edge) - 2, 1)
    folded = call("mod", index, size(period))
    return select(folded < size(dim), folded, size(period - edge) - folded)


def clamped(index: Expr, dim: Dim) -> Expr:
    return call("max", call("min", index, size(dim - 1)), 0)


PLACES: dict[str, Callable[[Expr, Dim], Expr]] = {
    "reflect": reflected, "edge": clamped, "wrap": lambda index, dim: call("mod", index, size(dim)),
}  # fmt: skip


@computes("Pad")
def pad(
    node: Node, x: Value, _: Value, fill: Value | None, given: Value | None, *, mode: str = "constant"
) -> Computation:
    pads, rank = required_ints(node, 1), len(x.shape)
    axes = range(rank) if given is None else normalized_axes(node, required_ints(node, 3), rank)
    if len(pads) != 2 * len(axes):
        raise ShapeError(f"{node.describe()}: {len(pads)} pads for {len(axes)} axes; there must be two an axis")
    before, after = dict(zip(axes, pads, strict=False)), dict(zip(axes, pads[len(axes) :], strict=True))
    shape = [dims.simplified(dim + before.get(n, 0) + after.get(n, 0)) for n, dim in enumerate(x.shape)]
    touched = [n for n in axes if not (dims.is_static(before[n]) and before[n] == after[n] == 0)]
    return window_of(x, shape, [size(-before.get(n, 0)) for n in range(rank)], [1] * rank, touched, mode, fill)


def window_of(
    x: Value, shape: Sequence[Dim], starts: Sequence[Expr], steps: Sequence[Expr | int],
    axes: Iterable[int] = (), mode: str = "constant", fill: Value | None = None,
) -> Computation:  # fmt: skip
    """Elements `start + index * step`; what lies outside along `axes` is as `mode` says, `fill` (or 0) where
    constant."""
    i = indices_over(shape)
    source = [index * step + start for index, start, step in zip(i, starts, steps, strict=True)]
    if mode != "constant":
        held = {n: PLACES[mode](source[n], x.shape[n]) for n in axes}
        return tensor(i, load(x, *(held.get(n, index) for n, index in enumerate(source))))
    inside = all_within((source[n], x.shape[n]) for n in axes)
    outside = literal(0, x.tensor.dtype) if fill is None else only(fill)
    return tensor(i, load(x, *source) if inside is None else select(inside, load(x, *source), outside))


# ---------------------------------------------------------------------- older opsets

value_renamed("Concat", before=4, attribute="axis", values={None: 1})


@upgrades("Pad", before=11)
def fill_as_operand(build: Builder, node: Node, x: Value) -> None:
    build.graph.set_input(node, 2, build.scalar(node.attributes.pop("value", 0.0), x))
    if node.version < 2:
        build.graph.set_input(node, 1, build.ints(node.attributes.pop("paddings")))


@upgrades("Split", before=18)
def equal_parts(build: Builder, node: Node, _: Value, sizes: Value | None) -> None:
    if sizes is None and "split" not in node.attributes:
        node.attributes["num_outputs"] = len(node.outputs)


@upgrades("Tile", before=6)
def repeats_of_one_axis(build: Builder, node: Node, x: Value) -> None:
    count, axis = (int(required(node, place).item()) for place in (1, 2))  # floats, then
    build.graph.set_inputs(node, [x, build.ints(put([1] * len(x.shape), axis, count))])
