"""Operators that read between elements, at coordinates from data: GridSample, DeformConv, RoiAlign."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call, literal
from partita.ir.formula import cast, compute, load, lowest, reduction, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import required_ints
from partita.ir.operators.contraction import window
from partita.ir.operators.dynamic import by_observed_sizes
from partita.ir.operators.elementwise import clip
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.operators.movement import all_within, clamped, reflected, wrapped
from partita.ir.operators.registry import computes, infers, sized_by_data
from partita.ir.operators.resampling import CUBIC, INT64, keys, tent, whole
from partita.ir.types import DType, TensorType

# ---------------------------------------------------------------------- sampling at coordinates


def sampled(
    x: Value, lead: Sequence[Expr], coordinates: Sequence[Expr], mode: str, padding: str, align_corners: bool
) -> Expr:
    """The value of `x[lead]` at coordinates between its elements."""
    spatial = x.shape[len(lead) :]
    if mode == "nearest":
        coordinates = [call("rint", c) for c in coordinates]
    places = [_bent(c, dim, padding, align_corners) for c, dim in zip(coordinates, spatial, strict=True)]
    low = [whole(place) for place in places]
    count, first = {"nearest": (1, 0), "linear": (2, 0), "cubic": (4, -1)}[mode]
    kernel = tent if mode == "linear" else keys(CUBIC)

    def term(*k: Expr) -> Expr:
        at = [base + tap + first for base, tap in zip(low, k, strict=True)]
        value = _element(x, lead, at, padding, align_corners)
        for position, place in zip(at, places, strict=True):
            value = value if mode == "nearest" else kernel(cast(position, place.dtype) - place) * value
        return value

    if mode == "nearest":
        return term(*(literal(0, INT64) for _ in spatial))
    return reduction("sum", [count] * len(spatial), term)


def _bent(place: Expr, dim: Dim, padding: str, align_corners: bool) -> Expr:
    """A coordinate moved to the inside."""
    extent = cast(size(dim), place.dtype)
    if padding == "border":
        return clip(place, 0, extent - 1)
    if padding != "reflection":
        return place
    low, span = (0.0, extent - 1) if align_corners else (-0.5, extent)
    distance = call("fmod", call("abs", place - low), span * 2)
    return select(distance <= span, distance, span * 2 - distance) + low


def _element(x: Value, lead: Sequence[Expr], at: Sequence[Expr], padding: str, align_corners: bool) -> Expr:
    spatial = x.shape[len(lead) :]
    if padding == "zeros":
        inside = all_within(zip(at, spatial, strict=True))
        assert inside is not None
        return select(inside, load(x, *lead, *at), 0)
    if padding == "reflection":
        at = [reflected(p, d) if align_corners else _mirrored(p, d) for p, d in zip(at, spatial, strict=True)]
    return load(x, *lead, *(clamped(position, dim) for position, dim in zip(at, spatial, strict=True)))


def _mirrored(index: Expr, dim: Dim) -> Expr:
    """Mirrored at both ends, the edge twice: ... 1 0 0 1 2 ..."""
    folded = call("mod", index, size(2 * dim))
    return select(folded < size(dim), folded, size(2 * dim - 1) - folded)


@computes("GridSample")
def grid_sample(node: Node) -> Computation:
    x, grid = node.operand(0), node.operand(1)
    mode, padding = node.attributes.get("mode", "linear"), node.attributes.get("padding_mode", "zeros")
    align = bool(node.attributes.get("align_corners", 0))
    rank = len(x.shape) - 2

    def body(n: Expr, c: Expr, *out: Expr) -> Expr:
        coordinates = []
        for axis, dim in enumerate(x.shape[2:]):
            place = load(grid, n, *out, rank - 1 - axis)  # the last axis comes first
            place = place if place.dtype.is_float else cast(place, DType.FLOAT32)
            extent = cast(size(dim), place.dtype)
            coordinates.append((place + 1) * (extent - 1) / 2 if align else ((place + 1) * extent - 1) / 2)
        return sampled(x, [n, c], coordinates, mode, padding, align)

    return compute((*x.shape[:2], *grid.shape[1:-1]), body)


by_observed_sizes("AffineGrid", operands=[1])


@computes("AffineGrid")
def affine_grid(node: Node) -> Computation:
    """Where an affine map takes the pixels of an image, as GridSample reads it: the last axis comes first."""
    theta, (batch, _, *spatial) = node.operand(0), required_ints(node, 1)
    align, rank = node.attributes.get("align_corners", 0), len(spatial)

    def body(n: Expr, *i: Expr) -> Expr:
        row = i[-1]
        total = load(theta, n, row, rank)
        for axis, dim in enumerate(spatial):
            place, extent = cast(i[axis], total.dtype), cast(size(dim), total.dtype)
            aligned = select(size(dim) > 1, place * 2 / (extent - 1) - 1, 0)
            total = total + load(theta, n, row, rank - 1 - axis) * (aligned if align else (place * 2 + 1) / extent - 1)
        return total

    return compute([batch, *spatial, rank], body)


@computes("DeformConv")
def deformable_convolution(node: Node) -> Computation:
    """A convolution whose window's places are moved by offsets from data, and weighted by a mask."""
    x, w, offset, bias, mask = (node.input(n) for n in range(5))
    assert x is not None and w is not None and offset is not None
    group, offset_groups = node.attributes.get("group", 1), node.attributes.get("offset_group", 1)
    view = window(node, x.shape[2:], node.attributes.get("kernel_shape", w.shape[2:]))
    rank, taps = len(view.kernel), math.prod(view.kernel)
    outputs, per_group = w.shape[0], w.shape[1]

    def body(n: Expr, o: Expr, *out: Expr) -> Expr:
        def term(c: Expr, *k: Expr) -> Expr:
            channel = c + (o // (outputs // group)) * per_group
            block = channel // (x.shape[1] // offset_groups)
            tap = k[0]
            for axis in range(1, rank):
                tap = tap * view.kernel[axis] + k[axis]
            places = []
            for axis in range(rank):
                moved = load(offset, n, (block * taps + tap) * rank + axis, *out)
                fixed = out[axis] * view.strides[axis] + k[axis] * view.dilations[axis] - size(view.begin[axis])
                places.append(cast(fixed, moved.dtype) + moved)
            value = sampled(x, [n, channel], places, "linear", "zeros", True) * load(w, o, c, *k)
            return value if mask is None else value * load(mask, n, block * taps + tap, *out)

        total = reduction("sum", [per_group, *view.kernel], term)
        return total if bias is None else total + load(bias, o)

    return compute((x.shape[0], outputs, *offset.shape[2:]), body)


# ---------------------------------------------------------------------- regions of interest


@infers("RoiAlign")
def roi_align_type(node: Node) -> TensorType:
    x, count = node.operand(0), node.operand(2).shape[0]
    height, width = (node.attributes.get(f"output_{side}", 1) for side in ("height", "width"))
    return TensorType(x.tensor.dtype, (count, x.shape[1], height, width))


@sized_by_data("RoiAlign", operands=[])
def roi_align(build: Builder, node: Node) -> Value:
    """How many points of a bin are read depends on the regions unless `sampling_ratio` says: the largest counts."""
    attributes = node.attributes
    points = build.ints([attributes.get("sampling_ratio", 0)] * 2)
    if not attributes.get("sampling_ratio", 0):
        bins = [attributes.get("output_height", 1), attributes.get("output_width", 1)]
        largest = _largest_bin(build, node, [1, 0], [3, 2], bins)
        points = observe(build, build("Max", largest, build.ints([1, 1])))
    return build("RoiAlign", *node.operands, points, domain=DOMAIN, **attributes)


def _largest_bin(build: Builder, node: Node, low: Sequence[int], high: Sequence[int], bins: Sequence[int]) -> Value:
    """(height, width) of the largest bin of all regions in pixels, whose corners are the columns `low` and `high`."""
    rois = node.operand(1)
    first, last = (build("Gather", rois, build.ints(columns), axis=1) for columns in (low, high))
    sides = build("Mul", build("Sub", last, first), build.scalar(node.attributes.get("spatial_scale", 1.0), rois))
    steps = build("Ceil", build("Div", sides, build.constant(list(bins), rois.tensor.dtype)))
    return build("ReduceMax", build("Cast", steps, to=INT64.onnx), build.ints([0]), keepdims=0)


@computes("RoiAlign", domain=DOMAIN)
def roi_align_points(node: Node) -> Computation:
    x, rois, batch = node.operand(0), node.operand(1), node.operand(2)
    attributes, points = node.attributes, required_ints(node, 3)
    shape = roi_align_type(node).dims
    half_pixel = attributes.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    scale, ratio = attributes.get("spatial_scale", 1.0), attributes.get("sampling_ratio", 0)
    is_mean = attributes.get("mode", "avg") == "avg"

    def body(r: Expr, c: Expr, *out: Expr) -> Expr:
        first = [load(rois, r, 1 - n) * scale - (0.5 if half_pixel else 0.0) for n in (0, 1)]
        last = [load(rois, r, 3 - n) * scale - (0.5 if half_pixel else 0.0) for n in (0, 1)]
        side = [b - a if half_pixel else call("max", b - a, 1.0) for a, b in zip(first, last, strict=True)]
        step = [s / shape[2 + n] for n, s in enumerate(side)]
        own = [literal(ratio, INT64) if ratio else cast(call("ceil", s), INT64) for s in step]

        def term(*k: Expr) -> Expr:
            places = [
                first[n] + cast(out[n], step[n].dtype) * step[n]
                + (cast(k[n], step[n].dtype) + 0.5) * step[n] / cast(own[n], step[n].dtype)
                for n in (0, 1)
            ]  # fmt: skip
            value = _roi_point(x, cast(load(batch, r), INT64), c, places, is_mean)
            return select((k[0] < own[0]) & (k[1] < own[1]), value, 0.0 if is_mean else lowest(value.dtype))

        if not is_mean:
            return reduction("max", points, term)
        count = call("max", own[0] * own[1], 1)
        return reduction("sum", points, term) / cast(count, x.tensor.dtype)

    return compute(shape, body)


def _roi_point(x: Value, n: Expr, c: Expr, places: Sequence[Expr], is_mean: bool) -> Expr:
    """The four neighbours of a point, weighted: their sum or the largest. Points more than 1 outside count as 0."""
    spatial = x.shape[2:]
    outside, low, high, weights = [], [], [], []
    for place, dim in zip(places, spatial, strict=True):
        outside.append((place < -1.0) | (place > float(dim)) if dims.is_static(dim) else place < -1.0)
        held = clip(place, 0.0, cast(size(dim), place.dtype) - 1)
        base = whole(held)
        low.append(clamped(base, dim))
        high.append(clamped(base + 1, dim))
        rest = held - cast(base, held.dtype)
        weights.append((1 - rest, rest))
    corners = [
        weights[0][a] * weights[1][b] * load(x, n, c, (low, high)[a][0], (low, high)[b][1])
        for a in (0, 1)
        for b in (0, 1)
    ]
    total = functools.reduce(functools.partial(call, "add" if is_mean else "max"), corners)
    return select(outside[0] | outside[1], 0, total)


@infers("MaxRoiPool")
def max_roi_pool_type(node: Node) -> TensorType:
    x = node.operand(0)
    return TensorType(x.tensor.dtype, (node.operand(1).shape[0], x.shape[1], *node.attributes["pooled_shape"]))


@sized_by_data("MaxRoiPool", operands=[])
def max_roi_pool(build: Builder, node: Node) -> Value:
    """How many pixels a bin may have depends on the regions: room for the largest."""
    x, rois = node.operand(0), node.operand(1)
    largest = _largest_bin(build, node, [2, 1], [4, 3], node.attributes["pooled_shape"])
    room = build("Add", build("Max", largest, build.ints([0, 0])), build.ints([4, 4]))
    window = observe(build, build("Min", room, build("Shape", x, start=2)))
    return build("MaxRoiPool", x, rois, window, domain=DOMAIN, **node.attributes)


@computes("MaxRoiPool", domain=DOMAIN)
def max_roi_pool_window(node: Node) -> Computation:
    """The largest pixel of each bin of each region, 0 for a bin without; regions are rounded to whole pixels."""
    x, rois, window = node.operand(0), node.operand(1), required_ints(node, 2)
    pooled, scale = node.attributes["pooled_shape"], node.attributes.get("spatial_scale", 1.0)

    def body(r: Expr, c: Expr, *out: Expr) -> Expr:
        starts, ends = [], []
        for n, dim in enumerate(x.shape[2:]):
            first, last = (load(rois, r, column - n) * scale for column in (2, 4))
            first, last = (call("floor", call("abs", v) + 0.5) * call("sign", v) for v in (first, last))
            step = call("max", last - first + 1, 1.0) / pooled[n]
            place = cast(out[n], step.dtype)
            low, high = call("floor", place * step) + first, call("ceil", (place + 1) * step) + first
            starts.append(call("min", call("max", cast(low, INT64), 0), size(dim)))
            ends.append(call("min", call("max", cast(high, INT64), 0), size(dim)))
        sample = wrapped(cast(load(rois, r, 0), INT64), x.shape[0])

        def term(*k: Expr) -> Expr:
            at = [start + index for start, index in zip(starts, k, strict=True)]
            held = [clamped(place, dim) for place, dim in zip(at, x.shape[2:], strict=True)]
            is_inside = (at[0] < ends[0]) & (at[1] < ends[1])
            return select(is_inside, load(x, sample, c, *held), lowest(x.tensor.dtype))

        is_empty = (starts[0] >= ends[0]) | (starts[1] >= ends[1])
        return select(is_empty, 0, reduction("max", window, term))

    return compute(max_roi_pool_type(node).dims, body)
