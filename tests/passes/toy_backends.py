"""Backends as partitioning and the memory plan see them: which operators they take, and what these do with memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pass_harness import graph_of

from partita.ir.graph import Graph, Node
from partita.ir.region import Region, regions
from partita.passes.claims import Accept, Claim, Composite, Reject
from partita.passes.partition import Decision, partition


@dataclass
class Toy:
    """Takes the operators listed, or nodes whose names it lists; "*" takes everything."""

    name: str
    takes: tuple[str, ...]
    composites: tuple[Composite, ...] = ()
    asked: list[str] = field(default_factory=list)

    def claims(self, node: Node) -> Claim:
        self.asked.append(node.name)
        if "*" in self.takes or node.op_type in self.takes or node.name in self.takes:
            return Accept()
        return Reject(f"{self.name} has no {node.op_type}")


@dataclass
class Machine(Toy):
    """A toy with memory traits, by operator type: what views its operand, what may overwrite it, what needs scratch."""

    views_of: tuple[str, ...] = ()
    overwrites: tuple[str, ...] = ()
    scratch: Mapping[str, int] = field(default_factory=dict)
    joins: tuple[str, ...] = ()  # vectors, one after the other

    def views(self, node: Node) -> Mapping[int, int]:
        return {0: 0} if node.op_type in self.views_of else {}

    def in_place(self, node: Node) -> Mapping[int, int]:
        return {0: 0} if node.op_type in self.overwrites else {}

    def parts(self, node: Node) -> Sequence[int]:
        sizes = [4 * int(value.shape[0]) for value in node.operands] if node.op_type in self.joins else []
        return [sum(sizes[:place]) for place in range(len(sizes))]

    def workspace(self, node: Node) -> int:
        return self.scratch.get(node.op_type, 0)


HOST = Toy("cpu", ("*",))


def cut(text: str, *accelerators: Toy, host: Toy = HOST) -> tuple[Graph, list[Decision]]:
    """A partitioned graph, and who runs what."""
    graph = graph_of(text)
    return graph, partition(graph, [*accelerators, host], "m")


def shape_of(graph: Graph) -> dict[str, list[str]]:
    """The operators of each region, by its symbol, in the order they run."""
    return {region.symbol: [node.op_type for node in region.body.nodes] for region in regions(graph)}


def region_named(graph: Graph, symbol: str) -> Region:
    return next(region for region in regions(graph) if region.symbol == symbol)
