"""Hoist scale: a number that scales a product of two results goes into the weights that one of them comes from.

    before: model (float[2, 3] x, float[2, 2] k) => (float[2, 2] y)
                <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, -1}, float root = {2}> {
                m = MatMul (x, w)
                q = Add (m, b)
                t = Transpose <perm = [1, 0]> (q)
                s = MatMul (t, k)
                y = Div (s, root)
            }
    after:  model (float[2, 3] x, float[2, 2] k) => (float[2, 2] y)
                <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[2] b = {1, -1}, float root = {2}> {
                weights = Div (w, root)
                bias = Div (b, root)
                m = MatMul (x, weights)
                q = Add (m, bias)
                t = Transpose <perm = [1, 0]> (q)
                y = MatMul (t, k)
            }

So attention need not divide its scores. As in `fold_scale`, the arithmetic on weights runs when they are bound, no
value is looked at, and results differ in the last bits; what somebody else reads stays as it is.
"""

from __future__ import annotations

from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node, Value
from partita.ir.subgraph import depends_on_parameters
from partita.passes.simplify_algebra import producer

MOVEMENTS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
LINEAR = ("MatMul", "Gemm", "Conv")


def hoist_scale(graph: Graph) -> bool:
    """Hoists every Mul and Div by one number that follows a MatMul of two results."""
    changed = False
    for node in graph.nodes:
        product = _scaled_product(graph, node)
        if product is None:
            continue
        (scale,) = (value for value in node.operands if value is not product.output)
        found = (_linear(graph, operand) for operand in product.operands)
        linear = next((nodes for nodes in found if nodes), None)
        if linear is None:
            continue
        build = Builder(graph, node.name)
        number = build("Reshape", scale, build.ints([1])) if scale.shape else scale
        for part in linear:
            inputs = [
                build(node.op_type, value, number) if value is not None and depends_on_parameters(value) else value
                for value in part.inputs
            ]
            graph.set_inputs(part, inputs)
        graph.replace_node(node, [product.output])
        changed = True
    return changed


def _scaled_product(graph: Graph, node: Node) -> Node | None:
    """The product of two results that `node` multiplies by a parameter of one element, or divides by it."""
    if node.domain or node.op_type not in ("Mul", "Div"):
        return None
    for value in node.operands[: 1 if node.op_type == "Div" else 2]:
        product = _only_for(graph, value, "MatMul")
        (scale,) = (other for other in node.operands if other is not value) if product else (None,)
        if product is None or scale is None or any(map(depends_on_parameters, product.operands)):
            continue
        is_one = all(dim == 1 for dim in scale.shape) and len(scale.shape) <= len(value.shape)
        if is_one and depends_on_parameters(scale) and scale.tensor.dtype is value.tensor.dtype:
            return product
    return None


def _linear(graph: Graph, value: Value) -> list[Node]:
    """The nodes with the weights and biases that `value` is linear in, behind any movements; none if it is not."""
    while (moved := _only_for(graph, value, *MOVEMENTS)) is not None:
        value = moved.operand(0)
    shifted = _only_for(graph, value, "Add")
    if shifted is not None:
        others = [operand for operand in shifted.operands if not depends_on_parameters(operand)]
        product = _only_for(graph, others[0], *LINEAR) if len(others) == 1 else None
    else:
        product = _only_for(graph, value, *LINEAR)
    if product is None or depends_on_parameters(product.operand(0)):
        return []
    weights = [operand for operand in product.inputs[1:] if operand is not None]
    if not all(depends_on_parameters(operand) for operand in weights) or len(graph.uses(weights[0])) != 1:
        return []
    return [product] if shifted is None else [product, shifted]


def _only_for(graph: Graph, value: Value, *op_types: str) -> Node | None:
    """What makes `value`, if it is one of these operators, and one operand alone reads the value."""
    is_alone = len(graph.uses(value)) == 1 and not graph.is_output(value)
    return producer(value, *op_types) if is_alone else None
