"""Operators on strings."""

from __future__ import annotations

from partita.ir.expression import Computation, call
from partita.ir.graph import Node
from partita.ir.operators.elementwise import broadcast
from partita.ir.operators.registry import computes


@computes("StringConcat")
def string_concat(node: Node) -> Computation:
    return broadcast(node, lambda a, b: call("string_concat", a, b))
