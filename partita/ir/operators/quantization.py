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
from partita.ir.operators.registry import computes, decomposes, infers
from partita.ir.types import DType, TensorType, Type

Place = Callable[[Value, tuple[Expr, ...]], Expr]


def is_single(value: Value) -> bool:
    return all(map(dims.is_one, value.shape))


def parameter(value: Value, i: Sequence[Expr], axis: int, block: int = 1) -> Expr:
    """A scale or zero point for the element at `i`: one for all, one for each `block` of places on `axis`, or one for
    each element, broadcast."""
    if is_single(value):
        return only(value)
    place = [index // block if n == axis else index for n, index in enumerate(i)]
    return broadcast_load(value, place) if len(value.shape) == len(i) and len(i) > 1 else load(value, place[axis])


def _parameter(node: Node, x: Value) -> Place:
    """How to read the scale or zero point for an element of `x`."""
    block = node.attributes.get("block_size", 0) or 1
    return lambda value, i: parameter(value, i, 0 if is_single(value) else axis_of(node, len(x.shape), 1), block)


def _wide(kind: DType) -> DType:
    """The type to compute in."""
    return kind if kind in (DType.FLOAT32, DType.FLOAT64) else DType.FLOAT32


@computes("DequantizeLinear")
def dequantize(node: Node) -> Computation:
    """`(x - zero_point) * scale`."""
    x, scale, zero = node.operand(0), node.operand(1), node.input(2)
    kind = DType.from_onnx(node.attributes.get("output_dtype") or scale.tensor.dtype.onnx)
    at, inner = _parameter(node, x), _wide(scale.tensor.dtype)

    def body(*i: Expr) -> Expr:
        value = cast(load(x, *i), inner)
        if zero is not None:
            value = value - cast(at(zero, i), inner)
        return cast(value * cast(at(scale, i), inner), kind)

    return compute(x.shape, body)


@computes("QuantizeLinear")
def quantize(node: Node) -> Computation:
    """`round(x / scale) + zero_point`, saturated; ties go to the even."""
    x, scale, zero = node.operand(0), node.operand(1), node.input(2)
    kind = DType.from_onnx(node.attributes.get("output_dtype") or DType.UINT8.onnx)
    kind = zero.tensor.dtype if zero is not None else kind
    at, inner = _parameter(node, x), _wide(x.tensor.dtype)
    precise = DType.from_onnx(node.attributes.get("precision") or inner.onnx)
    saturate = bool(node.attributes.get("saturate", 1))

    def body(*i: Expr) -> Expr:
        ratio = cast(cast(load(x, *i), precise) / cast(at(scale, i), precise), inner)
        offset = None if zero is None else at(zero, i)
        if kind.is_float:
            shifted = ratio if offset is None else ratio + cast(offset, inner)
            return Cast(shifted, kind, saturate)
        return saturated(call("rint", ratio), offset, kind)

    return compute(x.shape, body)


def saturated(whole: Expr, offset: Expr | None, kind: DType) -> Expr:
    """A whole number (of a floating type) plus an offset, as an integer of `kind`."""
    total = whole if offset is None else whole + cast(offset, whole.dtype)
    held = call("max", call("min", total, float(highest(kind))), float(lowest(kind)))
    return cast(cast(held, DType.INT64), kind)


# ---------------------------------------------------------------------- integer products


def _shifted(value: Value, zero: Value | None, axis: int) -> Callable[..., Expr]:
    """Elements less their zero point, which is one for all or one for each place on `axis`."""

    def element(*i: Expr) -> Expr:
        whole = cast(load(value, *i), DType.INT32)
        return whole if zero is None else whole - cast(parameter(zero, i, axis), DType.INT32)

    return element


@computes("MatMulInteger")
def matmul_integer(node: Node) -> Computation:
    a, b = node.operand(0), node.operand(1)
    left = _shifted(a, node.input(2), len(a.shape) - 2)
    return matmul_of(node, a, b, left, _shifted(b, node.input(3), len(b.shape) - 1))


@computes("ConvInteger")
def convolution_integer(node: Node) -> Computation:
    x, w = node.operand(0), node.operand(1)
    return convolution_of(node, x, w, _shifted(x, node.input(2), 1), _shifted(w, node.input(3), 0))


@infers("QLinearMatMul", "QLinearConv")
def quantized_product_type(node: Node) -> Type:
    zero = node.operand(7)
    product = matmul_of if node.op_type == "QLinearMatMul" else convolution_of
    a, b = node.operand(0), node.operand(3)
    return TensorType(zero.tensor.dtype, product(node, a, b, _shifted(a, None, 0), _shifted(b, None, 0)).shape)


@decomposes("QLinearMatMul")
def quantized_matmul(build: Builder, node: Node) -> Value:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.operands
    total = build("MatMulInteger", a, b, a_zero, b_zero)
    if len(a_scale.shape) == 1 and not is_single(a_scale):  # one for each row
        a_scale = build("Unsqueeze", a_scale, build.ints([1]))
    return build("Requantize", total, a_scale, b_scale, y_scale, y_zero, domain="partita")


@decomposes("QLinearConv")
def quantized_convolution(build: Builder, node: Node) -> Value:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.operands[:8]
    total = build("ConvInteger", x, w, x_zero, w_zero, **node.attributes)
    bias = node.input(8)
    if bias is not None:
        total = build("Add", total, build("Unsqueeze", bias, build.ints(range(1, len(x.shape) - 1))))
    if not is_single(w_scale):  # one for each output channel
        w_scale = build("Unsqueeze", w_scale, build.ints(range(1, len(x.shape) - 1)))
    return build("Requantize", total, x_scale, w_scale, y_scale, y_zero, domain="partita")


@computes("Requantize", domain="partita")
def requantize(node: Node) -> Computation:
    """`round(x * a_scale * b_scale / y_scale) + y_zero`, saturated; the scales broadcast."""
    x, a_scale, b_scale, y_scale, y_zero = node.operands

    def at(value: Value, i: tuple[Expr, ...]) -> Expr:
        return only(value) if is_single(value) else broadcast_load(value, i)

    def body(*i: Expr) -> Expr:
        scales = [cast(at(value, i), DType.FLOAT32) for value in (a_scale, b_scale, y_scale)]
        ratio = cast(load(x, *i), DType.FLOAT32) * (scales[0] * scales[1] / scales[2])
        return saturated(call("rint", ratio), at(y_zero, i), y_zero.tensor.dtype)

    return compute(x.shape, body)
