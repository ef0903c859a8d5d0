"""What nothing reads goes: nodes without a reader, and parameters.

    before: <ir_version: 14, opset_import: ["" : 28]>
            model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
                a = Mul (x, w)
                b = Exp (a)
                y = Neg (x)
            }
    after:  <ir_version: 14, opset_import: ["" : 28]>
            model (float[2] x) => (float[2] y) { y = Neg (x) }

Inputs of the model stay, read or not: they are its interface.
"""

from __future__ import annotations

from partita.ir.graph import Graph, Value
from partita.ir.operators.control_flow import bodies


def dead_code(graph: Graph) -> bool:
    """Removes dead nodes and parameters, in subgraphs too."""
    live = set(graph.outputs)
    changed = False
    for node in reversed(graph.nodes):
        if not any(_is_read(graph, output, live) for output in node.outputs):
            graph.remove_node(node)
            changed = True
            continue
        for body in bodies(node).values():
            changed |= dead_code(body)
    for value in list(graph.parameters):
        if not _is_read(graph, value, live):
            graph.remove_parameter(value)
            changed = True
    return changed


def _is_read(graph: Graph, value: Value, live: set[Value]) -> bool:
    return value in live or bool(graph.uses(value))
