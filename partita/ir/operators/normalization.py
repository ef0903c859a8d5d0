"""Normalizations: expressions where one pass does, decompositions into reductions and arithmetic where two do."""

from __future__ import annotations

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.expression import Axis, Computation, Expr, Index, call
from partita.ir.formula import load, reduce, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import axis_of, normalized_axis
from partita.ir.operators.older import attribute_dropped
from partita.ir.operators.registry import becomes, computes, decomposes, infers, keeps_type, upgrades
from partita.ir.types import DType, TensorType, Type


@decomposes("BatchNormalization")
def batch_normalization(build: Builder, node: Node) -> list[Value]:
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`, per channel of `[N, C, ...]`, as one product and one sum
    with vectors that are known when weights are bound. In training mode the statistics are the batch's own."""
    x, scale, bias, mean, variance = node.operands
    running: list[Value] = []
    if node.attributes.get("training_mode", 0):
        old, share = (mean, variance), node.attributes.get("momentum", 0.9)
        axes = build.ints([axis for axis in range(len(x.shape)) if axis != 1])
        mean = build("ReduceMean", x, axes, keepdims=0)
        centered = build("Sub", x, build("ReduceMean", x, axes))
        variance = build("ReduceMean", build("Mul", centered, centered), axes, keepdims=0)
        for before, now in zip(old, (mean, variance), strict=True):
            kept, fresh = build.scalar(share, before), build.scalar(1 - share, now)
            running.append(build("Add", build("Mul", before, kept), build("Mul", now, fresh)))
    deviation = build("Sqrt", build("Add", variance, build.scalar(node.attributes.get("epsilon", 1e-5), variance)))
    factor = build("Div", scale, deviation)
    shift = build("Sub", bias, build("Mul", mean, factor))
    trailing = build.ints(range(1, len(x.shape) - 1))
    if len(x.shape) > 2:
        factor, shift = build("Unsqueeze", factor, trailing), build("Unsqueeze", shift, trailing)
    return [build("Add", build("Mul", x, factor), shift), *running]


FEW_CHANNELS = 16  # in a window: the sum over so many is written out


@computes("LRN")
def local_response_normalization(node: Node) -> Computation:
    """`x / (bias + alpha / size * sum of squares over nearby channels) ^ beta`."""
    x = node.operand(0)
    width = node.attributes["size"]
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    bias = node.attributes.get("bias", 1.0)
    axes = tuple(Axis(f"i{n}", dim) for n, dim in enumerate(x.shape))
    i = [Index(axis) for axis in axes]

    def square(offset: int | Expr) -> Expr:
        channel = i[1] + offset
        value = load(x, i[0], channel, *i[2:])
        return select((channel >= 0) & (channel < size(x.shape[1])), value * value, 0)

    first = -((width - 1) // 2)
    if width <= FEW_CHANNELS:
        total = square(first)
        for offset in range(first + 1, first + width):
            total = total + square(offset)
    else:
        near = Axis("k", width)
        total = reduce("sum", [near], square(Index(near) + first))
    return Computation(axes, load(x, *i) / _power(total * (alpha / width) + bias, beta))


def _power(base: Expr, exponent: float) -> Expr:
    """A power; of quarters by square roots, which are exact to the last digit and fast."""
    root = call("sqrt", base)
    match exponent:
        case 0.25:
            return call("sqrt", root)
        case 0.5:
            return root
        case 0.75:
            return root * call("sqrt", root)
        case 1.0:
            return base
    return call("pow", base, exponent)


@infers("BatchNormalization")
def batch_normalization_types(node: Node) -> list[Type]:
    return [node.operand(0).type, node.operand(3).type, node.operand(4).type]


keeps_type("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization")


@infers("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
def like_input_along_axis(node: Node) -> Type:
    x = node.operand(0)
    normalized_axis(node, node.attributes.get("axis", -1), max(len(x.shape), 1))
    return x.type


@decomposes("MeanVarianceNormalization")
def mean_variance_normalization(build: Builder, node: Node) -> Value:
    """`(x - mean) / (deviation + 1e-9)`; ONNX's function for it is of float32 alone."""
    x, axes = node.operand(0), build.ints(node.attributes.get("axes", (0, 2, 3)))
    centered = build("Sub", x, build("ReduceMean", x, axes))
    deviation = build("Sqrt", build("ReduceMean", build("Mul", centered, centered), axes))
    return build("Div", centered, build("Add", deviation, build.scalar(1e-9, x)))


@becomes("RMSNormalization")
def scale_of_another_type(build: Builder, node: Node) -> Value | None:
    """ONNX's function wants the scale in the input's type; the result has the scale's."""
    x, scale = node.operands
    if x.tensor.dtype is scale.tensor.dtype:
        return None
    own = build("Cast", scale, to=x.tensor.dtype.onnx)
    return build("Cast", build("RMSNormalization", x, own, **node.attributes), to=scale.tensor.dtype.onnx)


@decomposes("Softmax")
def softmax(build: Builder, node: Node) -> Value:
    """`exp(x - max) / sum(exp(x - max))` along one axis."""
    exponential, total, _ = _shifted_exponential(build, node)
    return build("Div", exponential, total)


@decomposes("LogSoftmax")
def log_softmax(build: Builder, node: Node) -> Value:
    _, total, shifted = _shifted_exponential(build, node)
    return build("Sub", shifted, build("Log", total))


def _shifted_exponential(build: Builder, node: Node) -> tuple[Value, Value, Value]:
    x = node.operand(0)
    axes = build.ints([axis_of(node, len(x.shape), -1)])
    shifted = build("Sub", x, build("ReduceMax", x, axes))
    exponential = build("Exp", shifted)
    return exponential, build("ReduceSum", exponential, axes), shifted


@decomposes("Hardmax")
def hardmax(build: Builder, node: Node) -> Value:
    """1 at the first of the largest elements along one axis, 0 elsewhere."""
    x = node.operand(0)
    axis = axis_of(node, len(x.shape), -1)
    length = build("Shape", x, start=axis, end=axis + 1)
    values = build.constant([0, 1], x.tensor.dtype)
    return build("OneHot", build("ArgMax", x, axis=axis, keepdims=0), length, values, axis=axis)


@decomposes("LpNormalization")
def lp_normalization(build: Builder, node: Node) -> Value:
    """Elements over their norm along one axis; 0 where that is 0."""
    x, p = node.operand(0), node.attributes.get("p", 2)
    axis = axis_of(node, len(x.shape), -1)
    if p not in (1, 2):
        raise ModelError(f"{node.describe()}: p is {p}; it may be 1 or 2")
    norm = build(f"ReduceL{p}", x, build.ints([axis]))
    zero = build.scalar(0, x)
    return build("Where", build("Equal", norm, zero), zero, build("Div", x, norm))


def _statistics(build: Builder, x: Value, axes: Value, epsilon: float) -> tuple[Value, Value, Value]:
    """(x - mean, mean, 1 / sqrt(variance + epsilon)) over `axes`, keeping dimensions. The variance is taken around
    the mean, in a second pass: it cannot be negative and loses no digits."""
    mean = build("ReduceMean", x, axes)
    centered = build("Sub", x, mean)
    variance = build("ReduceMean", build("Mul", centered, centered), axes)
    deviation = build("Sqrt", build("Add", variance, build.scalar(epsilon, x)))
    return centered, mean, build("Reciprocal", deviation)


@infers("LayerNormalization")
def layer_normalization_types(node: Node) -> list[Type]:
    x = node.operand(0)
    axis = axis_of(node, len(x.shape), -1)
    stash = DType.from_onnx(node.attributes.get("stash_type", 1))
    statistics = TensorType(stash, (*x.shape[:axis], *([1] * (len(x.shape) - axis))))
    return [x.type, statistics, statistics]


@decomposes("LayerNormalization")
def layer_normalization(build: Builder, node: Node) -> list[Value]:
    x, scale, bias = node.operand(0), node.operand(1), node.input(2)
    rank = len(x.shape)
    axis = normalized_axis(node, node.attributes.get("axis", -1), rank)
    stash = node.attributes.get("stash_type", 1)
    dtype = x.tensor.dtype
    wide = x if dtype.onnx == stash else build("Cast", x, to=stash)
    axes = build.ints(range(axis, rank))
    centered, mean, inverse = _statistics(build, wide, axes, node.attributes.get("epsilon", 1e-5))
    normal = build("Mul", centered, inverse)
    if dtype.onnx != stash:
        normal = build("Cast", normal, to=dtype.onnx)
    result = build("Mul", normal, scale)
    if bias is not None:
        result = build("Add", result, bias)
    return [result, mean, inverse]


@decomposes("InstanceNormalization")
def instance_normalization(build: Builder, node: Node) -> Value:
    x, scale, bias = node.operands
    rank = len(x.shape)
    centered, _, inverse = _statistics(build, x, build.ints(range(2, rank)), node.attributes.get("epsilon", 1e-5))
    trailing = build.ints(range(1, rank - 1))
    normal = build("Mul", centered, inverse)
    return build("Add", build("Mul", normal, build("Unsqueeze", scale, trailing)), build("Unsqueeze", bias, trailing))


# ---------------------------------------------------------------------- older opsets


@upgrades("Softmax", "LogSoftmax", "Hardmax", before=13)
def over_all_later_axes(build: Builder, node: Node) -> Value | None:
    """Before opset 13 the input was taken as a matrix, its columns all axes from `axis` on."""
    x = node.operand(0)
    axis = axis_of(node, len(x.shape), 1) if x.shape else 0
    if all(dims.is_static(dim) and dim == 1 for dim in x.shape[axis + 1 :]):
        node.attributes["axis"] = axis
        return None
    matrix = build("Flatten", x, axis=axis)
    return build("Reshape", build(node.op_type, matrix, axis=1), build("Shape", x))


attribute_dropped("BatchNormalization", before=9, attributes=["is_test"])


@upgrades("BatchNormalization", before=9)
def per_element(build: Builder, node: Node) -> Value | None:
    """`spatial = 0` normalized every element of a sample on its own."""
    x, scale, bias, mean, variance = node.operands
    if node.attributes.pop("spatial", 1) or len(x.shape) < 3:
        return None
    _only_result(build, node)
    deviation = build("Sqrt", build("Add", variance, build.scalar(node.attributes.get("epsilon", 1e-5), variance)))
    return build("Add", build("Mul", build("Div", build("Sub", x, mean), deviation), scale), bias)


@upgrades("BatchNormalization", before=14)
def inference_only(build: Builder, node: Node) -> Value | None:
    """More outputs than the first made it a training step."""
    _only_result(build, node)
    return None if len(node.outputs) == 1 else build("BatchNormalization", *node.operands, **node.attributes)


def _only_result(build: Builder, node: Node) -> None:
    if any(build.graph.uses(output) or build.graph.is_output(output) for output in node.outputs[1:]):
        raise ModelError(
            f"{node.describe()}: this is a training step, as its statistics are used; export for inference"
        )


@upgrades("GroupNormalization", before=21)
def statistics_per_channel(build: Builder, node: Node) -> None:
    """Scale and bias came per group."""
    x, *parameters = node.operands
    groups, channels = node.attributes["num_groups"], x.shape[1]
    if not dims.is_static(channels):
        raise ShapeError(f"{node.describe()}: the number of channels must be known; fix it with `shapes`")
    for index, parameter in enumerate(parameters, start=1):
        spread = build("Expand", build("Unsqueeze", parameter, build.ints([1])), build.ints([1, channels // groups]))
        build.graph.set_input(node, index, build("Reshape", spread, build.ints([-1])))
