"""Partition: the graph is cut into convex regions, one backend each; the host takes what no target wants.

With a target `acc` that claims Add and Relu:

    before: model (float[2] x) => (float[2] z) <float[2] w = {1, 2}> {
                s = Add (x, w)
                y = Relu (s)
                z = Exp (y)
            }
    after:  model (float[2] x) => (float[2] z) <float[2] w = {1, 2}> {
                y = partita.m_acc_0 (x, w)
                z = partita.m_cpu_0 (y)
            }
            <domain: "partita">
            m_acc_0 (x, w) => (y) {
                s = Add (x, w)
                y = Relu (s)
            }
            <domain: "partita">
            m_cpu_0 (y) => (z) {
                z = Exp (y)
            }

Three steps, the first two for one backend after the other, in order of priority, on what is left. Composites: chains
that the backend runs as one become one node. Claims: it takes the nodes that it accepts. Merging, at last: nodes of one
backend join a region where that keeps the graph *of all regions* acyclic. Convexity pair by pair would not be enough:
two regions can each be convex and still depend on each other; so every merge is checked on the graph of regions made so
far, and the result is asserted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import networkx as nx

from partita.errors import UnsupportedOperatorError
from partita.ir.graph import Graph, Node
from partita.ir.inference import infer_node
from partita.ir.operators.internal import is_observation
from partita.ir.region import region_of, regions
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


def _operator(node: Node) -> str:
    """The operator's type, or the name of a composite."""
    return str(node.attributes["name"]) if node.op_type == "Composite" else node.op_type


def partition(graph: Graph, backends: Sequence[Claimant], symbol: str) -> list[Decision]:
    """Cuts `graph` in place; region symbols start with `symbol`. The last backend is the host. Regions that are there
    already stay. `UnsupportedOperatorError` lists every node that nobody claims."""
    decisions = claim(graph, backends)
    groups = merge(graph, {node: decision.backend for node, decision in decisions.items()}, host=backends[-1].name)
    counts = Counter(region.backend for region in regions(graph))
    for group in groups:
        if region_of(group.nodes[0]) is not None:
            continue
        attributes = {"backend": group.label, "symbol": f"{symbol}_{group.label}_{counts[group.label]}"}
        counts[group.label] += 1
        infer_node(fold(graph, group.nodes, "Region", attributes, share_parameters=True))
    assert nx.is_directed_acyclic_graph(graph.topology), "regions depend on each other"
    return list(decisions.values())


def claim(graph: Graph, backends: Sequence[Claimant]) -> dict[Node, Decision]:
    """Who runs what: each backend in turn takes, of what is left, the chains that it runs as one, then single nodes."""
    decided: dict[Node, Decision] = {}
    refusals: dict[Node, list[tuple[str, str]]] = {node: [] for node in graph.nodes if region_of(node) is None}
    for backend in backends:
        matches = match_composites(graph, backend, [node for node in graph.nodes if node in refusals])
        for first, reasons in matches.refusals.items():
            refusals[first] += [(backend.name, reason) for reason in reasons]
        for node, members in matches.folded.items():
            met = [refusal for member in members for refusal in refusals.pop(member)]
            decided[node] = Decision(node.name, _operator(node), backend.name, list(dict.fromkeys(met)))
        for node in list(refusals):
            answer = backend.claims(node)
            if isinstance(answer, Reject):
                refusals[node].append((backend.name, answer.reason))
            else:
                decided[node] = Decision(node.name, _operator(node), backend.name, refusals.pop(node))
    if refusals:
        raise UnsupportedOperatorError(
            f"{len(refusals)} node(s) run on none of the targets. Add a target that runs them (targets=['reference'] "
            "interprets most operators), or rewrite the model without them:\n"
            + "\n".join(
                f"{node.describe()}: " + "; ".join(f"{backend}: {reason}" for backend, reason in reasons)
                for node, reasons in refusals.items()
            )
        )
    return {node: decided[node] for node in graph.nodes if node in decided}


def merge(graph: Graph, backend_of: dict[Node, str], host: str) -> list[Group[str]]:
    """Groups the nodes, in topological order, labelled with their backend. A node joins the newest group of its
    backend that it may; an accelerator's groups are connected, the host's need not be. Alone stay the regions that are
    there already, and observations: what they tell must be known before a region that needs it begins."""
    grouping: Grouping[str] = Grouping(graph)
    for node in graph.nodes:
        if node not in backend_of or is_observation(node):
            grouping.open(node, backend_of.get(node, "")).is_closed = True
            continue
        backend = backend_of[node]
        near = grouping.before(node)
        candidates = reversed(grouping.groups()) if backend == host else near
        wanted = [group for group in candidates if group.label == backend and not group.is_closed]
        chosen = next((group for group in wanted if grouping.may_join(node, group)), None)
        if chosen is None:
            grouping.open(node, backend)
            continue
        grouping.join(node, chosen)
        for other in near:
            if other in wanted and other is not chosen and grouping.may_unite(other, chosen):
                grouping.unite(other, chosen)
    return grouping.groups()
