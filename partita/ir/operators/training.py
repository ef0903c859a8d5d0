"""Operators that do something while training only."""

from __future__ import annotations

from partita.ir.builder import Builder
from partita.ir.expression import Computation, literal
from partita.ir.formula import compute, load
from partita.ir.graph import Node, Value
from partita.ir.operators.older import attribute_dropped
from partita.ir.operators.registry import computes, operator, upgrades
from partita.ir.types import DType


@computes("Dropout")
def dropout(node: Node) -> list[Computation]:
    """The identity; the mask keeps everything. What drops while training is made of other operators: see `random`."""
    x = node.operand(0)
    result = compute(x.shape, lambda *i: load(x, *i))
    mask = compute(x.shape, lambda *i: literal(True, DType.BOOL))
    return [result, mask][: len(node.outputs)]


operator("Dropout").is_view = True

attribute_dropped("Dropout", before=7, attributes=["is_test"])
attribute_dropped("Dropout", before=12, attributes=["ratio"])


@upgrades("Dropout", before=10)
def mask_of_data_type(build: Builder, node: Node) -> list[Value] | None:
    """The mask had the type of the data."""
    if len(node.outputs) < 2:
        return None
    result, mask = build.node("Dropout", node.operand(0), outputs=2)
    return [result, build("Cast", mask, to=node.operand(0).tensor.dtype.onnx)]
