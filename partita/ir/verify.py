"""The rules of the IR, checked: what every pass may assume, and must leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import networkx as nx

from partita.errors import PartitaError, VerificationError
from partita.ir import dims
from partita.ir.graph import Graph, Node
from partita.ir.inference import inferred_types
from partita.ir.nested import bodies
from partita.ir.region import DOMAIN
from partita.ir.schema import STANDARD_DOMAINS, form_problems, type_problems
from partita.ir.types import TensorType, Type, UnknownType


def verify(graph: Graph) -> None:
    """Raises `VerificationError` with every rule that the graph, or a graph inside it, breaks."""
    problems = [f"graph {graph.name!r}: {text}" for text in _problems(graph)]
    if problems:
        raise VerificationError("\n".join(problems))


def _problems(graph: Graph) -> Iterator[str]:
    yield from _structure(graph)
    if not nx.is_directed_acyclic_graph(graph.topology):
        cycle = nx.find_cycle(graph.topology)
        yield f"a cycle: {' -> '.join(edge[0].name for edge in cycle)}"
        return
    for node in graph.nodes:
        yield from _node(graph, node)
        for key, body in bodies(node).items():
            yield from _interface(node, key, body)
            yield from (f"in {key} of {node.name!r}: {text}" for text in _problems(body))


def _structure(graph: Graph) -> Iterator[str]:
    """Names, uses, edges: what the graph keeps twice must agree."""
    nodes = list(graph.topology)
    own = [*graph.inputs, *graph.parameters, *(output for node in nodes for output in node.outputs)]
    members = set(own)
    for name, count in Counter(value.name for value in own).items():
        if count > 1:
            yield f"{count} values are named {name!r}"
    for value in own:
        if graph.value_named(value.name) is not value:
            yield f"the name {value.name!r} does not lead to its value"
        if any(value not in user.operands for user, _ in graph.uses(value)):
            yield f"{value.name!r} counts a use that is none"
    for node in nodes:
        for index, output in enumerate(node.outputs):
            if output.producer is not node or output.index != index:
                yield f"output {index} of {node.name!r} does not know its producer"
        for index, operand in enumerate(node.inputs):
            if operand is not None and operand not in members:
                yield f"{node.name!r} reads {operand.name!r}, which is not in the graph"
            if operand is not None and (node, index) not in graph.uses(operand):
                yield f"{node.name!r} reads {operand.name!r}, which does not know of it"
    expected = {
        (value.producer, node, (value.index, index))
        for node in nodes
        for index, value in enumerate(node.inputs)
        if value is not None and value.producer is not None
    }
    if expected != set(graph.topology.edges(keys=True)):
        yield "the edges differ from the operands"
    yield from (f"the output {v.name!r} is not in the graph" for v in graph.outputs if v not in members)
    for value in graph.parameters:
        if value.parameter is not graph.parameters[value]:
            yield f"the parameter {value.name!r} does not know its content"


def _node(graph: Graph, node: Node) -> Iterator[str]:
    yield from form_problems(node)
    yield from type_problems(node)
    if node.domain not in (*STANDARD_DOMAINS, DOMAIN):
        return  # nobody can tell its types: a backend that claims it must
    try:
        types = inferred_types(node)
    except PartitaError as error:
        yield str(error)
        return
    for output, computed in zip(node.outputs, types, strict=False):
        if isinstance(output.type, UnknownType):
            if not graph.uses(output) and not graph.is_output(output):
                continue  # an optional output that only stands before another one
            yield f"{output.name!r}, made by {node.describe()}, has no type"
        elif not _agree(output.type, computed):
            yield f"{output.name!r} has type {output.type}, but {node.describe()} computes {computed}"


def _agree(stored: Type, computed: Type) -> bool:
    """Whether no run could tell the types apart for sure."""
    if isinstance(computed, UnknownType) or not isinstance(stored, TensorType) or not isinstance(computed, TensorType):
        return isinstance(computed, UnknownType) or not isinstance(stored, TensorType | UnknownType)
    if stored.dtype is not computed.dtype:
        return False
    if stored.shape is None or computed.shape is None:
        return computed.shape is None
    return len(stored.shape) == len(computed.shape) and all(map(_may_equal, stored.shape, computed.shape))


def _may_equal(first: dims.Dim | None, second: dims.Dim | None) -> bool:
    if first is None or second is None:
        return True
    difference = dims.simplified(first - second)
    return not dims.is_static(difference) or difference == 0


def _interface(node: Node, key: str, body: Graph) -> Iterator[str]:
    """What a node gives to its body, and takes from it."""
    if node.domain != DOMAIN:
        captures = node.attributes.get("captures", 0)
        if captures > min(len(node.inputs), len(body.inputs)) or None in node.inputs[len(node.inputs) - captures :]:
            yield f"{key} of {node.name!r} captures {captures} values that are not all there"
        return
    if len(body.inputs) != len(node.inputs) or len(body.outputs) != len(node.outputs):
        yield f"{key} of {node.name!r} has {len(body.inputs)} inputs and {len(body.outputs)} outputs, unlike the node"
        return
    for outer, inner in [*zip(node.inputs, body.inputs, strict=True), *zip(node.outputs, body.outputs, strict=True)]:
        if outer is None or not _agree(outer.type, inner.type):
            yield f"{key} of {node.name!r}: {inner!r} stands for {outer!r}"
