"""Gradient (`ai.onnx.preview.training`): the chain rule, backwards through the nodes that lie between.

Operators that have a rule here can be differentiated; others are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partita.errors import UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.optimizers import DOMAIN
from partita.ir.operators.registry import becomes
from partita.ir.types import TensorType

Rule = Callable[[Builder, Node, Value], Sequence[Value | None]]
"""From the gradient of a node's output to those of its operands; None where there is none."""

RULES: dict[str, Rule] = {}


def differentiates(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@becomes("Gradient", domain=DOMAIN)
def gradient(build: Builder, node: Node) -> list[Value]:
    """The derivatives of the sum of `y` by the tensors `xs`; those of `zs` stay as they are."""
    attributes, graph = node.attributes, build.graph
    xs = attributes["xs"]
    named = [graph.value_named(name) for name in (*xs, *attributes.get("zs", ()))]
    y = graph.value_named(attributes["y"])
    if y is None or any(value is not operand for value, operand in zip(named, node.operands, strict=True)):
        raise UnsupportedOperatorError(
            f"{node.describe()}: its operands must be the tensors that xs and zs name, and y one of the graph's"
        )
    sources = set(node.operands[: len(xs)])
    found = _backwards(build, node, y, sources, set(node.operands))
    return [found[x] if x in found else _zeros(build, x) for x in node.operands[: len(xs)]]


def _backwards(build: Builder, node: Node, y: Value, sources: set[Value], fixed: set[Value]) -> dict[Value, Value]:
    """The gradients of `y` by all values on the way from `sources`."""
    nodes = build.graph.nodes
    varying = set(sources)
    for inner in nodes:
        if varying.intersection(inner.operands):
            varying.update(output for output in inner.outputs if output not in fixed)
    found = {y: build("Expand", build.scalar(1, y), build("Shape", y))} if y in varying else {}
    for inner in reversed(nodes):
        if not any(output in found and output not in fixed for output in inner.outputs):
            continue
        rule = RULES.get(inner.op_type) if inner.domain == "" else None
        if rule is None or len(inner.outputs) != 1:
            raise UnsupportedOperatorError(f"{node.describe()}: there is no rule to differentiate {inner.describe()}")
        for operand, term in zip(inner.inputs, rule(build, inner, found[inner.output]), strict=False):
            if operand is not None and term is not None and operand in varying:
                term = _summed_to(build, node, term, operand)
                found[operand] = build("Add", found[operand], term) if operand in found else term
    return found


def _zeros(build: Builder, x: Value) -> Value:
    return build("Expand", build.scalar(0, x), build("Shape", x))


def _summed_to(build: Builder, node: Node, term: Value, like: Value) -> Value:
    """A gradient summed over the axes along which its operand was broadcast."""
    extra = len(term.shape) - len(like.shape)
    axes = list(range(extra))
    for axis, (wide, own) in enumerate(zip(term.shape[extra:], like.shape, strict=True), start=extra):
        if dims.same(wide, own):
            continue
        if not dims.is_static(own) or own != 1:
            raise UnsupportedOperatorError(f"{node.describe()}: it is not known whether {like.name!r} is broadcast")
        axes.append(axis)
    if not axes:
        return term
    total = build("ReduceSum", term, build.ints(axes), keepdims=1)
    return build("Squeeze", total, build.ints(range(extra))) if extra else total


# ---------------------------------------------------------------------- rules


def _times(build: Builder, *factors: Value) -> Value:
    result = factors[0]
    for factor in factors[1:]:
        result = build("Mul", result, factor)
    return result


def _complement(build: Builder, x: Value) -> Value:
    return build("Sub", build.scalar(1, x), x)


def _div(build: Builder, node: Node, g: Value) -> list[Value]:
    first = build("Div", g, node.operand(1))
    return [first, build("Neg", _times(build, first, node.output))]


def _relu(build: Builder, node: Node, g: Value) -> list[Value]:
    zero = build.scalar(0, g)
    return [build("Where", build("Greater", node.operand(0), zero), g, zero)]


RULES |= {
    "Add": lambda build, node, g: [g, g],
    "Sub": lambda build, node, g: [g, build("Neg", g)],
    "Mul": lambda build, node, g: [_times(build, g, node.operand(1)), _times(build, g, node.operand(0))],
    "Div": _div,
    "Neg": lambda build, node, g: [build("Neg", g)],
    "Identity": lambda build, node, g: [g],
    "Exp": lambda build, node, g: [_times(build, g, node.output)],
    "Log": lambda build, node, g: [build("Div", g, node.operand(0))],
    "Sqrt": lambda build, node, g: [build("Div", build.affine(g, 0.5), node.output)],
    "Tanh": lambda build, node, g: [_times(build, g, _complement(build, _times(build, node.output, node.output)))],
    "Sigmoid": lambda build, node, g: [_times(build, g, node.output, _complement(build, node.output))],
    "Relu": _relu,
}


@differentiates("MatMul")
def _mat_mul(build: Builder, node: Node, g: Value) -> list[Value]:
    a, b = node.operand(0), node.operand(1)
    if min(len(a.shape), len(b.shape)) < 2:
        raise UnsupportedOperatorError(
            f"{node.describe()}: products with vectors cannot be differentiated; use matrices"
        )
    return [build("MatMul", g, _turned(build, b)), build("MatMul", _turned(build, a), g)]


def _turned(build: Builder, x: Value) -> Value:
    """The last two axes exchanged."""
    rank = len(x.shape)
    return build("Transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2))


@differentiates("Transpose")
def _transpose(build: Builder, node: Node, g: Value) -> list[Value]:
    rank = len(g.shape)
    order = node.attributes.get("perm", tuple(reversed(range(rank))))
    return [build("Transpose", g, perm=tuple(order.index(axis) for axis in range(rank)))]


@differentiates("Reshape", "Squeeze", "Unsqueeze", "Flatten")
def _reshape(build: Builder, node: Node, g: Value) -> list[Value | None]:
    return [build("Reshape", g, build("Shape", node.operand(0))), None]


@differentiates("ReduceSum", "ReduceMean")
def _reduce(build: Builder, node: Node, g: Value) -> list[Value | None]:
    """Every element gets the gradient of its sum; of a mean, its share."""
    x = node.operand(0)
    axes = node.input(1)
    if not node.attributes.get("keepdims", 1):
        rank = len(x.shape)
        g = build("Unsqueeze", g, build.ints(range(rank)) if axes is None else axes)
    result = build("Expand", g, build("Shape", x))
    if node.op_type == "ReduceMean" and isinstance(node.output.type, TensorType):
        counts = (build("Cast", build("Size", value), to=g.tensor.dtype.onnx) for value in (node.output, x))
        result = _times(build, result, build("Div", *counts))
    return [result, None]
