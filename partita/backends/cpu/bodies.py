"""What the graphs inside of If and Loop need before they are planned and printed as a part of their region."""

from __future__ import annotations

import networkx as nx

from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import bodies, captured, plain
from partita.ir.operators import definition
from partita.ir.operators.internal import DOMAIN
from partita.ir.subgraph import copy_nodes, depends_on_parameters, share_parameter
from partita.passes.bind import is_movable


def share_parameters(graph: Graph, node: Node) -> None:
    """Lets the bodies of `node` hold by name what they capture of the parameters of `graph`, as regions do, and compute
    themselves what follows from these alone: that can then leave for the bind program, packing included."""
    outside = captured(node)
    moved = {value: nodes for value in outside if (nodes := _nodes_before(graph, value)) is not None}
    kept = [value for value in outside if value not in moved]
    for body in bodies(node).values():
        mapping: dict[Value, Value] = {}
        for outer, inner in zip(outside, body.inputs[len(body.inputs) - len(outside) :], strict=True):
            if outer not in moved:
                continue
            body.rename(inner, f"{outer.name}.captured")
            body.replace_uses(inner, _moved_in(outer, moved[outer], body, mapping))
            body.remove_input(inner)
    graph.set_inputs(node, [*plain(node), *kept])
    node.attributes["captures"] = len(kept)


def _nodes_before(graph: Graph, value: Value) -> list[Node] | None:
    """What computes a value from parameters alone, in order; None where it takes more, or may not run at bind time."""
    if value.parameter is not None:
        return []
    if value.producer is None or not depends_on_parameters(value):
        return None
    needed = nx.ancestors(graph.topology, value.producer) | {value.producer}
    return [node for node in graph.nodes if node in needed] if all(map(is_movable, needed)) else None


def _moved_in(outer: Value, nodes: list[Node], body: Graph, mapping: dict[Value, Value]) -> Value:
    """A value that `nodes` compute from parameters alone, as `body` computes it."""
    for value in [outer, *(operand for node in nodes for operand in node.operands)]:
        if value.parameter is None or value in mapping:
            continue
        taken = body.value_named(value.name)
        if taken is not None:
            body.rename(taken, f"{value.name}.inner")
        mapping[value] = share_parameter(value, body)
    copy_nodes([node for node in nodes if node.output not in mapping], body, mapping)
    return mapping[outer]


def separate_outputs(node: Node) -> None:
    """Copies the outputs of bodies that must have memory of their own. A branch computes into the outputs of its If;
    a loop replaces what it carries at the end of a step, when nothing may need the old any more."""
    for body in bodies(node).values():
        build = Builder(body, node.name)
        outputs = list(body.outputs)
        taken: set[Value] = set()
        carried = body.inputs[2 : len(plain(node))]
        for place, value in enumerate(outputs):
            source = _memory_of(value)
            if node.op_type == "If":
                is_shared = source.producer is None or source in taken
            else:
                own = carried[place - 1] if 1 <= place <= len(carried) else None
                is_shared = own is not None and source in carried and source is not own
            if is_shared:
                outputs[place] = build("Copy", value, domain=DOMAIN)
            taken.add(source)
        body.set_outputs(outputs)


def _memory_of(value: Value) -> Value:
    """The value whose memory `value` is a view of."""
    while value.producer is not None:
        operator = definition(value.producer)
        if operator is None or not operator.is_view:
            return value
        value = value.producer.operand(0)
    return value
