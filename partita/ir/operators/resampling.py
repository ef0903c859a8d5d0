"""Operators that read between elements: Resize, GridSample, RoiAlign, DeformConv."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import known, normalized_axes, required, required_ints
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call, literal
from partita.ir.formula import cast, indices_over, load, only, over, put, reduce, select, size, tensor
from partita.ir.graph import Node, Value
from partita.ir.operators.elementwise import clip
from partita.ir.operators.internal import DOMAIN, observe, vector_of
from partita.ir.operators.movement import clamped
from partita.ir.registry import computes, decomposes, infers, sized_by_data, upgrades, value_renamed
from partita.ir.types import DType, TensorType, Type

FLOAT32, FLOAT64, INT64 = DType.FLOAT32, DType.FLOAT64, DType.INT64
CUBIC = -0.75  # the usual coefficient of cubic convolution


def whole(x: Expr) -> Expr:
    """The integer at or below x, of coordinates that may be anything."""
    return cast(call("floor", clip(x, -1e9, 1e9)), INT64)


def tent(x: Expr) -> Expr:
    """The kernel of linear interpolation."""
    distance = call("abs", x)
    return select(distance < 1, 1 - distance, 0)


def keys(a: float) -> Callable[[Expr], Expr]:
    """The kernel of cubic convolution (Keys)."""

    def kernel(x: Expr) -> Expr:
        d = call("abs", x)
        near = ((d * (a + 2)) - (a + 3)) * d * d + 1
        far = (((d - 5) * d + 8) * d - 4) * a
        return select(d <= 1, near, select(d < 2, far, 0))

    return kernel


# ---------------------------------------------------------------------- Resize: one axis after the other


def _resized_axes(node: Node) -> tuple[int, ...]:
    rank = len(node.operand(0).shape)
    return normalized_axes(node, node.attributes.get("axes", range(rank)), rank)


def _sizes(node: Node) -> list[Dim]:
    """The sizes of the resized axes, where they are known."""
    shape, axes = node.operand(0).shape, _resized_axes(node)
    if node.input(2) is not None:
        return [_scaled(shape[axis], float(scale)) for axis, scale in zip(axes, required(node, 2), strict=True)]
    sizes = required_ints(node, 3)
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return list(sizes)
    chosen = (min if policy == "not_larger" else max)(n / shape[a] for n, a in zip(sizes, axes, strict=True))
    return [math.floor(chosen * shape[axis] + 0.5) for axis in axes]


def _scaled(dim: Dim, scale: float) -> Dim:
    if dims.is_static(dim):
        return math.floor(np.float32(scale) * dim)
    return dims.floor_div(dim * round(scale * 4096), 4096)


@infers("Resize")
def resize_type(node: Node, x: Value) -> Type:
    sizes = dict(zip(_resized_axes(node), _sizes(node), strict=True))
    return TensorType(x.tensor.dtype, tuple(sizes.get(axis, dim) for axis, dim in enumerate(x.shape)))


@sized_by_data("Resize", operands=[2, 3])
@decomposes("Resize")
def resize(
    build: Builder, node: Node, x: Value, roi: Value | None, scales: Value | None, sizes: Value | None, *,
    coordinate_transformation_mode: str = "half_pixel", keep_aspect_ratio_policy: str = "stretch",
) -> Value:  # fmt: skip
    """Resizes the axes in turn; the results are the same as of all at once."""
    axes, given = _resized_axes(node), known(scales)
    lengths = build("Gather", build("Shape", x), axes)
    if sizes is not None and keep_aspect_ratio_policy != "stretch":  # one scale, which keeps the ratio of the sides
        ratios = build("Div", build.cast(sizes, FLOAT32), build.cast(lengths, FLOAT32))
        chosen = build("ReduceMin" if keep_aspect_ratio_policy == "not_larger" else "ReduceMax", ratios, keepdims=1)
        scales = build("Expand", chosen, [len(axes)])
    if given is not None or known(sizes) is not None:
        extents = vector_of(build, _sizes(node))
    elif scales is not None:
        wide = build("Mul", build.cast(lengths, FLOAT32), scales)
        wide = wide if sizes is None else build("Add", wide, 0.5)
        extents = observe(build, build.cast(build("Floor", wide), INT64))
    else:
        extents = observe(build, node.operand(3))
    targets, is_cropped = known(extents), coordinate_transformation_mode == "tf_crop_and_resize"
    for place, axis in enumerate(axes):
        is_same = targets is not None and dims.same(targets[place], x.shape[axis])
        if is_same and not is_cropped and (given is None or given[place] == 1):
            continue
        scale = None if scales is None else build("Gather", scales, [place])
        extent = build("Gather", extents, [place])
        span = _span(build, node, scale, x.shape[axis], extent)
        x = build("ResizeAxis", x, extent, scale, span, roi if is_cropped else None,
                  domain=DOMAIN, axis=axis, place=place, **node.attributes)  # fmt: skip
    return x


def _span(build: Builder, node: Node, scale: Value | None, dim: Dim, extent: Value) -> Value:
    """How many elements an element is made of."""
    support = {"nearest": 0.5, "linear": 1.0, "cubic": 2.0}[node.attributes.get("mode", "nearest")]
    if not node.attributes.get("antialias", 0):
        return build.ints([int(2 * support)])
    if scale is None:
        scale = build("Div", build.cast(extent, FLOAT32), build.cast(vector_of(build, [dim]), FLOAT32))
    half = build("Ceil", build("Div", support, build("Min", scale, 1)))
    count = build("Mul", build.cast(half, INT64), 2)
    return observe(build, count) if known(count) is None else count


@computes("ResizeAxis", domain=DOMAIN)
def resize_axis(
    node: Node, x: Value, _: Value, given: Value | None, __: Value, roi: Value | None, *,
    axis: int, place: int, mode: str = "nearest", nearest_mode: str = "round_prefer_floor",
    coordinate_transformation_mode: str = "half_pixel", extrapolation_value: float = 0.0,
    antialias: int = 0, exclude_outside: int = 0, cubic_coeff_a: float = CUBIC,
) -> Computation:  # fmt: skip
    """One axis: operands are the tensor, the size, the scale (or none: that of the sizes), how many elements one is
    made of, and the region of interest. What is between elements is their sum, weighted by a kernel, in float64."""
    (extent,), (span,) = required_ints(node, 1), required_ints(node, 3)
    length, resized = cast(size(x.shape[axis]), FLOAT64), cast(size(extent), FLOAT64)
    scale = resized / length if given is None else cast(only(given), FLOAT64)
    kind = x.tensor.dtype if x.tensor.dtype.is_float else FLOAT32
    ends = None if roi is None else [cast(load(roi, place + n), FLOAT64) for n in (0, roi.shape[0] // 2)]
    kernel, shrink = tent if mode == "linear" else keys(cubic_coeff_a), call("min", scale, 1.0) if antialias else 1.0

    i = indices_over(put(x.shape, axis, extent))
    origin = _origin(coordinate_transformation_mode, cast(i[axis], FLOAT64), scale, length, resized, ends)
    base = cast(call("ceil", clip(origin, -1e9, 1e9)), INT64) - 1  # so that the rest is in (0, 1]

    def element(position: Expr) -> Expr:
        return load(x, *put(i, axis, clamped(position, x.shape[axis])))

    if mode == "nearest":
        rest = origin - cast(base, FLOAT64)
        after = {"round_prefer_floor": rest > 0.5, "round_prefer_ceil": rest >= 0.5, "floor": rest >= 1}
        result = element(base + select(after.get(nearest_mode, rest > 0), literal(1, INT64), 0))
    else:
        k = over("k", span)
        position = base + k - size(dims.floor_div(span, 2)) + 1
        weight = kernel((cast(position, FLOAT64) - origin) * shrink)
        if exclude_outside:
            weight = select((position >= 0) & (position < size(x.shape[axis])), weight, 0)
        result = reduce("sum", [k], weight * cast(element(position), FLOAT64))
        result = result / reduce("sum", [k], weight) if exclude_outside or antialias else result
        result = cast(cast(result, kind), x.tensor.dtype)
    outside = None if ends is None else (origin < 0) | (origin > length - 1)
    return tensor(i, result if outside is None else select(outside, extrapolation_value, result))


def _origin(mode: str, place: Expr, scale: Expr, length: Expr, extent: Expr, ends: Sequence[Expr] | None) -> Expr:
    """Where in the operand an element of the result lies."""
    resized, half_pixel = scale * length, (place + 0.5) / scale - 0.5
    is_point, (first, last) = call("eq", resized, 1.0), ends or (0.0, 1.0)
    width = (last - first) * (length - 1)
    return {
        "half_pixel": half_pixel,
        "align_corners": select(is_point, 0.0, place * (length - 1) / (resized - 1)),
        "asymmetric": place / scale,
        "tf_crop_and_resize": select(is_point, width / 2, place * width / (resized - 1)) + first * (length - 1),
        "tf_half_pixel_for_nn": (place + 0.5) / scale,  # until opset 13
        "pytorch_half_pixel": select(is_point, -0.5, half_pixel),
        "half_pixel_symmetric": length / 2 * (1 - extent / resized) + half_pixel,
    }[mode]


# ---------------------------------------------------------------------- older opsets

value_renamed("GridSample", before=20, attribute="mode", values={"bilinear": "linear", "bicubic": "cubic"})
value_renamed("RoiAlign", before=16, attribute="coordinate_transformation_mode", values={None: "output_half_pixel"})
value_renamed("Upsample", before=7, attribute="mode", values={"bilinear": "linear"})


@upgrades("Upsample", before=9)
def scales_as_operand(build: Builder, node: Node) -> None:
    attributes = node.attributes
    if node.version < 7:
        attributes["scales"] = (1.0, 1.0, attributes.pop("height_scale"), attributes.pop("width_scale"))
    build.graph.set_input(node, 1, build.constant(attributes.pop("scales"), FLOAT32))


@upgrades("Upsample", "Resize", before=11)
def places_without_centers(build: Builder, node: Node) -> None:
    """Elements lay at their index, not at their center, and the nearest one was the one before."""
    node.op_type = "Resize"
    node.attributes.update(coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    build.graph.set_inputs(node, [node.operand(0), None, node.operand(1)])


@upgrades("Resize", before=13)
def absent_operands(build: Builder, node: Node, _: Value, roi: Value | None, scales: Value | None) -> None:
    """Operands that say nothing were empty tensors."""
    for index, value in ((1, roi), (2, scales)):
        if value is not None and any(dims.is_static(dim) and dim == 0 for dim in value.shape):
            build.graph.set_input(node, index, None)
