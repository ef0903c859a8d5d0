"""Quantization: numbers as small integers or floats, with scales and zero points per tensor, axis or block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.expression import Cast, Computation, Expr, call
from partita.ir.formula import broadcast_load, cast, compute, highest, load, lowest, only
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import axis_of
from partita.ir.operators.contraction import convolution_of, matmul_of
from partita.ir.operators.older import with_trailing_axes
from partita.ir.operators.registry import computes, decomposes, infers
from partita.ir.types import DType, TensorType, Type


def is_single(value: Value) -> bool:
    return all(map(dims.is_one, value.shape))


def parameter(node: Node, value: Value, i: Sequence[Expr], axis: int | None = None) -> Expr:
    """A scale or zero point for the element at `i`: one for all, one for each `block_size` of places on an axis (that
    of the attribute), or one for each element, broadcast."""
    if is_single(value):
        return only(value)
    axis = axis_of(node, len(i), 1) if axis is None else axis
    block = node.attributes.get("block_size", 0) or 1
    place = [index // block if n == axis else index for n, index in enumerate(i)]
    return broadcast_load(value, place) if len(value.shape) > 1 else load(value, place[axis])


@computes("DequantizeLinear")
def dequantize(node: Node, x: Value, scale: Value, zero: Value | None, *, output_dtype: int = 0) -> Computation:
    """`(x - zero_point) * scale`."""
    kind = DType.from_onnx(output_dtype or scale.tensor.dtype.onnx)
    inner = DType.FLOAT64 if scale.tensor.dtype is DType.FLOAT64 else DType.FLOAT32

    def body(*i: Expr) -> Expr:
        value = cast(load(x, *i), inner)
        if zero is not None:
            value = value - cast(parameter(node, zero, i), inner)
        return cast(value * cast(parameter(node, scale, i), inner), kind)

    return compute(x.shape, body)


@computes("QuantizeLinear")
def quantize(
    node: Node, x: Value, scale: Value, zero: Value | None, *,
    output_dtype: int = 0, precision: int = 0, saturate: int = 1,
) -> Computation:  # fmt: skip
    """`round(x / scale) + zero_point`, saturated; ties go to the even."""
    kind = DType.from_onnx(output_dtype or DType.UINT8.onnx) if zero is None else zero.tensor.dtype
    inner = DType.FLOAT64 if x.tensor.dtype is DType.FLOAT64 else DType.FLOAT32
    precise = DType.from_onnx(precision or inner.onnx)

    def body(*i: Expr) -> Expr:
        ratio = cast(cast(load(x, *i), precise) / cast(parameter(node, scale, i), precise), inner)
        offset = None if zero is None else parameter(node, zero, i)
        if kind.is_float:
            return Cast(ratio if offset is None else ratio + cast(offset, inner), kind, bool(saturate))
        return saturated(call("rint", ratio), offset, kind)

    return compute(x.shape, body)


def saturated(whole: Expr, offset: Expr | None, kind: DType) -> Expr:
    """A whole number (of a floating type) plus an offset, as an integer of `kind`."""
    total = whole if offset is None else whole + cast(offset, whole.dtype)
    held = call("max", call("min", total, float(highest(kind))), float(lowest(kind)))
    return cast(cast(held, DType.INT64), kind)


# ---------------------------------------------------------------------- integer products


def _shifted(node: Node, value: Value, zero: Value | None, axis: int) -> Callable[..., Expr]:
    """Elements less their zero point, which is one for all or one for each place on `axis`."""

    def element(*i: Expr) -> Expr:
        whole = cast(load(value, *i), DType.INT32)
        return whole if zero is None else whole - cast(parameter(node, zero, i, axis), DType.INT32)

    return element


def integer_product(
    node: Node, a: Value, b: Value, a_zero: Value | None = None, b_zero: Value | None = None
) -> Computation:
    if "MatMul" in node.op_type:
        left, right = _shifted(node, a, a_zero, len(a.shape) - 2), _shifted(node, b, b_zero, len(b.shape) - 1)
        return matmul_of(node, a.shape, b.shape, left, right)
    return convolution_of(node, a, b, _shifted(node, a, a_zero, 1), _shifted(node, b, b_zero, 0))


computes("MatMulInteger", "ConvInteger")(integer_product)


@infers("QLinearMatMul", "QLinearConv")
def quantized_product_type(node: Node) -> Type:
    return TensorType(node.operand(7).tensor.dtype, integer_product(node, node.operand(0), node.operand(3)).shape)


@decomposes("QLinearMatMul", "QLinearConv")
def quantized_product(
    build: Builder, node: Node, a: Value, a_scale: Value, a_zero: Value, b: Value, b_scale: Value, b_zero: Value,
    y_scale: Value, y_zero: Value, bias: Value | None,
) -> Value:  # fmt: skip
    if node.op_type == "QLinearMatMul":
        total = build("MatMulInteger", a, b, a_zero, b_zero)
        if len(a_scale.shape) == 1 and not is_single(a_scale):  # one for each row
            a_scale = with_trailing_axes(build, a_scale, 1)
    else:
        total, spatial = build("ConvInteger", a, b, a_zero, b_zero, **node.attributes), len(a.shape) - 2
        total = total if bias is None else build("Add", total, with_trailing_axes(build, bias, spatial))
        b_scale = b_scale if is_single(b_scale) else with_trailing_axes(build, b_scale, spatial)  # for each channel
    return build("Requantize", total, a_scale, b_scale, y_scale, y_zero, domain="partita")


@computes("Requantize", domain="partita")
def requantize(node: Node, x: Value, a_scale: Value, b_scale: Value, y_scale: Value, y_zero: Value) -> Computation:
    """`round(x * a_scale * b_scale / y_scale) + y_zero`, saturated; the scales broadcast."""

    def at(value: Value, i: tuple[Expr, ...]) -> Expr:
        return only(value) if is_single(value) else broadcast_load(value, i)

    def body(*i: Expr) -> Expr:
        a, b, y = (cast(at(value, i), DType.FLOAT32) for value in (a_scale, b_scale, y_scale))
        whole = call("rint", cast(load(x, *i), DType.FLOAT32) * (a * b / y))
        return saturated(whole, at(y_zero, i), y_zero.tensor.dtype)

    return compute(x.shape, body)
