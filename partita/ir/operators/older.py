"""Ways in which operators changed from opset to opset, shared by the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.registry import upgrades
from partita.ir.types import DType


def attributes_to_inputs(*names: str, before: int, is_scalar: bool = False, **places: int) -> None:
    """Integers that were attributes became operands, at the places given for them: vectors, or scalars."""

    def step(build: Builder, node: Node) -> None:
        for attribute, index in places.items():
            content = node.attributes.pop(attribute, None)
            if content is not None and content != ():
                array = np.asarray(content, dtype=np.int64).reshape(() if is_scalar else (-1,))
                build.graph.set_input(node, index, build.constant(array, DType.INT64))

    upgrades(*names, before=before)(step)


def default_was(*names: str, before: int, **defaults: Any) -> None:
    """Attributes whose default changed, or that did not exist: what an absent one meant is written down."""
    upgrades(*names, before=before)(lambda build, node: node.attributes.update(defaults | node.attributes))


def attribute_dropped(*names: str, before: int, attributes: Sequence[str]) -> None:
    """Attributes that no longer exist and say nothing about inference."""

    def step(build: Builder, node: Node) -> None:
        for attribute in attributes:
            node.attributes.pop(attribute, None)

    upgrades(*names, before=before)(step)


def attribute_renamed(*names: str, before: int, attribute: str, to: str) -> None:
    def step(build: Builder, node: Node) -> None:
        if attribute in node.attributes:
            node.attributes[to] = node.attributes.pop(attribute)

    upgrades(*names, before=before)(step)


def value_renamed(*names: str, before: int, attribute: str, values: dict[Any, Any]) -> None:
    """Values of an attribute that are spelled otherwise now."""

    def step(build: Builder, node: Node) -> None:
        old = node.attributes.get(attribute)
        node.attributes.update({attribute: values[old]} if old in values else {})

    upgrades(*names, before=before)(step)


def broadcast_by_axis(*names: str) -> None:
    """Before opset 7 the second operand broadcast only on request, and from `axis` on instead of from the end."""

    def step(build: Builder, node: Node) -> None:
        axis = node.attributes.pop("axis", None)
        if node.attributes.pop("broadcast", 0) and axis is not None:
            a, b = node.operand(0), node.operand(1)
            trailing = len(a.shape) - axis % len(a.shape) - len(b.shape)
            build.graph.set_input(node, 1, with_trailing_axes(build, b, trailing))

    upgrades(*names, before=7)(step)


def with_trailing_axes(build: Builder, value: Value, count: int) -> Value:
    """`value` with `count` axes of size 1 after its own."""
    rank = len(value.shape)
    return build("Unsqueeze", value, range(rank, rank + count)) if count > 0 else value
