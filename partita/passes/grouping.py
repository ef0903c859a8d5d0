"""Groups of nodes that stay acyclic among themselves: what partitioning and fusion merge with.

Nodes are added in topological order. A merge is checked against the graph of the groups made so far, so it is sound for
any number of kinds of groups: contracting two groups makes a cycle if and only if a path between them leads through a
third.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import networkx as nx

from partita.ir.graph import Graph, Node, Value

Label = TypeVar("Label")


class Group(Generic[Label]):
    """Nodes that will become one, in topological order, and what the caller knows of them: `label`, and whether no
    other node is to join."""

    def __init__(self, number: int, label: Label) -> None:
        self.number = number
        self.label = label
        self.is_closed = False
        self.nodes: list[Node] = []


class Grouping(Generic[Label]):
    """The groups of one graph, and the edges between them."""

    def __init__(self, graph: Graph) -> None:
        self._topology = graph.topology
        self._order = {node: place for place, node in enumerate(graph.nodes)}
        self._groups: nx.DiGraph[Group[Label]] = nx.DiGraph()
        self._group_of: dict[Node, Group[Label]] = {}

    def groups(self) -> list[Group[Label]]:
        """All groups, in an order in which they can run."""
        return list(nx.lexicographical_topological_sort(self._groups, key=lambda group: group.number))

    def group_of(self, node: Node) -> Group[Label]:
        return self._group_of[node]

    def before(self, node: Node) -> list[Group[Label]]:
        """The groups that `node` reads from, newest first."""
        found = dict.fromkeys(self._group_of[p] for p in self._topology.pred[node])
        return sorted(found, key=lambda group: -group.number)

    def open(self, node: Node, label: Label) -> Group[Label]:
        """Puts `node` into a group of its own."""
        group = Group(self._order[node], label)
        self._groups.add_node(group)
        self._place(node, group)
        return group

    def place(self, node: Node) -> int:
        """The place of a node in the topological order."""
        return self._order[node]

    def is_before(self, values: Iterable[Value], group: Group[Label]) -> bool:
        """Whether all these values are there before `group` runs: their nodes are grouped, and no group among theirs
        depends on it."""
        producers = [value.producer for value in values if value.producer is not None]
        if any(producer not in self._group_of for producer in producers):
            return False
        after = nx.descendants(self._groups, group) if producers else set()
        return not any(self._group_of[producer] in after for producer in producers)

    def may_join(self, node: Node, group: Group[Label]) -> bool:
        """Whether `node`, of which no user is grouped yet, may join: none of the groups it reads from depends on
        `group`."""
        others = [other for other in self.before(node) if other is not group]
        return not others or not any(other in nx.descendants(self._groups, group) for other in others)

    def join(self, node: Node, group: Group[Label]) -> None:
        self._place(node, group)

    def may_unite(self, first: Group[Label], second: Group[Label]) -> bool:
        """Whether two groups may become one: no path between them leads through a third."""
        for source, target in ((first, second), (second, first)):
            middle = [group for group in self._groups.succ[source] if group is not target]
            if any(target in nx.descendants(self._groups, group) for group in middle):
                return False
        return True

    def unite(self, old: Group[Label], new: Group[Label]) -> None:
        """Moves the nodes of `old` into `new`."""
        new.nodes = sorted([*old.nodes, *new.nodes], key=self._order.__getitem__)
        new.number = min(new.number, old.number)
        for node in old.nodes:
            self._group_of[node] = new
        self._connect(self._groups.pred[old], [new])
        self._connect([new], self._groups.succ[old])
        self._groups.remove_node(old)

    def _place(self, node: Node, group: Group[Label]) -> None:
        before = self.before(node)
        group.nodes.append(node)
        self._group_of[node] = group
        self._connect(before, [group])

    def _connect(self, sources: Iterable[Group[Label]], targets: Iterable[Group[Label]]) -> None:
        edges = [(a, b) for a in sources for b in targets if a is not b]
        self._groups.add_edges_from(edges)
