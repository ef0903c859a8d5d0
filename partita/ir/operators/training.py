"""Training (`ai.onnx.preview.training`): what new parameters and moments are made of, and the gradients they need: the
chain rule, backwards through the nodes that lie between.

Operators that have a rule in `RULES` can be differentiated; others are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partita.errors import UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.registry import becomes, decomposes
from partita.ir.types import DType

DOMAIN = "ai.onnx.preview.training"


@decomposes("Adagrad", "Adam", "Momentum", domain=DOMAIN)
def train(
    build: Builder, node: Node, rate: Value, count: Value, *rest: Value, norm_coefficient: float = 0.0
) -> list[Value]:
    """One step of every parameter. Operands list parameters, gradients and moments kind by kind, as results do."""
    step, moments = STEPS[node.op_type]
    attributes = {key: value for key, value in node.attributes.items() if key != "norm_coefficient"}
    parameters, results = len(rest) // (2 + moments), []
    for x, gradient, *own in (rest[place::parameters] for place in range(parameters)):
        slope = build("Add", build.affine(x, norm_coefficient), gradient)
        results.append(step(build, build.cast(rate, x.tensor.dtype), count, x, slope, *own, **attributes))
    return [result for kind in zip(*results, strict=True) for result in kind]


def momentum(
    build: Builder, rate: Value, count: Value, x: Value, slope: Value, velocity: Value, *,
    alpha: float, beta: float, mode: str,
) -> list[Value]:  # fmt: skip
    # The first gradient counts in full.
    share = build("Where", build("LessOrEqual", count, 0), build.scalar(1, x), build.scalar(beta, x))
    new = build("Add", build.affine(velocity, alpha), build("Mul", share, slope))
    move = build("Add", slope, build.affine(new, alpha)) if mode == "nesterov" else new
    return [build("Sub", x, build("Mul", rate, move)), new]


def adam(
    build: Builder, rate: Value, count: Value, x: Value, slope: Value, first: Value, second: Value, *,
    alpha: float = 0.9, beta: float = 0.999, epsilon: float = 1e-6, norm_coefficient_post: float = 0.0,
) -> list[Value]:  # fmt: skip
    """The rate is corrected for moments that start from 0, but at the first step, when there is nothing to correct."""
    first = build("Add", build.affine(first, alpha), build.affine(slope, 1 - alpha))
    second = build("Add", build.affine(second, beta), build.affine(build("Mul", slope, slope), 1 - beta))
    steps = build.cast(count, DType.FLOAT64)  # beta is near 1: its powers want the digits
    rests = [build("Sub", 1, build("Pow", base, steps)) for base in (beta, alpha)]
    factor = build.cast(build("Div", build("Sqrt", rests[0]), rests[1]), rate.tensor.dtype)
    rate = build("Where", build("LessOrEqual", count, 0), rate, build("Mul", rate, factor))
    step = build("Mul", rate, build("Div", first, build("Add", build("Sqrt", second), epsilon)))
    return [build.affine(build("Sub", x, step), 1 - norm_coefficient_post), first, second]


def adagrad(
    build: Builder, rate: Value, count: Value, x: Value, slope: Value, squares: Value, *,
    decay_factor: float = 0.0, epsilon: float = 1e-6,
) -> list[Value]:  # fmt: skip
    steps = build.affine(build.cast(count, rate.tensor.dtype), decay_factor, 1.0)
    squares = build("Add", squares, build("Mul", slope, slope))
    step = build("Mul", build("Div", rate, steps), slope)
    return [build("Sub", x, build("Div", step, build("Add", build("Sqrt", squares), epsilon))), squares]


Step = Callable[..., Sequence[Value]]
"""From a builder, the rate, the number of steps so far, a parameter, its slope (the gradient and a share of itself) and
its moments, and the attributes, to the parameter and its moments after this step."""

STEPS: dict[str, tuple[Step, int]] = {"Adagrad": (adagrad, 1), "Adam": (adam, 2), "Momentum": (momentum, 1)}
"""And how many moments a parameter has."""


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
    zeros = {x: build("Expand", build.scalar(0, x), build("Shape", x)) for x in sources if x not in found}
    return [(found | zeros)[x] for x in sources]


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
        if inner.domain or inner.op_type not in RULES or len(inner.outputs) != 1:
            raise UnsupportedOperatorError(f"{node.describe()}: there is no rule to differentiate {inner.describe()}")
        terms = RULES[inner.op_type](build, inner, found[inner.output], *inner.inputs)
        for operand, term in zip(inner.inputs, terms, strict=False):
            if operand in varying:
                term = _summed_to(build, node, term, operand)
                found[operand] = build("Add", found[operand], term) if operand in found else term
    return found


def _summed_to(build: Builder, node: Node, term: Value, like: Value) -> Value:
    """A gradient summed over the axes along which its operand was broadcast."""
    extra = len(term.shape) - len(like.shape)
    others = [n for n, own in enumerate(like.shape) if not dims.same(term.shape[extra + n], own)]
    if not all(dims.is_one(like.shape[n]) for n in others):
        raise UnsupportedOperatorError(f"{node.describe()}: it is not known whether {like.name!r} is broadcast")
    axes = [*range(extra), *(extra + n for n in others)]
    total = build("ReduceSum", term, axes) if axes else term
    return build("Squeeze", total, range(extra)) if extra else total


def _mat_mul(build: Builder, node: Node, g: Value, a: Value, b: Value) -> list[Value]:
    if min(len(a.shape), len(b.shape)) < 2:
        raise UnsupportedOperatorError(
            f"{node.describe()}: products with vectors cannot be differentiated; use matrices"
        )
    return [build("MatMul", g, _turned(build, b)), build("MatMul", _turned(build, a), g)]


def _turned(build: Builder, x: Value) -> Value:
    """The last two axes exchanged."""
    rank = len(x.shape)
    return build("Transpose", x, perm=(*range(rank - 2), rank - 1, rank - 2))


def _transpose(build: Builder, node: Node, g: Value, x: Value) -> list[Value]:
    axes = range(len(g.shape))
    return [build("Transpose", g, perm=tuple(map(node.attributes.get("perm", axes[::-1]).index, axes)))]


def _reduce(build: Builder, node: Node, g: Value, x: Value, axes: Value | None = None) -> list[Value]:
    """Every element gets the gradient of its sum; of a mean, its share."""
    if not node.attributes.get("keepdims", 1):
        g = build("Unsqueeze", g, range(len(x.shape)) if axes is None else axes)
    result = build("Expand", g, build("Shape", x))
    if node.op_type == "ReduceMean":
        counts = (build.cast(build("Size", value), g.tensor.dtype) for value in (node.output, x))
        result = build("Mul", result, build("Div", *counts))
    return [result]


Rule = Callable[..., Sequence[Value]]
"""From a builder, a node, the gradient of its output and its operands to their gradients, but for the last that have
none."""

RULES: dict[str, Rule] = {
    "Add": lambda build, node, g, a, b: [g, g],
    "Sub": lambda build, node, g, a, b: [g, build("Neg", g)],
    "Mul": lambda build, node, g, a, b: [build("Mul", g, b), build("Mul", g, a)],
    "Div": lambda build, node, g, a, b: [
        build("Div", g, b),
        build("Neg", build("Mul", build("Div", g, b), node.output)),
    ],
    "Neg": lambda build, node, g, x: [build("Neg", g)],
    "Identity": lambda build, node, g, x: [g],
    "Exp": lambda build, node, g, x: [build("Mul", g, node.output)],
    "Log": lambda build, node, g, x: [build("Div", g, x)],
    "Sqrt": lambda build, node, g, x: [build("Div", build.affine(g, 0.5), node.output)],
    "Tanh": lambda build, node, g, x: [build("Mul", g, build("Sub", 1, build("Mul", node.output, node.output)))],
    "Sigmoid": lambda build, node, g, x: [build("Mul", build("Mul", g, node.output), build("Sub", 1, node.output))],
    "Relu": lambda build, node, g, x: [build("Where", build("Greater", x, 0), g, 0)],
    "MatMul": _mat_mul,
    "Transpose": _transpose,
    **dict.fromkeys(("ReduceSum", "ReduceMean"), _reduce),
    **dict.fromkeys(
        ("Reshape", "Squeeze", "Unsqueeze", "Flatten"),
        lambda build, node, g, x, *_: [build("Reshape", g, build("Shape", x))],
    ),
}
