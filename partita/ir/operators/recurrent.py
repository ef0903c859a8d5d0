"""Recurrent layers: RNN, GRU and LSTM.

Each direction is one matrix product over all steps, for what depends on the input alone, and a Loop over the steps, in
which the state is multiplied with the recurrent weights. State, batch and gates are `[batch, hidden]` each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from partita.errors import UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN, vector_of
from partita.ir.operators.older import attribute_dropped, value_renamed
from partita.ir.operators.registry import decomposes, infers
from partita.ir.operators.scan import backward, capture, length_of, loop_body, place_of
from partita.ir.types import DType, TensorType, Type

Activation = Callable[[Builder, Value], Value]
Values = tuple[Value, ...]

attribute_dropped("RNN", "GRU", "LSTM", before=7, attributes=["output_sequence"])
value_renamed("GRU", before=3, attribute="direction", values={"foward": "forward"})


@dataclass(frozen=True, slots=True)
class Cell:
    """What a layer does in one step, in one direction. `step(inner, x, state, weights)` gives the new state, hidden
    first: `x` is the input's share of all gates, with the sum of `biases`; `weights` are what it reads besides."""

    state: int  # tensors
    weights: Values
    biases: Values
    step: Callable[[Builder, Value, Values, Values], Values]


MakeCell = Callable[[int, Value, Values], Cell]
"""From a direction, its recurrent weights `[hidden, gates * hidden]`, and its biases of all gates: the input's and the
state's, or none."""


# ---------------------------------------------------------------------- activations

_DEFAULTS: dict[str, tuple[float, ...]] = {  # of alpha and beta
    **dict.fromkeys(("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus"), ()), "LeakyRelu": (0.01,), "Elu": (1.0,),
    "ThresholdedRelu": (1.0,), "HardSigmoid": (0.2, 0.5), "Affine": (1.0, 0.0), "ScaledTanh": (1.0, 1.0),
}  # fmt: skip


def activations(node: Node, defaults: Sequence[str], direction: int) -> list[Activation]:
    """The functions of one direction. `activation_alpha` and `activation_beta` go to those that take one, in order."""
    given = node.attributes.get("activations", tuple(defaults) * 2)
    alphas, betas = (iter(node.attributes.get(f"activation_{name}", ())) for name in ("alpha", "beta"))
    return [_activation(node, name, alphas, betas) for name in given][direction * len(defaults) :][: len(defaults)]


def _activation(node: Node, given: str, *sources: Iterator[float]) -> Activation:
    name = next((name for name in _DEFAULTS if name.lower() == given.lower()), None)
    if name is None:
        raise UnsupportedOperatorError(f"{node.describe()}: the activation {given!r} is unknown to ONNX")
    numbers = [next(source, default) for source, default in zip(sources, _DEFAULTS[name], strict=False)]
    if name == "Affine":
        return lambda build, x: build.affine(x, *numbers)
    if name == "ScaledTanh":
        return lambda build, x: build.affine(build("Tanh", build.affine(x, numbers[1])), numbers[0])
    attributes: dict[str, Any] = dict(zip(("alpha", "beta"), numbers, strict=False))
    return lambda build, x: build(name, x, **attributes)


def _clipped(node: Node, build: Builder, x: Value) -> Value:
    limit = node.attributes.get("clip")
    return x if limit is None else build("Clip", x, -limit, limit)


# ---------------------------------------------------------------------- parts of weights


def part(build: Builder, value: Value, index: int) -> Value:
    """The weights of one direction, of all directions."""
    return build("Gather", value, build.constant(index, DType.INT64), axis=0)


def equal_parts(build: Builder, value: Value, count: int) -> Values:
    """The last axis, such as `[batch, count * hidden]`, as one tensor a gate."""
    return build.node("Split", value, outputs=count, axis=-1, num_outputs=count)


def cut(build: Builder, value: Value, first: Dim) -> Values:
    """The last axis as its `first` elements and the rest."""
    sizes = vector_of(build, [first, dims.simplified(value.shape[-1] - first)])
    return build.node("Split", value, sizes, outputs=2, axis=-1)


# ---------------------------------------------------------------------- the layers


@decomposes("RNN")
def rnn(build: Builder, node: Node) -> Sequence[Value]:
    def cell(direction: int, weight: Value, biases: Values) -> Cell:
        (f,) = activations(node, ["Tanh"], direction)

        def step(inner: Builder, x: Value, state: Values, weights: Values) -> Values:
            total = inner("Add", inner("MatMul", state[0], weights[0]), x)
            return (f(inner, _clipped(node, inner, total)),)

        return Cell(1, (weight,), biases, step)

    return _layer(build, node, cell)


@decomposes("LSTM")
def lstm(build: Builder, node: Node) -> Sequence[Value]:
    def cell(direction: int, weight: Value, biases: Values) -> Cell:
        f, g, h = activations(node, ["Sigmoid", "Tanh", "Tanh"], direction)
        given = node.input(7)
        peepholes = () if given is None else equal_parts(build, part(build, given, direction), 3)

        def step(inner: Builder, x: Value, state: Values, weights: Values) -> Values:
            hidden, memory = state

            def seen(gate: Value, place: int, content: Value) -> Value:
                if peepholes:
                    gate = inner("Add", gate, inner("Mul", weights[1 + place], content))
                return _clipped(node, inner, gate)

            total = inner("Add", inner("MatMul", hidden, weights[0]), x)
            i, o, f_, c = equal_parts(inner, total, 4)
            i = f(inner, seen(i, 0, memory))
            is_tied = node.attributes.get("input_forget", 0)
            forget = inner("Sub", 1, i) if is_tied else f(inner, seen(f_, 2, memory))
            fresh = g(inner, _clipped(node, inner, c))
            kept = inner("Add", inner("Mul", forget, memory), inner("Mul", i, fresh))
            o = f(inner, seen(o, 1, kept))
            return inner("Mul", o, h(inner, kept)), kept

        return Cell(2, (weight, *peepholes), biases, step)

    return _layer(build, node, cell)


@decomposes("GRU")
def gru(build: Builder, node: Node) -> Sequence[Value]:
    """With `linear_before_reset` the candidate's product is reset, its bias too, and not the state before it."""
    gates = 2 * node.operand(2).shape[2]  # elements of update and reset; then the candidate's
    is_linear_first = bool(node.attributes.get("linear_before_reset", 0))

    def cell(direction: int, weight: Value, biases: Values) -> Cell:
        f, g = activations(node, ["Sigmoid", "Tanh"], direction)
        weights = cut(build, weight, gates)
        if is_linear_first and biases:
            own, late = (cut(build, b, gates)[1] for b in biases)
            early = cut(build, build("Add", *biases), gates)[0]
            biases, weights = (build("Concat", early, own, axis=0),), (*weights, late)

        def step(inner: Builder, x: Value, state: Values, weights: Values) -> Values:
            (old,) = state
            early, late = cut(inner, x, gates)
            total = inner("Add", inner("MatMul", old, weights[0]), early)
            z, r = (f(inner, _clipped(node, inner, gate)) for gate in equal_parts(inner, total, 2))
            if is_linear_first:
                linear = inner("MatMul", old, weights[1])
                linear = inner("Add", linear, weights[2]) if len(weights) > 2 else linear
                total = inner("Add", late, inner("Mul", r, linear))
            else:
                total = inner("Add", late, inner("MatMul", inner("Mul", r, old), weights[1]))
            fresh = g(inner, _clipped(node, inner, total))
            return (inner("Add", inner("Mul", inner("Sub", 1, z), fresh), inner("Mul", z, old)),)

        return Cell(1, weights, biases, step)

    return _layer(build, node, cell)


@infers("RNN", "GRU", "LSTM")
def layer_types(
    node: Node, x: Value, _: Value, weights: Value, *, layout: int = 0, direction: str = ""
) -> Sequence[Type]:
    """What all steps gave; then the last states."""
    (first, second), count, hidden = x.shape[:2], 2 if direction == "bidirectional" else 1, weights.shape[2]
    steps = (first, second, count, hidden) if layout else (first, count, second, hidden)
    last = (first, count, hidden) if layout else (count, second, hidden)
    return [TensorType(x.tensor.dtype, shape) for shape in (steps, last, last)][: len(node.outputs)]


# ---------------------------------------------------------------------- the steps


def _layer(build: Builder, node: Node, cell: MakeCell) -> Sequence[Value]:
    """All directions, and the outputs as the layout wants them."""
    is_batch_first, name = bool(node.attributes.get("layout", 0)), node.attributes.get("direction", "forward")
    x, bias, found = node.operand(0), node.input(3), []
    x = build("Transpose", x, perm=(1, 0, 2)) if is_batch_first else x
    for d in range(2 if name == "bidirectional" else 1):
        w, r = (build("Transpose", part(build, node.operand(n), d), perm=(1, 0)) for n in (1, 2))
        biases = () if bias is None else equal_parts(build, part(build, bias, d), 2)
        found.append(_direction(build, node, x, w, cell(d, r, biases), d, is_backward=name == "reverse" or d == 1))
    outputs: list[Value] = []
    for place, parts in enumerate(zip(*found, strict=True)):
        axis = 1 if place == 0 else 0
        wide = [build("Unsqueeze", p, [axis]) for p in parts]
        joined = build("Concat", *wide, axis=axis) if len(wide) > 1 else wide[0]
        perm = (2, 0, 1, 3) if place == 0 else (1, 0, 2)
        outputs.append(build("Transpose", joined, perm=perm) if is_batch_first else joined)
    return outputs


def _direction(
    build: Builder, node: Node, x: Value, w: Value, cell: Cell, direction: int, *, is_backward: bool
) -> Values:
    """What each step gave, `[steps, batch, hidden]`, and the last state, `[batch, hidden]` each."""
    lengths, gates = node.input(4), build("MatMul", x, w)
    if cell.biases:
        gates = build("Add", gates, functools.reduce(functools.partial(build, "Add"), cell.biases))
    reverse = functools.partial(build, "ReverseSequence", time_axis=0, batch_axis=1)
    if lengths is not None:
        lengths = build.cast(lengths, DType.INT64)
        gates = reverse(gates, lengths) if is_backward else gates
    states = [_initial(build, node, node.input(5 + n), gates, direction) for n in range(cell.state)]
    outside = [length_of(build, x, 0), gates, *cell.weights, *([lengths] if lengths else [])]
    body, step, again = loop_body(build, "steps")
    inner = Builder(body, node.name)
    old = tuple(body.add_input(body.unique_name("state"), value.type) for value in states)
    shared = capture(body, outside)
    weights = tuple(shared[2 : len(shared) - (lengths is not None)])
    place = place_of(inner, step, shared[0], is_backward and lengths is None)
    new = cell.step(inner, inner("Element", shared[1], place, domain=DOMAIN), old, weights)
    result = new[0]
    if lengths is not None:
        is_running = inner("Unsqueeze", inner("Less", step, shared[-1]), [1])
        new = tuple(inner("Where", is_running, a, b) for a, b in zip(new, old, strict=True))
        result = inner("Where", is_running, result, 0)
    body.set_outputs([again, *new, result])
    *last, all_steps = build.node(
        "Loop", outside[0], None, *states, *outside, outputs=1 + len(states), body=body, captures=len(outside)
    )
    if is_backward:
        all_steps = backward(build, all_steps) if lengths is None else reverse(all_steps, lengths)
    return (all_steps, *last)


def _initial(build: Builder, node: Node, given: Value | None, gates: Value, direction: int) -> Value:
    """The state before the first step: `[batch, hidden]`, zeros where none is given."""
    if given is not None:
        axis = 1 if node.attributes.get("layout", 0) else 0
        return build("Gather", given, build.constant(direction, DType.INT64), axis=axis)
    shape = [gates.shape[1], node.operand(2).shape[2]]
    return build("Expand", build.scalar(0, gates), vector_of(build, shape))
