"""Fold scale: what scales and shifts the channels of a convolution or a product goes into its weights and bias.

    before: model (float[1, 2, 3] x) => (float[1, 2, 3] y)
                <float[2, 2, 1] w = {1, 2, 3, 4}, float[2] scale = {2, 3}, float[2] bias = {1, 0},
                 float[2] mean = {0, 2}, float[2] variance = {1, 4}> {
                c = Conv (x, w)
                y = BatchNormalization <epsilon = 0.5> (c, scale, bias, mean, variance)
            }
    after:  model (float[1, 2, 3] x) => (float[1, 2, 3] y)
                <float[2, 2, 1] w = {1, 2, 3, 4}, float[2] scale = {2, 3}, float[2] bias = {1, 0},
                 float[2] mean = {0, 2}, float[2] variance = {1, 4}, float epsilon = {0.5}, int64[2] axes = {1, 2}> {
                sum = Add (variance, epsilon)
                deviation = Sqrt (sum)
                factor = Div (scale, deviation)
                column = Unsqueeze (factor, axes)
                weights = Mul (w, column)
                center = Neg (mean)
                product = Mul (center, factor)
                shift = Add (product, bias)
                y = Conv (x, weights, shift)
            }

So does `y = Mul (c, s)` with a parameter `s` of shape [2, 1], and Add, Sub and Div; chains of them one by one. A result
that somebody else reads stays as it is. So do weights that somebody else reads, as a factor would have them kept twice;
batch normalization alone is worth that.

The arithmetic is on parameters alone, so it runs when weights are bound; nothing is folded destructively, and no value
is looked at. Results differ in the last bits, as the factors are rounded into the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node, Value
from partita.ir.subgraph import depends_on_parameters

SCALES = ("Mul", "Div")
SHIFTS = ("Add", "Sub")
Step = tuple[str, Value]
"""An operator, and its second operand: a number for each channel, `[channels]` or `[1]`."""


@dataclass(frozen=True, slots=True)
class _Linear:
    """A node that multiplies by weights. `axis` is that of the channels in the result, `weights_axis` in the weights,
    both counted from 0; `takes_shift`: it has a bias that shifts every channel as it is."""

    node: Node
    axis: int
    weights_axis: int
    takes_shift: bool

    @property
    def weights(self) -> Value:
        return self.node.operand(1)

    @property
    def channels(self) -> int:
        return int(self.weights.shape[self.weights_axis])


def fold_scale(graph: Graph) -> bool:
    """Folds what follows every Conv, Gemm and MatMul whose weights and bias are parameters."""
    changed = False
    for node in graph.nodes:
        linear = next((found for value in node.operands if (found := _linear(graph, value)) is not None), None)
        if linear is None or not _may_fold(graph, linear, node):
            continue
        build = Builder(graph, node.name)
        weights, bias = linear.weights, linear.node.input(2)
        for step in _steps(build, linear, node):
            weights, bias = _applied(build, linear, step, weights, bias)
        operands = [linear.node.operand(0), weights, *([] if bias is None else [bias])]
        graph.set_inputs(linear.node, operands)
        graph.replace_node(node, [linear.node.output])
        changed = True
    return changed


def _linear(graph: Graph, value: Value) -> _Linear | None:
    """What makes `value`, if it can take a scale or a shift in, and nobody but one operand reads the value."""
    node = value.producer
    if node is None or node.domain or len(graph.uses(value)) != 1 or graph.is_output(value):
        return None
    if node.op_type not in ("Conv", "Gemm", "MatMul") or value.tensor.shape is None or not value.tensor.dtype.is_float:
        return None
    if not all(operand is None or depends_on_parameters(operand) for operand in node.inputs[1:]):
        return None
    rank = len(node.operand(1).shape)
    if not dims.all_static(node.operand(1).shape) or rank < 2:
        return None
    if node.op_type == "Conv":
        return _Linear(node, 1, 0, True)
    if node.op_type == "MatMul":
        return _Linear(node, len(value.shape) - 1, rank - 1, False)
    is_plain = node.input(2) is None or node.attributes.get("beta", 1.0) == 1.0
    return _Linear(node, 1, 0 if node.attributes.get("transB", 0) else 1, is_plain)


def _may_fold(graph: Graph, linear: _Linear, node: Node) -> bool:
    result = linear.node.output
    if node.domain or node.op_type not in (*SCALES, *SHIFTS, "BatchNormalization"):
        return False
    others = [value for value in node.operands if value is not result]
    if any(value.tensor.dtype is not result.tensor.dtype or not depends_on_parameters(value) for value in others):
        return False
    if node.op_type == "BatchNormalization":
        return linear.takes_shift and node.input(0) is result and not node.attributes.get("training_mode", 0)
    if (node.op_type in ("Sub", "Div") and node.input(0) is not result) or not _is_per_channel(linear, others[0]):
        return False
    return linear.takes_shift if node.op_type in SHIFTS else len(graph.uses(linear.weights)) == 1


def _is_per_channel(linear: _Linear, value: Value) -> bool:
    """Whether `value` has a number for each channel, or one for all, and does not make the result larger."""
    rank = len(linear.node.output.shape)
    if len(value.shape) > rank or not dims.all_static(value.shape):
        return False
    axes = range(rank - len(value.shape), rank)
    sizes = zip(axes, value.shape, strict=True)
    return all(dim == 1 or (axis == linear.axis and dim == linear.channels) for axis, dim in sizes)


def _steps(build: Builder, linear: _Linear, node: Node) -> Iterator[Step]:
    """What `node` does to the result, one operation after another."""
    if node.op_type == "BatchNormalization":
        scale, shift, mean, variance = node.operands[1:]
        epsilon = build.scalar(node.attributes.get("epsilon", 1e-5), variance)
        yield "Sub", mean
        yield "Mul", build("Div", scale, build("Sqrt", build("Add", variance, epsilon)))
        yield "Add", shift
        return
    (operand,) = (value for value in node.operands if value is not linear.node.output)
    yield node.op_type, operand if len(operand.shape) == 1 else build("Reshape", operand, build.ints([-1]))


def _applied(
    build: Builder, linear: _Linear, step: Step, weights: Value, bias: Value | None
) -> tuple[Value, Value | None]:
    """Weights and bias after a step."""
    operator, operand = step
    if operator in SCALES:
        trailing = range(1, len(weights.shape) - linear.weights_axis)
        column = build("Unsqueeze", operand, build.ints(trailing)) if trailing else operand
        weights = build(operator, weights, column)
        return weights, None if bias is None else build(operator, bias, operand)
    if bias is not None:
        return weights, build(operator, bias, operand)
    shift = operand if operator == "Add" else build("Neg", operand)
    if shift.shape != (linear.channels,):
        shift = build("Expand", shift, build.ints([linear.channels]))
    return weights, shift
