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


@dataclass(slots=True)
class Decision:
    """Who runs a node, and why those before refused: what `partita explain` shows."""

    node: str
    op_type: str
    backend: str
    refusals: list[tuple[str, str]] = field(default_factory=list)  # (backend, reason)


class _Group:
    """Nodes that will be one region. `number` is the order in which groups were opened."""

    def __init__(self, backend: str, number: int) -> None:
        self.backend = backend
        self.number = number
        self.nodes: list[Node] = []


def partition(graph: Graph, backends: Sequence[Claimant], symbol: str) -> list[Decision]:
    """Cuts `graph` in place; region symbols start with `symbol`. The last backend is the host.
    `UnsupportedOperatorError` lists every node that nobody claims."""
    for backend in backends:
        match_composites(graph, backend)
    decisions = claim(graph, backends)
    groups = merge(graph, {decision.node: decision.backend for decision in decisions}, host=backends[-1].name)
    counts: dict[str, int] = {}
    for group in groups:
        number = counts.get(group.backend, 0)
        counts[group.backend] = number + 1
        attributes = {"backend": group.backend, "symbol": f"{symbol}_{group.backend}_{number}"}
        infer_node(fold(graph, group.nodes, "Region", attributes))
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


def merge(graph: Graph, backend_of: dict[str, str], host: str) -> list[_Group]:
    """Groups the nodes, in topological order, so that the graph of groups has no cycle. A node joins the newest group
    of its backend that it may; an accelerator's groups are connected, the host's need not be."""
    groups: nx.DiGraph[_Group] = nx.DiGraph()
    group_of: dict[Node, _Group] = {}
    for number, node in enumerate(graph.nodes):
        backend = backend_of[node.name]
        before = dict.fromkeys(group_of[p] for p in sorted(graph.topology.pred[node], key=lambda p: p.number))
        wanted = [g for g in (groups if backend == host else before) if g.backend == backend]
        chosen = next((g for g in sorted(wanted, key=lambda g: -g.number) if _may_join(groups, g, before)), None)
        if chosen is None:
            chosen = _Group(backend, number)
            groups.add_node(chosen)
        chosen.nodes.append(node)
        group_of[node] = chosen
        groups.add_edges_from((other, chosen) for other in before if other is not chosen)
        for other in wanted:
            if other is not chosen and other in groups and _may_unite(groups, other, chosen):
                _unite(groups, group_of, other, chosen)
    return list(nx.lexicographical_topological_sort(groups, key=lambda group: group.number))


def _may_join(groups: nx.DiGraph[_Group], group: _Group, before: dict[_Group, None]) -> bool:
    """Whether a new node that reads from the groups `before` may join `group`: none of them may depend on it."""
    later = nx.descendants(groups, group)
    return not any(other in later for other in before)


def _may_unite(groups: nx.DiGraph[_Group], first: _Group, second: _Group) -> bool:
    """Whether two groups may become one: no path between them leads through a third."""
    for source, target in ((first, second), (second, first)):
        middle = [g for g in groups.succ[source] if g is not target]
        if any(target in nx.descendants(groups, g) for g in middle):
            return False
    return True


def _unite(groups: nx.DiGraph[_Group], group_of: dict[Node, _Group], old: _Group, new: _Group) -> None:
    new.nodes = sorted([*old.nodes, *new.nodes], key=lambda node: list(group_of).index(node))
    new.number = min(new.number, old.number)
    for node in old.nodes:
        group_of[node] = new
    groups.add_edges_from((p, new) for p in groups.pred[old] if p is not new)
    groups.add_edges_from((new, s) for s in groups.succ[old] if s is not new)
    groups.remove_node(old)
