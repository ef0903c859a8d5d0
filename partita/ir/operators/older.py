"""Ways in which operators changed from opset to opset, shared by the definitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.registry import upgrades
from partita.ir.types import DType


def attribute_to_input(*names: str, before: int, attribute: str, index: int, shape: tuple[int, ...] = (-1,)) -> None:
    """Integers that were an attribute became operand `index`."""

    def step(build: Builder, node: Node) -> None:
        content = node.attributes.pop(attribute, None)
        if content is not None and content != ():
            constant = build.constant(np.asarray(content, dtype=np.int64).reshape(shape), DType.INT64)
            build.graph.set_input(node, index, constant)

    upgrades(*names, before=before)(step)


def default_was(*names: str, before: int, **defaults: Any) -> None:
    """Attributes whose default changed, or that did not exist: what an absent one meant is written down."""

    def step(build: Builder, node: Node) -> None:
        node.attributes.update({key: value for key, value in defaults.items() if key not in node.attributes})

    upgrades(*names, before=before)(step)


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
            if trailing > 0:
                build.graph.set_input(node, 1, with_trailing_axes(build, b, trailing))

    upgrades(*names, before=7)(step)


def with_trailing_axes(build: Builder, value: Value, count: int) -> Value:
    """`value` with `count` axes of size 1 after its own."""
    rank = len(value.shape)
    return build("Unsqueeze", value, build.ints(range(rank, rank + count)))
