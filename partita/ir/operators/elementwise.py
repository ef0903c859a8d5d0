"""Elementwise operators: a scalar expression each, broadcast over the operands' shapes (NumPy's rules)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from onnx import TensorProto

from partita.ir.builder import Builder
from partita.ir.dims import broadcast_shapes
from partita.ir.expression import Cast, Computation, Expr, Operand, call
from partita.ir.formula import broadcast_load, cast, compute, indices_over, only, select, tensor
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import with_trailing_axes
from partita.ir.registry import computes, operator, upgrades
from partita.ir.types import DType


def broadcast(node: Node, scalar: Callable[..., Expr]) -> Computation:
    """`scalar` over the elements of all operands, broadcast together."""
    shape = broadcast_shapes(*(value.shape for value in node.operands))
    return compute(shape, lambda *i: scalar(*(broadcast_load(value, i) for value in node.operands)))


def elementwise(name: str, scalar: Callable[..., Expr], **defaults: float | str) -> None:
    """Declares an operator by its `scalar` expression: of an element of each operand, then of the attributes that
    `defaults` names."""

    def rule(node: Node) -> Computation:
        values = [node.attributes.get(key, default) for key, default in defaults.items()]
        return broadcast(node, lambda *elements: scalar(*elements, *values))

    operator(name).compute = rule


for _name, _function in {
    "Abs": "abs", "Neg": "neg", "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Erf": "erf",
    "Floor": "floor", "Ceil": "ceil", "Round": "rint", "Sign": "sign",
    "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin", "Acos": "acos", "Atan": "atan",
    "Sinh": "sinh", "Cosh": "cosh", "Tanh": "tanh", "Asinh": "asinh", "Acosh": "acosh", "Atanh": "atanh",
    "Not": "logical_not", "BitwiseNot": "bit_not", "IsNaN": "isnan",
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div",
    "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
    "BitwiseAnd": "bit_and", "BitwiseOr": "bit_or", "BitwiseXor": "bit_xor",
    "Equal": "eq", "Less": "lt", "LessOrEqual": "le", "Greater": "gt", "GreaterOrEqual": "ge",
    "StringConcat": "string_concat",
}.items():  # fmt: skip
    elementwise(_name, functools.partial(call, _function))


# ---------------------------------------------------------------------- activations


def clip(x: Expr, low: Operand | None, high: Operand | None) -> Expr:
    """x held in [low, high]; NaN stays NaN."""
    bounded = x if low is None else select(x < low, low, x)
    return bounded if high is None else select(bounded > high, high, bounded)


def sigmoid(x: Expr) -> Expr:
    return 1 / (1 + call("exp", -x))


def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)), without overflow for large x."""
    return select(x > 0, x, 0) + call("log1p", call("exp", -call("abs", x)))


def gelu(x: Expr, approximate: str) -> Expr:
    if approximate == "tanh":
        return 0.5 * x * (1 + call("tanh", math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return x * call("normal_cdf", x)


elementwise("Relu", lambda x: select(x < 0, 0, x))  # NaN stays NaN
elementwise("Sigmoid", sigmoid)
elementwise("Softplus", softplus)
elementwise("Softsign", lambda x: x / (1 + call("abs", x)))
elementwise("HardSwish", lambda x: x * clip(x * (1 / 6) + 0.5, 0, 1))
elementwise("Mish", lambda x: x * call("tanh", softplus(x)))
elementwise("Gelu", gelu, approximate="none")
elementwise("LeakyRelu", lambda x, alpha: select(x < 0, x * alpha, x), alpha=0.01)
elementwise("PRelu", lambda x, slope: select(x < 0, x * slope, x))
elementwise("ThresholdedRelu", lambda x, alpha: select(x > alpha, x, 0), alpha=1.0)
elementwise("HardSigmoid", lambda x, alpha, beta: clip(x * alpha + beta, 0, 1), alpha=0.2, beta=0.5)
elementwise("Elu", lambda x, alpha: select(x < 0, call("expm1", x) * alpha, x), alpha=1.0)
elementwise("Celu", lambda x, alpha: select(x < 0, call("expm1", x / alpha) * alpha, x), alpha=1.0)
elementwise("Selu", lambda x, alpha, gamma: select(x > 0, x, call("expm1", x) * alpha) * gamma,
            alpha=1.67326319217681884765625, gamma=1.05070102214813232421875)  # fmt: skip
elementwise("Shrink", lambda x, bias, lambd: select(x < -lambd, x + bias, select(x > lambd, x - bias, 0)),
            bias=0.0, lambd=0.5)  # fmt: skip
elementwise("Swish", lambda x, alpha: x * sigmoid(x * alpha), alpha=1.0)


@computes("Clip")
def clip_operator(node: Node, x: Value, low: Value | None, high: Value | None) -> Computation:
    bounds = [None if bound is None else only(bound) for bound in (low, high)]
    return compute(x.shape, lambda *i: clip(broadcast_load(x, i), *bounds))


# ---------------------------------------------------------------------- arithmetic, comparison, choice


def power(x: Expr, y: Expr) -> Expr:
    if x.dtype.is_integer and y.dtype.is_integer:
        return call("ipow", x, cast(y, x.dtype))
    if x.dtype.is_integer:
        return cast(call("pow", cast(x, DType.FLOAT64), cast(y, DType.FLOAT64)), x.dtype)
    return call("pow", x, cast(y, x.dtype))


def is_infinite(x: Expr, positive: int, negative: int) -> Expr:
    if positive and negative:
        return call("isinf", x)
    if positive or negative:
        return call("eq", x, math.inf if positive else -math.inf)
    return call("ne", x, x) & call("eq", x, x)


def folded(function: str) -> Callable[..., Expr]:
    """A function of two, of any number from the first on."""
    return lambda *elements: functools.reduce(functools.partial(call, function), elements)


elementwise("Identity", lambda x: x)
elementwise("Reciprocal", lambda x: 1 / x)
elementwise("Pow", power)
elementwise("Mod", lambda a, b, fmod: call("fmod" if fmod else "mod", a, b), fmod=0)
elementwise("BitShift", lambda a, b, direction: call(f"shift_{direction.lower()}", a, b), direction="")
elementwise("IsInf", is_infinite, detect_positive=1, detect_negative=1)
elementwise("Sum", folded("add"))
elementwise("Max", folded("max"))
elementwise("Min", folded("min"))
elementwise("Mean", lambda *elements: folded("add")(*elements) / len(elements))
elementwise("Where", select)


# ---------------------------------------------------------------------- types


@computes("Cast", "CastLike")
def cast_operator(
    node: Node, x: Value, like: Value | None, *, to: int = 0, saturate: int = 1, round_mode: str = "up"
) -> Computation:
    target = DType.from_onnx(to) if like is None else like.tensor.dtype
    i = indices_over(x.shape)
    entry = broadcast_load(x, i)
    if entry.dtype is target:
        return tensor(i, entry)
    if target is DType.FLOAT8E8M0 and round_mode != "up":
        entry = call(f"power_of_two_{round_mode}", cast(entry, DType.FLOAT32))
    return tensor(i, Cast(entry, target, bool(saturate)))


# ---------------------------------------------------------------------- older opsets


@upgrades("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Less", "Greater", before=7)
def broadcast_by_axis(build: Builder, node: Node, a: Value, b: Value) -> None:
    """The second operand broadcast only on request, and from `axis` on instead of from the end."""
    axis = node.attributes.pop("axis", None)
    if node.attributes.pop("broadcast", 0) and axis is not None:
        trailing = len(a.shape) - axis % len(a.shape) - len(b.shape)
        build.graph.set_input(node, 1, with_trailing_axes(build, b, trailing))


@upgrades("PRelu", before=7)
def slopes_per_channel(build: Builder, node: Node, x: Value, slope: Value) -> None:
    """A slope per channel broadcast along axis 1."""
    if len(slope.shape) == 1 and slope.shape[0] != 1 and len(x.shape) > 2:
        build.graph.set_input(node, 1, with_trailing_axes(build, slope, len(x.shape) - 2))


@upgrades("Cast", before=6)
def type_by_number(build: Builder, node: Node) -> None:
    node.attributes["to"] = int(TensorProto.DataType.Value(node.attributes["to"].upper()))
