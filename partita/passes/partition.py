"""Partition: the graph is cut into convex regions, one backend each; the host takes what no target wants.

    before: y = Relu(Conv(x, w)); z = Exp(y)       (target `acc` claims Conv and Relu)
    after:  y = Region[acc]{Relu(Conv(x, w))}; z = Region[cpu]{Exp(y)}

Three steps. Composites: chains that a target runs as one become one node. Claims: each node goes to the first backend,
in order of priority, that accepts it. Merging: nodes of one backend join a region where that keeps the graph *of all
regions* acyclic. Convexity pair by pair would not be enough: two regions can each be convex and still depend on each
other; so every merge is checked on the graph of regions made so far, and the result is asserted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import networkx as nx

from partita.errors import UnsupportedOperatorError
from partita.ir.graph import Graph, Node
from partita.ir.inference import infer_node
from partita.ir.subgraph import fold
from partita.passes.claims import Claimant, Reject, match_composites
from partita.passes.grouping import Group, Grouping


@dataclass(slots=True)
class Decision:
    """Who runs a node, and why those before refused: what `partita explain` shows."""

    node: str
    op_type: str
    backend: str
    refusals: list[tuple[str, str]] = field(default_factory=list)  # (backend, reason)


def partition(graph: Graph, backends: Sequence[Claimant], symbol: str) -> list[Decision]:
    """Cuts `graph` in place; region symbols start with `symbol`. The last backend is the host.
    `UnsupportedOperatorError` lists every node that nobody claims."""
    for backend in backends:
        match_composites(graph, backend)
    decisions = claim(graph, backends)
    backend_of = {node: decision.backend for node, decision in zip(graph.nodes, decisions, strict=True)}
    groups = merge(graph, backend_of, host=backends[-1].name)
    counts: dict[str, int] = {}
    for group in groups:
        number = counts.get(group.label, 0)
        counts[group.label] = number + 1
        attributes = {"backend": group.label, "symbol": f"{symbol}_{group.label}_{number}"}
        infer_node(fold(graph, group.nodes, "Region", attributes, share_parameters=True))
    assert nx.is_directed_acyclic_graph(graph.topology), "regions depend on each other"
    return decisions


def claim(graph: Graph, backends: Sequence[Claimant]) -> list[Decision]:
    """Asks the backends in order, for every node."""
    decisions: list[Decision] = []
    for node in graph.nodes:
        decision = Decision(node.name, node.op_type, "")
        for backend in backends:
            answer = backend.claims(node)
            if isinstance(answer, Reject):
                decision.refusals.append((backend.name, answer.reason))
            else:
                decision.backend = backend.name
                break
        decisions.append(decision)
    refused = [(node, d) for node, d in zip(graph.nodes, decisions, strict=True) if not d.backend]
    if refused:
        lines = [
            f"{node.describe()}: " + "; ".join(f"{backend}: {reason}" for backend, reason in decision.refusals)
            for node, decision in refused
        ]
        raise UnsupportedOperatorError(
            f"{len(lines)} node(s) run on none of the targets. Add a target that runs them (targets=['reference'] "
            "interprets most operators), or rewrite the model without them:\n" + "\n".join(lines)
        )
    return decisions


def merge(graph: Graph, backend_of: dict[Node, str], host: str) -> list[Group[str]]:
    """Groups the nodes, in topological order, labelled with their backend. A node joins the newest group of its
    backend that it may; an accelerator's groups are connected, the host's need not be."""
    grouping: Grouping[str] = Grouping(graph)
    for node in graph.nodes:
        backend = backend_of[node]
        near = grouping.before(node)
        candidates = reversed(grouping.groups()) if backend == host else near
        wanted = [group for group in candidates if group.label == backend]
        chosen = next((group for group in wanted if grouping.may_join(node, group)), None)
        if chosen is None:
            grouping.open(node, backend)
            continue
        grouping.join(node, chosen)
        for other in near:
            if other is not chosen and other.label == backend and grouping.may_unite(other, chosen):
                grouping.unite(other, chosen)
    return grouping.groups()
