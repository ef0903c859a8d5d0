"""What nothing reads goes: nodes, parameters, and what subgraphs capture in vain.

    before: model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
                a = Mul (x, w)
                b = Exp (a)
                y = Neg (x)
            }
    after:  model (float[2] x) => (float[2] y) { y = Neg (x) }

Inputs of the model stay, read or not: they are its interface.
"""

from __future__ import annotations

from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import bodies


def dead_code(graph: Graph) -> bool:
    """Removes dead nodes and parameters, in subgraphs too."""
    changed = False
    for node in reversed(graph.nodes):
        if not any(_is_read(graph, output) for output in node.outputs):
            graph.remove_node(node)
            changed = True
            continue
        for body in bodies(node).values():
            changed |= dead_code(body)
        if node.attributes.get("captures"):
            changed |= _release(graph, node)
    for value in list(graph.parameters):
        if not _is_read(graph, value):
            graph.remove_parameter(value)
            changed = True
    return changed


def _is_read(graph: Graph, value: Value) -> bool:
    return bool(graph.uses(value)) or graph.is_output(value)


def _release(graph: Graph, node: Node) -> bool:
    """Drops the captured operands that no body reads any more."""
    count = node.attributes["captures"]
    graphs = list(bodies(node).values())
    unread = [place for place in range(-count, 0) if not any(_is_read(body, body.inputs[place]) for body in graphs)]
    for body in graphs:
        for value in [body.inputs[place] for place in unread]:
            body.remove_input(value)
    if unread:
        kept = [value for n, value in enumerate(node.inputs) if n - len(node.inputs) not in unread]
        graph.set_inputs(node, kept)
        node.attributes["captures"] = count - len(unread)
    return bool(unread)
