"""Operators on single elements, as oneDNN's eltwise algorithms: name, alpha, beta."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from partita.ir.contents import known
from partita.ir.graph import Node, Value


@dataclass(frozen=True, slots=True)
class Eltwise:
    """One of oneDNN's eltwise algorithms with its two numbers."""

    kind: str
    alpha: float = 0.0
    beta: float = 0.0


def _attribute(node: Node, name: str, default: float) -> float:
    return float(node.attributes.get(name, default))


def _clip(node: Node) -> Eltwise:
    low, high = clip_bounds(node)
    return Eltwise("clip", low, high)


def _gelu(node: Node) -> Eltwise:
    return Eltwise("gelu_tanh" if node.attributes.get("approximate", "none") == "tanh" else "gelu_erf")


ALGORITHMS: dict[str, Callable[[Node], Eltwise]] = {
    "Abs": lambda node: Eltwise("abs"),
    "Clip": _clip,
    "Elu": lambda node: Eltwise("elu", _attribute(node, "alpha", 1.0)),
    "Gelu": _gelu,
    "HardSigmoid": lambda node: Eltwise("hardsigmoid", _attribute(node, "alpha", 0.2), _attribute(node, "beta", 0.5)),
    "HardSwish": lambda node: Eltwise("hardswish", 1 / 6, 0.5),
    "LeakyRelu": lambda node: Eltwise("relu", _attribute(node, "alpha", 0.01)),
    "Mish": lambda node: Eltwise("mish"),
    "Neg": lambda node: Eltwise("linear", -1.0),
    "Relu": lambda node: Eltwise("relu"),
    "Sigmoid": lambda node: Eltwise("logistic"),
    "Swish": lambda node: Eltwise("swish", _attribute(node, "alpha", 1.0)),
    "Tanh": lambda node: Eltwise("tanh"),
}


def clip_bounds(node: Node) -> tuple[float, float]:
    """The limits of a Clip, which are parameters: looking at them bakes them. Lowering makes attributes of them."""
    if "min" in node.attributes:
        return float(node.attributes["min"]), float(node.attributes["max"])
    return _bound(node.input(1), float("-inf")), _bound(node.input(2), float("inf"))


def _bound(value: Value | None, default: float) -> float:
    content = known(value)
    return default if content is None else float(content.reshape(-1)[0])
