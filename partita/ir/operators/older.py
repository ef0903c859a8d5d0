"""Ways in which operators changed from opset to opset, shared by the definitions."""

from __future__ import annotations

import functools
from typing import Any

from onnx import defs, helper

from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.registry import upgrades
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


def attributes_to_operands(build: Builder, node: Node, old: defs.OpSchema) -> None:
    """Attributes of the `old` schema, or their defaults, become the operands that ONNX's newest schema calls alike."""
    newest = schema_of(node.op_type, NEWEST_OPSET, "")
    assert newest is not None
    places = {operand.name.lower(): place for place, operand in enumerate(newest.inputs)}
    for name, content in (_defaults(old.name, node.version) | node.attributes).items():
        if name in SILENT:
            node.attributes.pop(name, None)
        place = places.get(name.lower())
        if name in old.attributes and name not in newest.attributes and place is not None:
            node.attributes.pop(name, None)
            is_integer = str(old.attributes[name].type).startswith("AttrType.INT")
            dtype = DType.INT64 if is_integer else node.operand(0).tensor.dtype
            build.graph.set_input(node, place, None if content == () else build.constant(content, dtype))


def value_renamed(*names: str, before: int, attribute: str, values: dict[Any, Any]) -> None:
    """Values of an attribute that are spelled otherwise now; None stands for its absence."""

    def step(build: Builder, node: Node) -> None:
        old = node.attributes.get(attribute)
        node.attributes.update({attribute: values[old]} if old in values else {})

    upgrades(*names, before=before)(step)


def with_trailing_axes(build: Builder, value: Value, count: int) -> Value:
    """`value` with `count` axes of size 1 after its own."""
    rank = len(value.shape)
    return build("Unsqueeze", value, range(rank, rank + count)) if count > 0 else value
