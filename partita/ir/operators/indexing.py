"""Operators that read or write elements at places given by data."""

from __future__ import annotations

from partita.ir.builder import Builder
from partita.ir.graph import Node
from partita.ir.operators.older import attribute_to_input
from partita.ir.operators.registry import upgrades

attribute_to_input("TopK", before=10, attribute="k", index=1)


@upgrades("Scatter", before=11)
def scatter_elements(build: Builder, node: Node) -> None:
    node.op_type = "ScatterElements"
