"""A region as one node: for backends that order and place what is between a region's inputs and outputs themselves.

    before: r = Conv(x, w); y = Relu(r)
    after:  y = Fused{Relu(Conv(x, w))}(x, w)

The memory plan then sees the region's borders alone. Parameters become operands of the node, so that the metadata
table has them; the body is a graph whose inputs are the node's operands.
"""

from __future__ import annotations

from collections.abc import Sequence

from partita.errors import BackendError
from partita.ir.graph import Graph, Node, Value
from partita.ir.region import Region
from partita.ir.subgraph import fold, share_parameter


def make_opaque(body: Graph, nodes: Sequence[Node]) -> Node:
    """Folds `nodes` (in topological order) of a region's graph into one node."""
    node = fold(body, nodes, "Fused", {})
    pass_parameters(body, node)
    return node


def opaque_node(region: Region) -> Node:
    """The one node of a region that was made opaque."""
    nodes = region.body.nodes
    if len(nodes) != 1:
        raise BackendError(f"region {region.symbol!r} has {len(nodes)} nodes after lowering; one was expected")
    return nodes[0]


def pass_parameters(graph: Graph, node: Node) -> None:
    """Makes the parameters in the body of a folded node operands of the node, and inputs of the body."""
    body: Graph = node.attributes["body"]
    outer: dict[str, Value] = {value.name: value for value in graph.parameters}
    for value in list(body.parameters):
        name = value.name
        passed = body.add_input(body.unique_name(name), value.type)
        passed.known = value.known
        body.replace_uses(value, passed)
        source = outer[name] if name in outer else share_parameter(value, graph)
        body.remove_parameter(value)
        body.rename(passed, name)
        graph.set_input(node, len(node.inputs), source)
