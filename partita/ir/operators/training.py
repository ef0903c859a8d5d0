"""Training (`ai.onnx.preview.training`): what new parameters and moments are made of, and the gradients they need: the
chain rule, backwards through the nodes that lie between.

Operators that have a rule in `RULES` can be differentiated; others are refused by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from partita.errors import UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.registry import becomes, decomposes
from partita.ir.types import DType, TensorType

DOMAIN = "ai.onnx.preview.training"
Step = Callable[..., Sequence[Value]]
"""From a builder, a node, the rate, the number of steps so far, a parameter, its gradient and its moments to the
parameter and its moments after this step."""


def trains(name: str, moments: int) -> Callable[[Step], Step]:
    """Declares the step of an operator on one parameter; its operands list those of all parameters kind by kind."""

    def register(step: Step) -> Step:
        def decompose(build: Builder, node: Node, rate: Value, count: Value, *rest: Value) -> list[Value]:
            parameters = len(rest) // (2 + moments)
            groups = (rest[place::parameters] for place in range(parameters))
            results = [step(build, node, build.cast(rate, own[0].tensor.dtype), count, *own) for own in groups]
            return [result for kind in zip(*results, strict=True) for result in kind]

        decomposes(name, domain=DOMAIN)(decompose)
        return step

    return register


def regularized(build: Builder, node: Node, x: Value, gradient: Value) -> Value:
    """The gradient, with that of a penalty on large parameters."""
    return build("Add", build.affine(x, node.attributes.get("norm_coefficient", 0.0)), gradient)


def spread(build: Builder, node: Node, squares: Value) -> Value:
    """What a step is divided by: the usual size of gradients."""
    return build("Add", build("Sqrt", squares), node.attributes.get("epsilon", 1e-6))


@trains("Momentum", moments=1)
def momentum(
    build: Builder, node: Node, rate: Value, count: Value, x: Value, gradient: Value, velocity: Value
) -> list[Value]:
    slope, alpha = regularized(build, node, x, gradient), node.attributes["alpha"]
    # The first gradient counts in full.
    share = build("Where", build("LessOrEqual", count, 0), build.scalar(1, x), build.scalar(node.attributes["beta"], x))
    new = build("Add", build.affine(velocity, alpha), build("Mul", share, slope))
    is_nesterov = node.attributes["mode"] == "nesterov"
    move = build("Add", slope, build.affine(new, alpha)) if is_nesterov else new
    return [build("Sub", x, build("Mul", rate, move)), new]


@trains("Adam", moments=2)
def adam(
    build: Builder, node: Node, rate: Value, count: Value, x: Value, gradient: Value, first: Value, second: Value
) -> list[Value]:
    alpha, beta = node.attributes.get("alpha", 0.9), node.attributes.get("beta", 0.999)
    slope = regularized(build, node, x, gradient)
    first = build("Add", build.affine(first, alpha), build.affine(slope, 1 - alpha))
    second = build("Add", build.affine(second, beta), build.affine(build("Mul", slope, slope), 1 - beta))
    step = build("Mul", adjusted(build, rate, count, alpha, beta), build("Div", first, spread(build, node, second)))
    new = build("Sub", x, step)
    return [build.affine(new, 1 - node.attributes.get("norm_coefficient_post", 0.0)), first, second]


def adjusted(build: Builder, rate: Value, count: Value, alpha: float, beta: float) -> Value:
    """The rate, corrected for moments that start from 0; none at the first step, as there is nothing to correct."""
    steps = build.cast(count, DType.FLOAT64)  # beta is near 1: its powers want the digits
    rests = [build("Sub", 1, build("Pow", base, steps)) for base in (beta, alpha)]
    factor = build.cast(build("Div", build("Sqrt", rests[0]), rests[1]), rate.tensor.dtype)
    return build("Where", build("LessOrEqual", count, 0), rate, build("Mul", rate, factor))


@trains("Adagrad", moments=1)
def adagrad(
    build: Builder, node: Node, rate: Value, count: Value, x: Value, gradient: Value, squares: Value
) -> list[Value]:
    steps = build.affine(build.cast(count, rate.tensor.dtype), node.attributes.get("decay_factor", 0.0), 1.0)
    slope = regularized(build, node, x, gradient)
    squares = build("Add", squares, build("Mul", slope, slope))
    step = build("Mul", build("Div", rate, steps), slope)
    return [build("Sub", x, build("Div", step, spread(build, node, squares))), squares]


# ---------------------------------------------------------------------- gradients


@becomes("Gradient", domain=DOMAIN)
def gradient(build: Builder, node: Node) -> list[Value]:
    """The derivatives of the sum of `y` by the tensors `xs`; those of `zs` stay as they are."""
    attributes, named = node.attributes, build.graph.value_named
    xs, y = attributes["xs"], named(attributes["y"])
    if y is None or tuple(map(named, (*xs, *attributes.get("zs", ())))) != node.operands:
        raise UnsupportedOperatorError(
            f"{node.describe()}: its operands must be the tensors that xs and zs name, and y one of the graph's"
        )
    sources = node.operands[: len(xs)]
    found = _backwards(build, node, y, set(sources), set(node.operands))
    return [found[x] if x in found else _everywhere(build, 0, x) for x in sources]


def _backwards(build: Builder, node: Node, y: Value, sources: set[Value], fixed: set[Value]) -> dict[Value, Value]:
    """The gradients of `y` by all values on the way from `sources`."""
    nodes = build.graph.nodes
    varying = set(sources)
    for inner in nodes:
        if varying.intersection(inner.operands):
            varying.update(output for output in inner.outputs if output not in fixed)
    found = {y: _everywhere(build, 1, y)} if y in varying else {}
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


def _everywhere(build: Builder, number: float, like: Value) -> Value:
    return build("Expand", build.scalar(number, like), build("Shape", like))


def _summed_to(build: Builder, node: Node, term: Value, like: Value) -> Value:
    """A gradient summed over the axes along which its operand was broadcast."""
    extra = len(term.shape) - len(like.shape)
    axes = [*range(extra)]
    for axis, (wide, own) in enumerate(zip(term.shape[extra:], like.shape, strict=True), start=extra):
        if dims.same(wide, own):
            continue
        if not dims.is_static(own) or own != 1:
            raise UnsupportedOperatorError(f"{node.describe()}: it is not known whether {like.name!r} is broadcast")
        axes.append(axis)
    if not axes:
        return term
    total = build("ReduceSum", term, axes, keepdims=1)
    return build("Squeeze", total, range(extra)) if extra else total


def _times(build: Builder, *factors: Value) -> Value:
    return functools.reduce(functools.partial(build, "Mul"), factors)


def _div(build: Builder, node: Node, g: Value) -> list[Value]:
    first = build("Div", g, node.operand(1))
    return [first, build("Neg", _times(build, first, node.output))]


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


def _transpose(build: Builder, node: Node, g: Value) -> list[Value]:
    axes = range(len(g.shape))
    order = node.attributes.get("perm", tuple(reversed(axes)))
    return [build("Transpose", g, perm=tuple(map(order.index, axes)))]


def _reshape(build: Builder, node: Node, g: Value) -> list[Value | None]:
    return [build("Reshape", g, build("Shape", node.operand(0))), None]


def _reduce(build: Builder, node: Node, g: Value) -> list[Value | None]:
    """Every element gets the gradient of its sum; of a mean, its share."""
    x, axes = node.operand(0), node.input(1)
    if not node.attributes.get("keepdims", 1):
        g = build("Unsqueeze", g, range(len(x.shape)) if axes is None else axes)
    result = build("Expand", g, build("Shape", x))
    if node.op_type == "ReduceMean" and isinstance(node.output.type, TensorType):
        counts = (build.cast(build("Size", value), g.tensor.dtype) for value in (node.output, x))
        result = _times(build, result, build("Div", *counts))
    return [result, None]


Rule = Callable[[Builder, Node, Value], Sequence[Value | None]]
"""From the gradient of a node's output to those of its operands; None where there is none."""

RULES: dict[str, Rule] = {
    "Add": lambda build, node, g: [g, g],
    "Sub": lambda build, node, g: [g, build("Neg", g)],
    "Mul": lambda build, node, g: [_times(build, g, node.operand(1)), _times(build, g, node.operand(0))],
    "Div": _div,
    "Neg": lambda build, node, g: [build("Neg", g)],
    "Identity": lambda build, node, g: [g],
    "Exp": lambda build, node, g: [_times(build, g, node.output)],
    "Log": lambda build, node, g: [build("Div", g, node.operand(0))],
    "Sqrt": lambda build, node, g: [build("Div", build.affine(g, 0.5), node.output)],
    "Tanh": lambda build, node, g: [_times(build, g, build("Sub", 1, _times(build, node.output, node.output)))],
    "Sigmoid": lambda build, node, g: [_times(build, g, node.output, build("Sub", 1, node.output))],
    "Relu": lambda build, node, g: [build("Where", build("Greater", node.operand(0), 0), g, 0)],
    "MatMul": _mat_mul,
    "Transpose": _transpose,
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze", "Flatten"), _reshape),
    **dict.fromkeys(("ReduceSum", "ReduceMean"), _reduce),
}
