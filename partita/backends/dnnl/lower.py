"""Lowering: a region becomes one node whose body is what oneDNN runs; parameters become its operands.

    before: r = Clip(Conv(x, w), 0, 6); y = MaxPool(r)
    after:  y = Fused{MaxPool(Clip<0, 6>(Conv(x, w)))}(x, w)

What lies between the primitives has layouts, and thus sizes, that are known on the target alone: it is not for the
memory plan to place. Numbers that oneDNN wants when it makes a primitive become attributes; factors of a Gemm go
into its parameters, which the bind program computes.
"""

from __future__ import annotations

from partita.backends.dnnl.eltwise import clip_bounds
from partita.backends.opaque import make_opaque, pass_parameters
from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node


def lower_region(body: Graph) -> None:
    """Rewrites the graph of a region in place."""
    for node in body.nodes:
        if node.domain == "partita" and node.op_type == "Composite":
            _drop_bounds(node.attributes["body"])
            pass_parameters(body, node)
        elif node.op_type == "Gemm":
            _scale(body, node)
    _drop_bounds(body)
    nodes = [node for node in body.nodes if node.domain == "partita" or not _is_scaling(node)]
    make_opaque(body, nodes)


def _drop_bounds(graph: Graph) -> None:
    """Clip's limits become attributes, as they were in older opsets."""
    for node in graph.nodes:
        if node.domain == "" and node.op_type == "Clip" and "min" not in node.attributes:
            node.attributes["min"], node.attributes["max"] = clip_bounds(node)
            node.version = 6
            graph.set_inputs(node, node.inputs[:1])
    for value in list(graph.parameters):
        if not graph.uses(value) and not graph.is_output(value):
            graph.remove_parameter(value)


def _scale(graph: Graph, node: Node) -> None:
    """Gemm's factors go into its parameters."""
    for name, position in (("alpha", 1), ("beta", 2)):
        factor, value = node.attributes.pop(name, 1.0), node.input(position)
        if factor != 1.0 and value is not None:
            build = Builder(graph, f"{node.name}.{name}")
            graph.set_input(node, position, build("Mul", value, build.scalar(factor, value)))


def _is_scaling(node: Node) -> bool:
    """Whether a node belongs to the bind program."""
    return node.op_type == "Mul" and all(value.parameter is not None for value in node.operands)
