"""Graphs that nodes hold: the bodies of If, Loop and Scan. What a body captures are the last operands of the node and
the last inputs of each body (attribute `captures` counts them)."""

from __future__ import annotations

from collections.abc import Iterator

from partita.ir.graph import Graph, Node, Value


def bodies(node: Node) -> dict[str, Graph]:
    """The graphs that `node` holds, by attribute."""
    return {name: value for name, value in node.attributes.items() if isinstance(value, Graph)}


def is_control(node: Node) -> bool:
    """Whether `node` decides which of its bodies run, and how often."""
    return node.op_type in ("If", "Loop") and not node.domain


def graphs(graph: Graph) -> Iterator[Graph]:
    """`graph`, and the bodies of the control flow in it, all the way down."""
    yield graph
    for node in graph.nodes:
        if is_control(node):
            for body in bodies(node).values():
                yield from graphs(body)


def steps(graph: Graph) -> Iterator[Node]:
    """The nodes in the order they run. Control flow stands before the nodes of its bodies, and again after them."""
    for node in graph.nodes:
        yield node
        if is_control(node):
            for body in bodies(node).values():
                yield from steps(body)
            yield node


def captured(node: Node) -> list[Value]:
    """The operands that the bodies read besides their own inputs: the last inputs of each body, in order."""
    return [value for value in node.inputs[len(plain(node)) :] if value is not None]


def plain(node: Node) -> tuple[Value | None, ...]:
    """The operands that are not captured."""
    return node.inputs[: len(node.inputs) - node.attributes.get("captures", 0)]
