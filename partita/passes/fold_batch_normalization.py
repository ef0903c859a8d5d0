"""Fold batch normalization: what scales and shifts a convolution's channels goes into its weights and bias.

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
                shift = Mul (mean, factor)
                rest = Sub (bias, shift)
                y = Conv (x, weights, rest)
            }

The arithmetic is on parameters alone, so it runs when weights are bound; nothing is folded destructively.
"""

from __future__ import annotations

from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node, Value
from partita.ir.subgraph import depends_on_parameters


def fold_batch_normalization(graph: Graph) -> bool:
    """Rewrites every Conv whose only reader is a BatchNormalization with parameters for statistics."""
    changed = False
    for node in graph.nodes:
        convolution = node.operand(0).producer if node.op_type == "BatchNormalization" else None
        if convolution is None or convolution.op_type != "Conv" or not _is_foldable(graph, convolution, node):
            continue
        weights, bias = _folded(graph, convolution, node)
        graph.set_inputs(convolution, [convolution.operand(0), weights, bias])
        graph.replace_node(node, [convolution.output])
        changed = True
    return changed


def _is_foldable(graph: Graph, convolution: Node, normalization: Node) -> bool:
    result = convolution.output
    parameters = [*convolution.inputs[1:], *normalization.inputs[1:]]
    return (
        graph.uses(result) == ((normalization, 0),)
        and not graph.is_output(result)
        and len(normalization.outputs) == 1
        and all(value is None or depends_on_parameters(value) for value in parameters)
    )


def _folded(graph: Graph, convolution: Node, normalization: Node) -> tuple[Value, Value]:
    """New weights `[O, C, *kernel]` and bias `[O]`."""
    build = Builder(graph, normalization.name)
    scale, shift, mean, variance = normalization.operands[1:]
    weights, bias = convolution.operand(1), convolution.input(2)
    epsilon = build.scalar(normalization.attributes.get("epsilon", 1e-5), variance)
    factor = build("Div", scale, build("Sqrt", build("Add", variance, epsilon)))
    trailing = build.ints(range(1, len(weights.shape)))
    scaled = build("Mul", weights, build("Unsqueeze", factor, trailing))
    center = mean if bias is None else build("Sub", mean, bias)
    return scaled, build("Sub", shift, build("Mul", center, factor))
