"""Operators that read between elements, at coordinates from data: GridSample, DeformConv, RoiAlign."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence

from partita.ir.builder import Builder
from partita.ir.contents import required_ints
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call, literal
from partita.ir.formula import all_within, cast, combination, indices_over, load, neutral, reduce, select, size, tensor
from partita.ir.graph import Node, Value
from partita.ir.operators.contraction import kernel_of
from partita.ir.operators.dynamic import by_observed_sizes
from partita.ir.operators.elementwise import clip
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.operators.movement import clamped, linear_index, reflected, wrapped
from partita.ir.operators.resampling import CUBIC, INT64, keys, tent, whole
from partita.ir.registry import becomes, computes
from partita.ir.types import DType
from partita.ir.window import window


def sampled(
    x: Value, lead: Sequence[Expr], coordinates: Sequence[Expr], mode: str, padding: str, align_corners: bool,
    combine: str = "sum",
) -> Expr:  # fmt: skip
    """The value of `x[lead]` at coordinates between its elements: their weighted sum, or the largest of them."""
    spatial, is_nearest = x.shape[len(lead) :], mode == "nearest"

    def element(at: Sequence[Expr]) -> Expr:
        inside = all_within(zip(at, spatial, strict=True))
        if padding == "zeros" and inside is not None:
            return select(inside, load(x, *lead, *at), 0)
        if padding == "reflection":
            at = [reflected(place, dim, edge=int(not align_corners)) for place, dim in zip(at, spatial, strict=True)]
        return load(x, *lead, *map(clamped, at, spatial))

    coordinates = [call("rint", c) for c in coordinates] if is_nearest else coordinates
    places = [_bent(c, dim, padding, align_corners) for c, dim in zip(coordinates, spatial, strict=True)]
    low = [whole(place) for place in places]
    count, first, kernel = (4, -1, keys(CUBIC)) if mode == "cubic" else (2, 0, tent)

    def term(*k: Expr | int) -> Expr:
        at = [base + tap + first for base, tap in zip(low, k, strict=True)]
        value = element(at)
        for position, place in zip(at, places, strict=True):
            value = kernel(cast(position, place.dtype) - place) * value
        return value

    if is_nearest:
        return element(low)
    return combination(combine, [count] * len(spatial), term)


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


@computes("GridSample")
def grid_sample(
    node: Node, x: Value, grid: Value, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: int = 0
) -> Computation:
    n, c, *out = i = indices_over((*x.shape[:2], *grid.shape[1:-1]))
    coordinates = []
    for axis, dim in enumerate(x.shape[2:]):
        place = load(grid, n, *out, len(x.shape) - 3 - axis)  # the last axis comes first
        place = place if place.dtype.is_float else cast(place, DType.FLOAT32)
        extent = cast(size(dim), place.dtype)
        coordinates.append((place + 1) * (extent - 1) / 2 if align_corners else ((place + 1) * extent - 1) / 2)
    return tensor(i, sampled(x, [n, c], coordinates, mode, padding_mode, bool(align_corners)))


by_observed_sizes("AffineGrid", operands=[1])


@computes("AffineGrid")
def affine_grid(node: Node, theta: Value, *, align_corners: int = 0) -> Computation:
    """Where an affine map takes the pixels of an image, as GridSample reads it: the last axis comes first."""
    batch, _, *spatial = required_ints(node, 1)
    rank = len(spatial)
    n, *places, row = i = indices_over([batch, *spatial, rank])
    total = load(theta, n, row, rank)
    for axis, dim in enumerate(spatial):
        place, extent = cast(places[axis], total.dtype), cast(size(dim), total.dtype)
        aligned, centered = select(size(dim) > 1, place * 2 / (extent - 1) - 1, 0), (place * 2 + 1) / extent - 1
        total = total + load(theta, n, row, rank - 1 - axis) * (aligned if align_corners else centered)
    return tensor(i, total)


@computes("DeformConv")
def deformable_convolution(
    node: Node, x: Value, w: Value, offset: Value, bias: Value | None, mask: Value | None, *,
    group: int = 1, offset_group: int = 1,
) -> Computation:  # fmt: skip
    """A convolution whose window's places are moved by offsets from data, and weighted by a mask."""
    view = window(node, x.shape[2:], kernel_of(node, x, w, w.shape[1] * group))
    rank, taps = len(view.kernel), math.prod(view.kernel)
    outputs, per_group = w.shape[:2]
    n, o, *out = i = indices_over((x.shape[0], outputs, *offset.shape[2:]))
    c, *inner = k = indices_over([per_group, *view.kernel], "k")
    channel = c + (o // (outputs // group)) * per_group
    tap = channel // (x.shape[1] // offset_group) * taps + linear_index(inner, view.kernel)
    moved = (load(offset, n, tap * rank + axis, *out) for axis in range(rank))
    places = [cast(fixed, m.dtype) + m for fixed, m in zip(view.sources(out, inner), moved, strict=True)]
    value = sampled(x, [n, channel], places, "linear", "zeros", True) * load(w, o, c, *inner)
    total = reduce("sum", k, value if mask is None else value * load(mask, n, tap, *out))
    return tensor(i, total if bias is None else total + load(bias, o))


# ---------------------------------------------------------------------- regions of interest


@becomes("RoiAlign")
def roi_align(
    build: Builder, node: Node, *, sampling_ratio: int = 0, output_height: int = 1, output_width: int = 1
) -> Value:
    """How many points of a bin are read depends on the regions unless `sampling_ratio` says: the largest counts."""
    points, bins = build.ints([sampling_ratio] * 2), (output_height, output_width)
    if not sampling_ratio:
        points = observe(build, build("Max", _largest_bin(build, node, [1, 0], [3, 2], bins), [1, 1]))
    return build("RoiAlign", *node.operands, points, domain=DOMAIN, bins=bins, **node.attributes)


def _largest_bin(build: Builder, node: Node, low: Sequence[int], high: Sequence[int], bins: Sequence[int]) -> Value:
    """(height, width) of the largest bin of all regions in pixels, whose corners are the columns `low` and `high`."""
    rois = node.operand(1)
    first, last = (build("Gather", rois, columns, axis=1) for columns in (low, high))
    sides = build("Mul", build("Sub", last, first), node.attributes.get("spatial_scale", 1.0))
    steps = build("Ceil", build("Div", sides, build.constant(list(bins), rois.tensor.dtype)))
    return build("ReduceMax", build.cast(steps, INT64), [0], keepdims=0)


@computes("RoiAlign", domain=DOMAIN)
def roi_align_points(
    node: Node, x: Value, rois: Value, batch: Value, *, coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg", sampling_ratio: int = 0, spatial_scale: float = 1.0, bins: Sequence[int],
) -> Computation:  # fmt: skip
    """Each bin is the mean, or the largest, of points in it; those more than 1 outside of the image count as 0."""
    is_mean, is_half_pixel = mode == "avg", coordinate_transformation_mode == "half_pixel"
    combine, kind = "sum" if is_mean else "max", rois.tensor.dtype
    r, c, *out = i = indices_over((batch.shape[0], x.shape[1], *bins))
    k = indices_over(required_ints(node, 3), "k")
    corners = [load(rois, r, n) * spatial_scale - (0.5 if is_half_pixel else 0.0) for n in (1, 0, 3, 2)]
    first, last = corners[:2], corners[2:]
    side = [b - a if is_half_pixel else call("max", b - a, 1.0) for a, b in zip(first, last, strict=True)]
    step = [s / count for s, count in zip(side, bins, strict=True)]
    own = [literal(sampling_ratio, INT64) if sampling_ratio else cast(call("ceil", s), INT64) for s in step]
    places = [
        first[n] + cast(out[n], kind) * step[n] + (cast(k[n], kind) + 0.5) * step[n] / cast(own[n], kind)
        for n in (0, 1)
    ]
    value = sampled(x, [cast(load(batch, r), INT64), c], places, "linear", "border", True, combine)
    far = [(p < -1.0) | (p > cast(size(dim), kind)) for p, dim in zip(places, x.shape[2:], strict=True)]
    counted = select((k[0] < own[0]) & (k[1] < own[1]), select(far[0] | far[1], 0, value), neutral(combine, kind))
    total = reduce(combine, k, counted)
    return tensor(i, total / cast(call("max", own[0] * own[1], 1), kind) if is_mean else total)


@becomes("MaxRoiPool")
def max_roi_pool(build: Builder, node: Node, x: Value, rois: Value) -> Value:
    """How many pixels a bin may have depends on the regions: room for the largest."""
    largest = _largest_bin(build, node, [2, 1], [4, 3], node.attributes["pooled_shape"])
    room = build("Add", build("Max", largest, [0, 0]), [4, 4])
    window = observe(build, build("Min", room, build("Shape", x, start=2)))
    return build("MaxRoiPool", x, rois, window, domain=DOMAIN, **node.attributes)


@computes("MaxRoiPool", domain=DOMAIN)
def max_roi_pool_window(
    node: Node, x: Value, rois: Value, *, pooled_shape: Sequence[int], spatial_scale: float = 1.0
) -> Computation:
    """The largest pixel of each bin of each region, 0 for a bin without; regions are rounded to whole pixels."""
    r, c, *out = i = indices_over((rois.shape[0], x.shape[1], *pooled_shape))
    k, starts, ends = indices_over(required_ints(node, 2), "k"), [], []
    for n, dim in enumerate(x.shape[2:]):
        first, last = (load(rois, r, column - n) * spatial_scale for column in (2, 4))
        first, last = (call("floor", call("abs", v) + 0.5) * call("sign", v) for v in (first, last))
        step = call("max", last - first + 1, 1.0) / pooled_shape[n]
        place = cast(out[n], step.dtype)
        edges = call("floor", place * step) + first, call("ceil", (place + 1) * step) + first
        low, high = (call("min", call("max", cast(edge, INT64), 0), size(dim)) for edge in edges)
        starts.append(low)
        ends.append(high)
    sample, at = wrapped(cast(load(rois, r, 0), INT64), x.shape[0]), list(map(operator.add, starts, k))
    value = load(x, sample, c, *map(clamped, at, x.shape[2:]))
    largest = reduce("max", k, select((at[0] < ends[0]) & (at[1] < ends[1]), value, neutral("max", x.tensor.dtype)))
    return tensor(i, select((starts[0] >= ends[0]) | (starts[1] >= ends[1]), 0, largest))
