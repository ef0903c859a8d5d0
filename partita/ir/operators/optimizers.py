"""Training steps of the domain `ai.onnx.preview.training`: what new parameters and moments are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.registry import Decompose, decomposes
from partita.ir.types import DType

DOMAIN = "ai.onnx.preview.training"
Step = Callable[[Builder, Node, Sequence[Value]], Sequence[Value]]
"""From the rate, the number of steps so far, a parameter, its gradient and its moments to the parameter and its moments
after this step."""


def trains(name: str, moments: int) -> Callable[[Step], Step]:
    """Declares the step of an operator on one parameter; its operands list those of all parameters kind by kind."""

    def register(step: Step) -> Step:
        def decompose(build: Builder, node: Node) -> list[Value]:
            rate, count, *rest = node.operands
            parameters = len(rest) // (2 + moments)
            results = []
            for place in range(parameters):
                own = rest[place::parameters]
                results.append(step(build, node, [build("Cast", rate, to=own[0].tensor.dtype.onnx), count, *own]))
            return [result for kind in zip(*results, strict=True) for result in kind]

        expansion: Decompose = decompose
        decomposes(name, domain=DOMAIN)(expansion)
        return step

    return register


def regularized(build: Builder, node: Node, x: Value, gradient: Value) -> Value:
    """The gradient, with that of a penalty on large parameters."""
    return build("Add", build.affine(x, node.attributes.get("norm_coefficient", 0.0)), gradient)


def is_first(build: Builder, count: Value) -> Value:
    return build("LessOrEqual", count, build.scalar(0, count))


@trains("Momentum", moments=1)
def momentum(build: Builder, node: Node, operands: Sequence[Value]) -> list[Value]:
    rate, count, x, gradient, velocity = operands
    slope = regularized(build, node, x, gradient)
    # The first gradient counts in full.
    share = build("Where", is_first(build, count), build.scalar(1, x), build.scalar(node.attributes["beta"], x))
    alpha = node.attributes["alpha"]
    new = build("Add", build.affine(velocity, alpha), build("Mul", share, slope))
    is_nesterov = node.attributes["mode"] == "nesterov"
    move = build("Add", slope, build.affine(new, alpha)) if is_nesterov else new
    return [build("Sub", x, build("Mul", rate, move)), new]


@trains("Adam", moments=2)
def adam(build: Builder, node: Node, operands: Sequence[Value]) -> list[Value]:
    rate, count, x, gradient, first, second = operands
    alpha, beta = node.attributes.get("alpha", 0.9), node.attributes.get("beta", 0.999)
    slope = regularized(build, node, x, gradient)
    first = build("Add", build.affine(first, alpha), build.affine(slope, 1 - alpha))
    second = build("Add", build.affine(second, beta), build.affine(build("Mul", slope, slope), 1 - beta))
    spread = build("Add", build("Sqrt", second), build.scalar(node.attributes.get("epsilon", 1e-6), x))
    step = build("Mul", adjusted(build, rate, count, alpha, beta), build("Div", first, spread))
    new = build("Sub", x, step)
    return [build.affine(new, 1 - node.attributes.get("norm_coefficient_post", 0.0)), first, second]


def adjusted(build: Builder, rate: Value, count: Value, alpha: float, beta: float) -> Value:
    """The rate, corrected for moments that start from 0; none at the first step, as there is nothing to correct."""
    steps = build("Cast", count, to=DType.FLOAT64.onnx)  # beta is near 1: its powers want the digits
    one = build.scalar(1, steps)
    rests = [build("Sub", one, build("Pow", build.scalar(base, steps), steps)) for base in (beta, alpha)]
    factor = build("Cast", build("Div", build("Sqrt", rests[0]), rests[1]), to=rate.tensor.dtype.onnx)
    return build("Where", is_first(build, count), rate, build("Mul", rate, factor))


@trains("Adagrad", moments=1)
def adagrad(build: Builder, node: Node, operands: Sequence[Value]) -> list[Value]:
    rate, count, x, gradient, squares = operands
    decay = build.scalar(node.attributes.get("decay_factor", 0.0), rate)
    steps = build("Cast", count, to=rate.tensor.dtype.onnx)
    rate = build("Div", rate, build("Add", build.scalar(1, rate), build("Mul", steps, decay)))
    slope = regularized(build, node, x, gradient)
    squares = build("Add", squares, build("Mul", slope, slope))
    spread = build("Add", build("Sqrt", squares), build.scalar(node.attributes.get("epsilon", 1e-6), x))
    return [build("Sub", x, build("Div", build("Mul", rate, slope), spread)), squares]
