"""Cutting graphs: copying some nodes of one graph into another, or folding them into the body of one node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from partita.ir.graph import Attribute, Graph, Node, Value
from partita.ir.nested import bodies
from partita.ir.schema import NEWEST_OPSET, NONDETERMINISTIC
from partita.ir.types import UnknownType


def copy_nodes(nodes: Iterable[Node], target: Graph, mapping: dict[Value, Value]) -> None:
    """Copies `nodes`, in the order given, into `target`; `mapping` translates values and grows with the results."""
    for node in nodes:
        clone = target.add_node(
            node.op_type,
            [None if value is None else mapping[value] for value in node.inputs],
            node.attributes,
            outputs=target.unique_names(output.name for output in node.outputs),
            domain=node.domain,
            name=node.name,
            version=node.version,
        )
        for old, new in zip(node.outputs, clone.outputs, strict=True):
            new.type, new.known = old.type, old.known
            mapping[old] = new


def share_parameter(value: Value, target: Graph) -> Value:
    """The parameter `value` as a parameter of `target` too: the same name, content and baking."""
    parameter = value.parameter
    assert parameter is not None
    copy = target.add_parameter(value.name, value.type, lambda: parameter.array, is_constant=parameter.is_constant)
    assert copy.parameter is not None
    copy.parameter.on_bake = parameter.bake
    copy.known = value.known
    return copy


def embed(body: Graph, target: Graph, inputs: Sequence[Value]) -> list[Value]:
    """Copies all that `body` computes into `target`, where `inputs` are its inputs; gives its outputs."""
    mapping = dict(zip(body.inputs, inputs, strict=True))
    mapping |= {value: share_parameter(value, target) for value in body.parameters}
    copy_nodes(body.nodes, target, mapping)
    return [mapping[output] for output in body.outputs]


def extract(
    graph: Graph, nodes: Sequence[Node], name: str, *, share_parameters: bool
) -> tuple[Graph, list[Value], list[Value]]:
    """A graph that computes what `nodes` (in topological order) compute, with the outer values that are its inputs and
    the outer values that are its outputs. Parameters are shared, or else passed like every other value; the body then
    still knows what they hold."""
    members = set(nodes)
    body = Graph(name, opsets=graph.opsets)
    mapping: dict[Value, Value] = {}
    inputs: list[Value] = []
    for node in nodes:
        for value in node.operands:
            if value in mapping or value.producer in members:
                continue
            if value.parameter is not None and share_parameters:
                mapping[value] = share_parameter(value, body)
            else:
                mapping[value] = body.add_input(value.name, value.type)
                mapping[value].known, mapping[value].parameter = value.known, value.parameter
                inputs.append(value)
    copy_nodes(nodes, body, mapping)
    outputs = [
        output
        for node in nodes
        for output in node.outputs
        if graph.is_output(output) or any(user not in members for user in graph.consumers(output))
    ]
    body.set_outputs(mapping[output] for output in outputs)
    return body, inputs, outputs


def alone(node: Node) -> Graph:
    """A graph of a copy of `node` alone, whose operands are its inputs."""
    graph = Graph("alone", opsets={"": NEWEST_OPSET, node.domain: node.version})
    mapping: dict[Value, Value] = {}
    for value in dict.fromkeys(node.operands):
        mapping[value] = graph.add_input(value.name, value.type)
        mapping[value].known, mapping[value].parameter = value.known, value.parameter
    copy_nodes([node], graph, mapping)
    graph.set_outputs(mapping[output] for output in node.outputs)
    return graph


def fold(
    graph: Graph,
    nodes: Sequence[Node],
    op_type: str,
    attributes: Mapping[str, Attribute],
    *,
    share_parameters: bool = False,
) -> Node:
    """Puts one node of domain `partita` in the place of `nodes` (a convex set in topological order); its attribute
    `body` computes what they did."""
    name = str(attributes.get("symbol", nodes[-1].name))
    body, inputs, outputs = extract(graph, nodes, name, share_parameters=share_parameters)
    node = graph.add_node(
        op_type,
        inputs,
        {**attributes, "body": body},
        outputs=graph.unique_names(f"{output.name}.folded" for output in outputs),
        domain="partita",
        name=name,
        version=1,
    )
    for old, new in zip(outputs, node.outputs, strict=True):
        new.type, new.known = old.type, old.known
        graph.replace_uses(old, new)
    for old_node in reversed(nodes):
        graph.remove_node(old_node)
    for old, new in zip(outputs, node.outputs, strict=True):
        graph.rename(new, old.name)
    return node


def unfold(graph: Graph, node: Node) -> list[Node]:
    """Puts the body of a folded node back in its place; gives the nodes."""
    body: Graph = node.attributes["body"]
    mapping: dict[Value, Value] = dict(zip(body.inputs, node.operands, strict=True))
    names = {value.name: value for value in graph.parameters}
    for value in body.parameters:
        mapping[value] = names[value.name] if value.name in names else share_parameter(value, graph)
    before = set(graph.nodes)
    copy_nodes(body.nodes, graph, mapping)
    for outer, inner in zip(node.outputs, body.outputs, strict=True):
        graph.replace_uses(outer, mapping[inner])
    graph.remove_node(node)
    return [fresh for fresh in graph.nodes if fresh not in before]


def inline(graph: Graph, node: Node, body: Graph) -> list[Node]:
    """Puts `body`, a graph that `node` holds and that takes nothing but what it captures, in its place; gives the nodes
    in order. The body's parameters become the graph's, under names of their own."""
    mapping: dict[Value, Value] = dict(zip(body.inputs, node.operands[-len(body.inputs) :], strict=False))
    for value in body.parameters:
        name = value.name
        value.name = graph.unique_name(name)
        mapping[value] = share_parameter(value, graph)
        value.name = name
    inner = body.nodes
    copy_nodes(inner, graph, mapping)
    graph.replace_node(node, [mapping[output] for output in body.outputs])
    copies = [mapping[old.output].producer for old in inner if old.outputs]
    return [copy for copy in copies if copy is not None]


def sink(graph: Graph, node: Node, followers: Sequence[Node]) -> Node:
    """Lets every body of `node`, an If, compute what `followers` (in topological order, with all that lies between)
    make of its outputs; gives the If that takes their place, untyped."""
    members = {node, *followers}
    values = [value for each in (node, *followers) for value in each.outputs]
    outputs = [v for v in values if graph.is_output(v) or any(user not in members for user in graph.consumers(v))]
    operands = dict.fromkeys(value for each in followers for value in each.operands)
    outside = [value for value in operands if value.producer not in members]
    for body in (attribute for attribute in node.attributes.values() if isinstance(attribute, Graph)):
        mapping = dict(zip(node.outputs, body.outputs, strict=True))
        for value in outside:
            mapping[value] = body.add_input(body.unique_name(value.name), value.type)
        copy_nodes(followers, body, mapping)
        for value in values[len(node.outputs) :]:
            mapping[value].type, mapping[value].known = UnknownType(), None  # each body's own
        for each in dict.fromkeys(mapping[value].producer for value in values[len(node.outputs) :]):
            if each is not None:
                own = {
                    key: untyped_copy(held, f"{body.prefix}{each.name}.{key}.") for key, held in bodies(each).items()
                }
                each.attributes.update(own)
        body.set_outputs(mapping[value] for value in outputs)
    attributes = {**node.attributes, "captures": node.attributes.get("captures", 0) + len(outside)}
    names = graph.unique_names(f"{value.name}.sunk" for value in outputs)
    fresh = graph.add_node(
        node.op_type, [*node.inputs, *outside], attributes, outputs=names, name=node.name, version=node.version
    )
    for old, new in zip(outputs, fresh.outputs, strict=True):
        graph.replace_uses(old, new)
    for each in (*reversed(followers), node):
        graph.remove_node(each)
    for old, new in zip(outputs, fresh.outputs, strict=True):
        graph.rename(new, old.name)
    return fresh


def untyped_copy(body: Graph, prefix: str) -> Graph:
    """A graph that computes the same and is still to be typed, with names of its own."""
    copy = Graph(body.name, prefix, body.opsets)
    copy.set_outputs(embed(body, copy, [copy.add_input(copy.unique_name(v.name), v.type) for v in body.inputs]))
    for node in copy.nodes:
        node.attributes.update({key: untyped_copy(held, f"{prefix}{key}.") for key, held in bodies(node).items()})
        for output in node.outputs:
            output.type, output.known = UnknownType(), None
    return copy


def depends_on_parameters(value: Value) -> bool:
    """Whether a value is known when weights are bound."""
    pending, seen = [value], set()
    while pending:
        current = pending.pop()
        if current in seen or current.parameter is not None:
            continue
        if current.producer is None or current.producer.op_type in NONDETERMINISTIC:
            return False
        seen.add(current)
        pending += current.producer.operands
    return True
