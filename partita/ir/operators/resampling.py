"""Operators that read between elements: Resize, GridSample, RoiAlign, DeformConv."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call, literal
from partita.ir.formula import cast, compute, load, reduction, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import known, normalized_axes, required, required_ints
from partita.ir.operators.elementwise import clip
from partita.ir.operators.internal import DOMAIN, observe, vector_of
from partita.ir.operators.movement import clamped
from partita.ir.operators.older import default_was, value_renamed
from partita.ir.operators.registry import computes, decomposes, infers, sized_by_data, upgrades
from partita.ir.types import DType, TensorType, Type

FLOAT64, INT64 = DType.FLOAT64, DType.INT64
Element = Callable[[Expr], Expr]
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


def _scales(node: Node) -> list[float] | None:
    content = known(node.input(2))
    return None if content is None else [float(scale) for scale in content]


def _sizes(node: Node) -> list[Dim]:
    """The sizes of the resized axes, where they are known."""
    shape, axes = node.operand(0).shape, _resized_axes(node)
    if node.input(2) is not None:
        scales = [float(scale) for scale in required(node, 2)]
        return [_scaled(shape[axis], scale) for axis, scale in zip(axes, scales, strict=True)]
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
def resize_type(node: Node) -> Type:
    shape = list(node.operand(0).shape)
    for axis, extent in zip(_resized_axes(node), _sizes(node), strict=True):
        shape[axis] = extent
    return TensorType(node.operand(0).tensor.dtype, tuple(shape))


@decomposes("Resize")
def resize(build: Builder, node: Node) -> Value:
    sizes = _sizes(node)
    scales = node.input(2) if node.input(2) is not None else _common_scale(build, node)
    return _chain(build, node, vector_of(build, sizes), scales, sizes)


@sized_by_data("Resize", operands=[2, 3])
def resize_by_data(build: Builder, node: Node) -> Value:
    x, axes = node.operand(0), _resized_axes(node)
    lengths = build("Gather", build("Shape", x), build.ints(axes))
    scales = node.input(2) if node.input(2) is not None else _common_scale(build, node)
    if scales is None:
        return _chain(build, node, observe(build, node.operand(3)), None, None)
    wide = build("Mul", build("Cast", lengths, to=1), scales)
    if node.input(2) is None:
        wide = build("Add", wide, build.scalar(0.5, wide))
    return _chain(build, node, observe(build, build("Cast", build("Floor", wide), to=7)), scales, None)


def _common_scale(build: Builder, node: Node) -> Value | None:
    """The scale of all axes where the ratio of the sides is kept."""
    policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return None
    lengths = build("Gather", build("Shape", node.operand(0)), build.ints(_resized_axes(node)))
    ratios = build("Div", build("Cast", node.operand(3), to=1), build("Cast", lengths, to=1))
    chosen = build("ReduceMin" if policy == "not_larger" else "ReduceMax", ratios, keepdims=1)
    return build("Expand", chosen, build.ints([len(_resized_axes(node))]))


def _chain(build: Builder, node: Node, sizes: Value, scales: Value | None, targets: list[Dim] | None) -> Value:
    """Resizes the axes in turn; the results are the same as of all at once."""
    value, axes = node.operand(0), _resized_axes(node)
    mode = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    given = _scales(node)
    attributes = {key: content for key, content in node.attributes.items() if key not in ("axes", "antialias")}
    for place, axis in enumerate(axes):
        same = targets is not None and dims.same(targets[place], value.shape[axis])
        if same and mode != "tf_crop_and_resize" and (given is None or given[place] == 1):
            continue
        scale = None if scales is None else build("Gather", scales, build.constant(place, INT64))
        span = _span(build, node, scale, value.shape[axis], place, sizes)
        extent = build("Gather", sizes, build.ints([place]))
        value = build(
            "ResizeAxis", value, extent, scale, span, node.input(1) if mode == "tf_crop_and_resize" else None,
            domain=DOMAIN, axis=axis, place=place, antialias=node.attributes.get("antialias", 0), **attributes,
        )  # fmt: skip
    return value


def _span(build: Builder, node: Node, scale: Value | None, dim: Dim, place: int, sizes: Value) -> Value:
    """How many elements an element is made of."""
    support = {"nearest": 0.5, "linear": 1.0, "cubic": 2.0}[node.attributes.get("mode", "nearest")]
    if not node.attributes.get("antialias", 0):
        return build.ints([int(2 * support)])
    if scale is None:
        extent = build("Cast", build("Gather", sizes, build.constant(place, INT64)), to=1)
        scale = build("Div", extent, build("Cast", build.constant(dim, INT64), to=1))
    wide = build("Div", build.scalar(support, scale), build("Min", scale, build.scalar(1, scale)))
    count = build("Mul", build("Cast", build("Ceil", wide), to=7), build.constant(2, INT64))
    factor = known(scale)
    if factor is not None:
        return build.ints([2 * math.ceil(np.float32(support) / np.float32(min(factor.item(), 1)))])
    return observe(build, build("Unsqueeze", count, build.ints([0])))


@computes("ResizeAxis", domain=DOMAIN)
def resize_axis(node: Node) -> Computation:
    """One axis: operands are the tensor, the size, the scale (or none: that of the sizes), how many elements one is
    made of, and the region of interest."""
    x, scale_value, roi = node.operand(0), node.input(2), node.input(4)
    attributes = node.attributes
    axis, place = attributes["axis"], attributes["place"]
    (extent,), (span,) = required_ints(node, 1), required_ints(node, 3)
    length = cast(size(x.shape[axis]), FLOAT64)
    scale = cast(size(extent), FLOAT64) / length if scale_value is None else cast(load(scale_value), FLOAT64)
    kind = x.tensor.dtype if x.tensor.dtype.is_float else DType.FLOAT32
    ends = None
    if roi is not None:
        count = roi.shape[0] // 2
        ends = [cast(load(roi, place + half * count), FLOAT64) for half in (0, 1)]

    def body(*i: Expr) -> Expr:
        origin = _origin(attributes, cast(i[axis], FLOAT64), scale, length, cast(size(extent), FLOAT64), ends)
        base = cast(call("ceil", clip(origin, -1e9, 1e9)), INT64) - 1  # so that the rest is in (0, 1]

        def element(position: Expr) -> Expr:
            held = clamped(position, x.shape[axis])
            return load(x, *(held if n == axis else index for n, index in enumerate(i)))

        if attributes.get("mode", "nearest") == "nearest":
            result = element(base + _nearest(attributes, origin - cast(base, FLOAT64)))
        else:
            total = _interpolated(attributes, origin, base, scale, (span, x.shape[axis]), element)
            result = cast(cast(total, kind), x.tensor.dtype)
        if ends is None:
            return result
        outside = (origin < 0) | (origin > length - 1)
        return select(outside, attributes.get("extrapolation_value", 0.0), result)

    return compute([extent if n == axis else dim for n, dim in enumerate(x.shape)], body)


def _origin(
    attributes: dict[str, Any], place: Expr, scale: Expr, length: Expr, extent: Expr, ends: list[Expr] | None
) -> Expr:
    """Where in the operand an element of the result lies."""
    resized = scale * length
    half_pixel = (place + 0.5) / scale - 0.5
    match attributes.get("coordinate_transformation_mode", "half_pixel"):
        case "align_corners":
            return select(call("eq", resized, 1.0), 0.0, place * (length - 1) / (resized - 1))
        case "asymmetric":
            return place / scale
        case "pytorch_half_pixel":
            return select(call("eq", resized, 1.0), -0.5, half_pixel)
        case "half_pixel_symmetric":
            return length / 2 * (1 - extent / resized) + half_pixel
        case "tf_crop_and_resize":
            assert ends is not None
            width = (ends[1] - ends[0]) * (length - 1)
            inner = select(call("eq", resized, 1.0), width / 2, place * width / (resized - 1))
            return inner + ends[0] * (length - 1)
        case _:
            return half_pixel


def _nearest(attributes: dict[str, Any], rest: Expr) -> Expr:
    """0 or 1: whether the element before or after is nearest; `rest` is in (0, 1]."""
    match attributes.get("nearest_mode", "round_prefer_floor"):
        case "round_prefer_floor":
            after = rest > 0.5
        case "round_prefer_ceil":
            after = rest >= 0.5
        case "floor":
            after = rest >= 1
        case _:
            after = rest > 0
    return select(after, literal(1, INT64), 0)


def _interpolated(
    attributes: dict[str, Any], origin: Expr, base: Expr, scale: Expr, extents: tuple[Dim, Dim], element: Element
) -> Expr:
    """The sum of elements around `origin`, which lies behind `base`, weighted by the kernel, as float64; `extents` are
    how many they are, and the length of the axis."""
    span, length = extents
    kernel = tent if attributes["mode"] == "linear" else keys(attributes.get("cubic_coeff_a", CUBIC))
    shrink = call("min", scale, 1.0) if attributes["antialias"] else literal(1.0, FLOAT64)
    exclude = attributes.get("exclude_outside", 0)

    def weighted(content: Element | None) -> Expr:
        def term(k: Expr) -> Expr:
            position = base + k - size(dims.floor_div(span, 2)) + 1
            weight = kernel((cast(position, FLOAT64) - origin) * shrink)
            if exclude:
                weight = select((position >= 0) & (position < size(length)), weight, 0)
            return weight if content is None else weight * cast(content(position), FLOAT64)

        return reduction("sum", [span], term)

    total = weighted(element)
    return total / weighted(None) if exclude or attributes["antialias"] else total


# ---------------------------------------------------------------------- older opsets

value_renamed("GridSample", before=20, attribute="mode", values={"bilinear": "linear", "bicubic": "cubic"})
default_was("RoiAlign", before=16, coordinate_transformation_mode="output_half_pixel")
value_renamed("Upsample", before=7, attribute="mode", values={"bilinear": "linear"})


@upgrades("Upsample", before=9)
def scales_as_operand(build: Builder, node: Node) -> None:
    attributes = node.attributes
    if node.version < 7:
        attributes["scales"] = (1.0, 1.0, attributes.pop("height_scale"), attributes.pop("width_scale"))
    scales = build.constant(np.asarray(attributes.pop("scales"), dtype=np.float32), DType.FLOAT32)
    build.graph.set_input(node, 1, scales)


@upgrades("Upsample", "Resize", before=11)
def places_without_centers(build: Builder, node: Node) -> None:
    """Elements lay at their index, not at their center, and the nearest one was the one before."""
    node.op_type = "Resize"
    node.attributes.update(coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    build.graph.set_inputs(node, [node.operand(0), None, node.operand(1)])


@upgrades("Resize", before=13)
def absent_operands(build: Builder, node: Node) -> None:
    """Operands that say nothing were empty tensors."""
    for index in (1, 2):
        value = node.input(index)
        if value is not None and any(dims.is_static(dim) and dim == 0 for dim in value.shape):
            build.graph.set_input(node, index, None)
