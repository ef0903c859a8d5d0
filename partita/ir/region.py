"""Regions: convex subgraphs, each run by one backend. A node of the top graph whose body is the subgraph.

The body's inputs are the node's operands, in order, and its outputs the node's outputs. Parameters are not operands: a
body holds the same parameters (by name) as the graph it was cut from, so that one weight used by two regions stays one.
"""

from __future__ import annotations

from dataclasses import dataclass

from partita.ir.graph import Graph, Node

DOMAIN = "partita"


@dataclass(frozen=True, slots=True)
class Region:
    """One region node, read. `symbol` is a C identifier, unique in the model."""

    node: Node
    backend: str
    symbol: str
    body: Graph


def region_of(node: Node) -> Region | None:
    """The region that `node` stands for, or None."""
    if node.domain != DOMAIN or node.op_type != "Region":
        return None
    return Region(node, node.attributes["backend"], node.attributes["symbol"], node.attributes["body"])


def regions(graph: Graph) -> list[Region]:
    """The regions of a partitioned graph, in the order they run."""
    return [region for node in graph.nodes if (region := region_of(node)) is not None]
