"""Normalizations: expressions where one pass does, decompositions into reductions and arithmetic where two do."""

from __future__ import annotations

from collections.abc import Sequence

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import axis_of
from partita.ir.expression import Computation, Expr, call
from partita.ir.formula import combination, indices_over, load, put, select, size, tensor
from partita.ir.graph import Node, Value
from partita.ir.operators.elementwise import broadcast
from partita.ir.operators.internal import DOMAIN, repeated, with_trailing_axes
from partita.ir.registry import becomes, computes, decomposes, infers, upgrades
from partita.ir.types import DType, TensorType, Type


@computes("LRN")
def local_response_normalization(
    node: Node, x: Value, *, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Computation:
    """`x / (bias + alpha / size * sum of squares over nearby channels) ^ beta`."""
    i, width = indices_over(x.shape), node.attributes["size"]

    def square(k: Expr | int) -> Expr:
        near = i[1] + (k - (width - 1) // 2)
        value = load(x, *put(i, 1, near))
        return select((near >= 0) & (near < size(x.shape[1])), value * value, 0)

    total = combination("sum", [width], square)
    return tensor(i, load(x, *i) / _power(total * (alpha / width) + bias, beta))


def _power(base: Expr, exponent: float) -> Expr:
    """A power; of quarters by square roots, which are exact to the last digit and fast."""
    root = call("sqrt", base)
    fourth = call("sqrt", root)
    quarters = {0.25: fourth, 0.5: root, 0.75: root * fourth, 1.0: base}
    return quarters.get(exponent, call("pow", base, exponent))


infers("InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization")(lambda node, x: x.type)


@infers("Softmax", "LogSoftmax", "Hardmax", "LpNormalization")
def like_input_along_axis(node: Node, x: Value) -> Type:
    axis_of(node, max(len(x.shape), 1), -1)
    return x.type


@decomposes("Softmax", "LogSoftmax")
def softmax(build: Builder, node: Node, x: Value) -> Value:
    """`exp(x - max) / sum(exp(x - max))` along one axis, or the logarithm of it."""
    axes = build.ints([axis_of(node, len(x.shape), -1)])
    largest = build("ReduceMax", x, axes)
    exponential = build("ExpBelow", x, largest, domain=DOMAIN)
    total = build("ReduceSum", exponential, axes)
    if node.op_type == "LogSoftmax":
        return build("Sub", build("Sub", x, largest), build("Log", total))
    return build("Div", exponential, total)


@computes("ExpBelow", domain=DOMAIN)
def exp_below(node: Node) -> Computation:
    """`exp(x - top)` of what is not above `top`: it cannot overflow, and what would be denormal may be 0."""
    return broadcast(node, lambda x, top: call("exp_below", x - top))


@decomposes("Hardmax")
def hardmax(build: Builder, node: Node, x: Value) -> Value:
    """1 at the first of the largest elements along one axis, 0 elsewhere."""
    axis = axis_of(node, len(x.shape), -1)
    length, values = build("Shape", x, start=axis, end=axis + 1), build.constant([0, 1], x.tensor.dtype)
    return build("OneHot", build("ArgMax", x, axis=axis, keepdims=0), length, values, axis=axis)


@decomposes("LpNormalization")
def lp_normalization(build: Builder, node: Node, x: Value, *, p: int = 2) -> Value:
    """Elements over their norm along one axis; 0 where that is 0."""
    if p not in (1, 2):
        raise ModelError(f"{node.describe()}: p is {p}; it may be 1 or 2")
    norm = build(f"ReduceL{p}", x, [axis_of(node, len(x.shape), -1)])
    return build("Where", build("Equal", norm, 0), 0, build("Div", x, norm))


# ---------------------------------------------------------------------- mean and variance


def _centered(build: Builder, x: Value, axes: Sequence[int]) -> tuple[Value, Value, Value]:
    """(x - mean, mean, variance) over `axes`, keeping dimensions. The variance is taken around the mean, in a second
    pass: it cannot be negative and loses no digits."""
    places = build.ints(axes)
    mean = build("ReduceMean", x, places)
    centered = build("Sub", x, mean)
    return centered, mean, build("ReduceMean", build("Mul", centered, centered), places)


def _scaled(build: Builder, normal: Value, scale: Value, bias: Value | None) -> Value:
    result = build("Mul", normal, scale)
    return result if bias is None else build("Add", result, bias)


infers("BatchNormalization")(lambda node: [node.operand(place).type for place in (0, 3, 4)])


@decomposes("BatchNormalization")
def batch_normalization(
    build: Builder, node: Node, x: Value, scale: Value, bias: Value, mean: Value, variance: Value, *,
    training_mode: int = 0, momentum: float = 0.9, epsilon: float = 1e-5,
) -> list[Value]:  # fmt: skip
    """`(x - mean) / sqrt(variance + epsilon) * scale + bias`, per channel of `[N, C, ...]`, as one product and one sum
    with vectors that are known when weights are bound. In training mode the statistics are the batch's own."""
    running: list[Value] = []
    if training_mode:
        axes = [axis for axis in range(len(x.shape)) if axis != 1]
        own = [build("Squeeze", part, axes) for part in _centered(build, x, axes)[1:]]
        for before, now in zip((mean, variance), own, strict=True):
            running.append(build("Add", build.affine(before, momentum), build.affine(now, 1 - momentum)))
        mean, variance = own
    factor = build("Div", scale, build("Sqrt", build("Add", variance, epsilon)))
    shift = build("Sub", bias, build("Mul", mean, factor))
    return [_scaled(build, x, *(with_trailing_axes(build, v, len(x.shape) - 2) for v in (factor, shift))), *running]


@decomposes("MeanVarianceNormalization")
def mean_variance_normalization(build: Builder, node: Node, x: Value, *, axes: Sequence[int] = (0, 2, 3)) -> Value:
    """`(x - mean) / (deviation + 1e-9)`; ONNX's function for it is of float32 alone."""
    centered, _, variance = _centered(build, x, axes)
    return build("Div", centered, build("Add", build("Sqrt", variance), 1e-9))


@infers("LayerNormalization")
def layer_normalization_types(node: Node, x: Value, *, stash_type: int = 1) -> list[Type]:
    axis = axis_of(node, len(x.shape), -1)
    statistics = TensorType(DType.from_onnx(stash_type), (*x.shape[:axis], *([1] * (len(x.shape) - axis))))
    return [x.type, statistics, statistics]


@decomposes("LayerNormalization")
def layer_normalization(
    build: Builder, node: Node, x: Value, scale: Value, bias: Value | None, *,
    stash_type: int = 1, epsilon: float = 1e-5,
) -> list[Value]:  # fmt: skip
    axes = range(axis_of(node, len(x.shape), -1), len(x.shape))
    centered, mean, variance = _centered(build, build.cast(x, DType.from_onnx(stash_type)), axes)
    inverse = build("Reciprocal", build("Sqrt", build("Add", variance, epsilon)))
    normal = build.cast(build("Mul", centered, inverse), x.tensor.dtype)
    return [_scaled(build, normal, scale, bias), mean, inverse]


@decomposes("InstanceNormalization")
def instance_normalization(
    build: Builder, node: Node, x: Value, scale: Value, bias: Value, *, epsilon: float = 1e-5
) -> Value:
    rank = len(x.shape)
    centered, _, variance = _centered(build, x, range(2, rank))
    normal = build("Mul", centered, build("Reciprocal", build("Sqrt", build("Add", variance, epsilon))))
    return _scaled(build, normal, *(with_trailing_axes(build, vector, rank - 2) for vector in (scale, bias)))


@becomes("RMSNormalization")
def scale_of_another_type(build: Builder, node: Node, x: Value, scale: Value) -> Value | None:
    """ONNX's function wants the scale in the input's type; the result has the scale's."""
    if x.tensor.dtype is scale.tensor.dtype:
        return None
    own = build("RMSNormalization", x, build.cast(scale, x.tensor.dtype), **node.attributes)
    return build.cast(own, scale.tensor.dtype)


# ---------------------------------------------------------------------- older opsets


@upgrades("Softmax", "LogSoftmax", "Hardmax", before=13)
def over_all_later_axes(build: Builder, node: Node, x: Value) -> Value | None:
    """Before opset 13 the input was taken as a matrix, its columns all axes from `axis` on."""
    axis = axis_of(node, len(x.shape), 1) if x.shape else 0
    if all(map(dims.is_one, x.shape[axis + 1 :])):
        node.attributes["axis"] = axis
        return None
    return build("Reshape", build(node.op_type, build("Flatten", x, axis=axis), axis=1), build("Shape", x))


@upgrades("BatchNormalization", before=14)
def inference_only(
    build: Builder, node: Node, x: Value, scale: Value, bias: Value, mean: Value, variance: Value, *,
    epsilon: float = 1e-5,
) -> Value | None:  # fmt: skip
    """More outputs than the first made it a training step. Before opset 9, `spatial = 0` normalized every element of a
    sample on its own."""
    if any(build.graph.uses(output) or build.graph.is_output(output) for output in node.outputs[1:]):
        raise ModelError(f"{node.describe()}: a training step, as its statistics are used; export for inference")
    if not node.attributes.pop("spatial", 1) and len(x.shape) > 2:
        normal = build("Div", build("Sub", x, mean), build("Sqrt", build("Add", variance, epsilon)))
        return _scaled(build, normal, scale, bias)
    return None if len(node.outputs) == 1 else build("BatchNormalization", *node.operands, epsilon=epsilon)


@upgrades("GroupNormalization", before=21)
def statistics_per_channel(build: Builder, node: Node, x: Value, *parameters: Value) -> None:
    """Scale and bias came per group."""
    count = dims.floor_div(x.shape[1], node.attributes["num_groups"])
    for index, parameter in enumerate(parameters, start=1):
        build.graph.set_input(node, index, repeated(build, parameter, count))
