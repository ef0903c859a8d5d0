"""Quantization: numbers as small integers or floats, with scales and zero points per tensor, axis or block."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partita.ir import dims
from partita.ir.contents import axis_of
from partita.ir.expression import Cast, Computation, Expr, call
from partita.ir.formula import broadcast_load, cast, highest, indices_over, load, lowest, only, tensor
from partita.ir.graph import Node, Value
from partita.ir.operators.contraction import convolution_of, matmul_of
from partita.ir.registry import computes
from partita.ir.types import DType


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
    i = indices_over(x.shape)
    value = cast(load(x, *i), inner)
    if zero is not None:
        value = value - cast(parameter(node, zero, i), inner)
    return tensor(i, cast(value * cast(parameter(node, scale, i), inner), kind))


@computes("QuantizeLinear")
def quantize(
    node: Node, x: Value, scale: Value, zero: Value | None, *,
    output_dtype: int = 0, precision: int = 0, saturate: int = 1,
) -> Computation:  # fmt: skip
    """`round(x / scale) + zero_point`, saturated; ties go to the even."""
    kind = DType.from_onnx(output_dtype or DType.UINT8.onnx) if zero is None else zero.tensor.dtype
    inner = DType.FLOAT64 if x.tensor.dtype is DType.FLOAT64 else DType.FLOAT32
    precise = DType.from_onnx(precision or inner.onnx)
    i = indices_over(x.shape)
    ratio = cast(cast(load(x, *i), precise) / cast(parameter(node, scale, i), precise), inner)
    offset = None if zero is None else parameter(node, zero, i)
    if kind.is_float:
        return tensor(i, Cast(ratio if offset is None else ratio + cast(offset, inner), kind, bool(saturate)))
    return tensor(i, saturated(call("rint", ratio), offset, kind))


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
    node: Node, a: Value, b: Value, a_zero: Value | None, b_zero: Value | None, bias: Value | None = None
) -> Computation:
    if "MatMul" in node.op_type:
        left, right = _shifted(node, a, a_zero, len(a.shape) - 2), _shifted(node, b, b_zero, len(b.shape) - 1)
        return matmul_of(node, a.shape, b.shape, left, right)
    return convolution_of(node, a, b, bias, _shifted(node, a, a_zero, 1), _shifted(node, b, b_zero, 0))


computes("MatMulInteger", "ConvInteger")(integer_product)


@computes("QLinearMatMul", "QLinearConv")
def quantized_product(
    node: Node, a: Value, a_scale: Value, a_zero: Value, b: Value, b_scale: Value, b_zero: Value,
    y_scale: Value, y_zero: Value, bias: Value | None,
) -> Computation:  # fmt: skip
    """`round(sum * a_scale * b_scale / y_scale) + y_zero`, saturated. Scales are for all, for each row of the left, for
    each column of the right, or for each output channel of weights."""
    product = integer_product(node, a, b, a_zero, b_zero, bias)
    i, last = product.indices, len(product.axes) - 1
    places = (last - 1, last, last) if node.op_type == "QLinearMatMul" else (1, 1, last)
    scales = (parameter(node, scale, i, axis) for scale, axis in zip((a_scale, b_scale, y_scale), places, strict=True))
    left, right, own = (cast(scale, DType.FLOAT32) for scale in scales)
    whole = call("rint", cast(product.body, DType.FLOAT32) * (left * right / own))
    return Computation(product.axes, saturated(whole, parameter(node, y_zero, i, last), y_zero.tensor.dtype))
