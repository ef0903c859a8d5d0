"""What changed from opset to opset, as ONNX's own schemas tell: defaults, and attributes that became operands."""

from __future__ import annotations

import functools
from typing import Any

from onnx import helper

from partita.ir.builder import Builder
from partita.ir.graph import Node
from partita.ir.schema import NEWEST_OPSET, schema_of
from partita.ir.types import DType

SILENT = frozenset({"broadcast", "consumed_inputs", "is_test", "output_sequence"})
"""Attributes of old that say nothing about inference, or nothing that operands do not say (`broadcast` of Gemm)."""


@functools.cache
def _defaults(op_type: str, version: int) -> dict[str, Any]:
    """What absent attributes mean at opset `version`."""
    schema = schema_of(op_type, version, "")
    given = {} if schema is None else {name: entry.default_value for name, entry in schema.attributes.items()}
    values = {name: helper.get_attribute_value(default) for name, default in given.items() if default.name}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def write_defaults(node: Node) -> None:
    """What an absent attribute means is written down where ONNX's newest schema means something else."""
    newest = _defaults(node.op_type, NEWEST_OPSET)
    for name, value in _defaults(node.op_type, node.version).items():
        if newest.get(name, value) != value:
            node.attributes.setdefault(name, value)


@functools.cache
def _operands(op_type: str, version: int) -> dict[str, tuple[int, bool]]:
    """Attributes at opset `version` that ONNX's newest schema has as operands: their places, and whether they are
    integers."""
    old, newest = (schema_of(op_type, opset, "") for opset in (version, NEWEST_OPSET))
    if old is None or newest is None:
        return {}
    places = {operand.name.lower(): place for place, operand in enumerate(newest.inputs)}
    gone = {name: entry for name, entry in old.attributes.items() if name not in newest.attributes}
    return {
        name: (places[name.lower()], str(entry.type).startswith("AttrType.INT"))
        for name, entry in gone.items()
        if name.lower() in places
    }


def attributes_to_operands(build: Builder, node: Node) -> None:
    """What is an operand now was an attribute, or its default."""
    for name, (place, is_integer) in _operands(node.op_type, node.version).items():
        content = node.attributes.pop(name, _defaults(node.op_type, node.version).get(name, ()))
        if content != ():
            dtype = DType.INT64 if is_integer else node.operand(0).tensor.dtype
            build.graph.set_input(node, place, build.constant(content, dtype))
    for name in SILENT.intersection(node.attributes):
        del node.attributes[name]
