"""Recurrent layers: RNN, GRU and LSTM.

Each direction is one matrix product over all steps, for what depends on the input alone, and a Loop over the steps, in
which the state is multiplied with the recurrent weights. State, batch and gates are `[batch, hidden]` each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from partita.errors import UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN
from partita.ir.operators.older import attribute_dropped, value_renamed
from partita.ir.operators.registry import decomposes
from partita.ir.operators.scan import backward, capture, length_of, loop_body, place_of
from partita.ir.types import DType

Activation = Callable[[Builder, Value], Value]
Values = tuple[Value, ...]

attribute_dropped("RNN", "GRU", "LSTM", before=7, attributes=["output_sequence"])
value_renamed("GRU", before=3, attribute="direction", values={"foward": "forward"})


@dataclass(frozen=True, slots=True)
class Cell:
    """What a layer does in one step. `step(inner, x, state, weights)` gives the new state, hidden first: `x` is the
    input's share of all gates, `weights` what `weights(build, direction)` gave."""

    gates: int
    state: int  # tensors
    weights: Callable[[Builder, int], Values]
    bias: Callable[[Builder, int], Value | None]
    step: Callable[[Builder, Value, Values, Values], Values]


# ---------------------------------------------------------------------- activations

_PLAIN = ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")
_DEFAULTS = {
    "LeakyRelu": (0.01, None), "ThresholdedRelu": (1.0, None), "Elu": (1.0, None), "HardSigmoid": (0.2, 0.5),
    "Affine": (1.0, 0.0), "ScaledTanh": (1.0, 1.0),
}  # fmt: skip
_NAMES = {name.lower(): name for name in (*_PLAIN, *_DEFAULTS)}


def activations(node: Node, defaults: Sequence[str], direction: int) -> list[Activation]:
    """The functions of one direction. `activation_alpha` and `activation_beta` go to those that take one, in order."""
    given = node.attributes.get("activations", tuple(defaults) * 2)
    alphas, betas = (iter(node.attributes.get(f"activation_{name}", ())) for name in ("alpha", "beta"))
    return [_activation(node, name, alphas, betas) for name in given][direction * len(defaults) :][: len(defaults)]


def _activation(node: Node, given: str, alphas: Iterator[float], betas: Iterator[float]) -> Activation:
    name = _NAMES.get(given.lower())
    if name is None:
        raise UnsupportedOperatorError(f"{node.describe()}: the activation {given!r} is unknown to ONNX")
    if name in _PLAIN:
        return lambda build, x: build(name, x)
    default_alpha, default_beta = _DEFAULTS[name]
    alpha = next(alphas, default_alpha)
    beta = next(betas, default_beta) if default_beta is not None else None
    if name == "Affine":
        return lambda build, x: _scaled(build, x, alpha, beta or 0.0)
    if name == "ScaledTanh":
        return lambda build, x: _scaled(build, build("Tanh", _scaled(build, x, beta or 0.0, 0.0)), alpha, 0.0)
    return lambda build, x: build(name, x, alpha=alpha, beta=beta)


def _scaled(build: Builder, x: Value, factor: float, offset: float) -> Value:
    return build("Add", build("Mul", x, build.scalar(factor, x)), build.scalar(offset, x))


def _clipped(node: Node, build: Builder, x: Value) -> Value:
    limit = node.attributes.get("clip")
    return x if limit is None else build("Clip", x, build.scalar(-limit, x), build.scalar(limit, x))


# ---------------------------------------------------------------------- parts of weights


def part(build: Builder, value: Value, index: int) -> Value:
    """The weights of one direction, of all directions."""
    return build("Gather", value, build.constant(index, DType.INT64), axis=0)


def rows(build: Builder, value: Value, first: int, last: int, axis: int = 0) -> Value:
    return build("Slice", value, *(build.ints([n]) for n in (first, last, axis)))


def gates_of(build: Builder, value: Value, count: int) -> Values:
    """`[batch, count * hidden]` as one tensor a gate."""
    return build.node("Split", value, outputs=count, axis=-1, num_outputs=count)


def turned(build: Builder, weight: Value) -> Value:
    return build("Transpose", weight, perm=(1, 0))


# ---------------------------------------------------------------------- the layers


@decomposes("RNN")
def rnn(build: Builder, node: Node) -> Sequence[Value]:
    def cell(direction: int) -> Cell:
        (f,) = activations(node, ["Tanh"], direction)

        def step(inner: Builder, x: Value, state: Values, weights: Values) -> Values:
            total = inner("Add", inner("MatMul", state[0], weights[0]), x)
            return (f(inner, _clipped(node, inner, total)),)

        return Cell(1, 1, _recurrent(node), _whole_bias(node, 1), step)

    return _layer(build, node, cell)


@decomposes("LSTM")
def lstm(build: Builder, node: Node) -> Sequence[Value]:
    peepholes = node.input(7)

    def weights(own: Builder, direction: int) -> Values:
        recurrent = _recurrent(node)(own, direction)
        if peepholes is None:
            return recurrent
        hidden = node.operand(2).shape[2]
        all_gates = part(own, peepholes, direction)
        return (*recurrent, *(rows(own, all_gates, n * hidden, (n + 1) * hidden) for n in range(3)))

    def cell(direction: int) -> Cell:
        f, g, h = activations(node, ["Sigmoid", "Tanh", "Tanh"], direction)

        def step(inner: Builder, x: Value, state: Values, weights: Values) -> Values:
            hidden, memory = state

            def seen(gate: Value, place: int, content: Value) -> Value:
                if peepholes is not None:
                    gate = inner("Add", gate, inner("Mul", weights[1 + place], content))
                return _clipped(node, inner, gate)

            total = inner("Add", inner("MatMul", hidden, weights[0]), x)
            i, o, f_, c = gates_of(inner, total, 4)
            i = f(inner, seen(i, 0, memory))
            if node.attributes.get("input_forget", 0):
                forget = inner("Sub", inner.scalar(1, i), i)
            else:
                forget = f(inner, seen(f_, 2, memory))
            fresh = g(inner, _clipped(node, inner, c))
            kept = inner("Add", inner("Mul", forget, memory), inner("Mul", i, fresh))
            o = f(inner, seen(o, 1, kept))
            return inner("Mul", o, h(inner, kept)), kept

        return Cell(4, 2, weights, _whole_bias(node, 4), step)

    return _layer(build, node, cell)


@decomposes("GRU")
def gru(build: Builder, node: Node) -> Sequence[Value]:
    hidden = node.operand(2).shape[2]
    is_linear_first = bool(node.attributes.get("linear_before_reset", 0))

    def weights(own: Builder, direction: int) -> Values:
        (both,) = _recurrent(node)(own, direction)
        bias = node.input(3)
        split = [rows(own, both, 0, 2 * hidden, 1), rows(own, both, 2 * hidden, 3 * hidden, 1)]
        if is_linear_first and bias is not None:
            split.append(rows(own, part(own, bias, direction), 5 * hidden, 6 * hidden))
        return tuple(split)

    def bias_of(own: Builder, direction: int) -> Value | None:
        bias = node.input(3)
        if bias is None or not is_linear_first:
            return _whole_bias(node, 3)(own, direction)
        both = part(own, bias, direction)
        early = own("Add", rows(own, both, 0, 2 * hidden), rows(own, both, 3 * hidden, 5 * hidden))
        return own("Concat", early, rows(own, both, 2 * hidden, 3 * hidden), axis=0)

    def cell(direction: int) -> Cell:
        f, g = activations(node, ["Sigmoid", "Tanh"], direction)

        def step(inner: Builder, x: Value, state: Values, weights: Values) -> Values:
            (old,) = state
            early = inner("Add", inner("MatMul", old, weights[0]), rows(inner, x, 0, 2 * hidden, 1))
            z, r = (f(inner, _clipped(node, inner, gate)) for gate in gates_of(inner, early, 2))
            late = rows(inner, x, 2 * hidden, 3 * hidden, 1)
            if is_linear_first:
                linear = inner("MatMul", old, weights[1])
                linear = inner("Add", linear, weights[2]) if len(weights) > 2 else linear
                total = inner("Add", late, inner("Mul", r, linear))
            else:
                total = inner("Add", late, inner("MatMul", inner("Mul", r, old), weights[1]))
            fresh = g(inner, _clipped(node, inner, total))
            one = inner.scalar(1, z)
            return (inner("Add", inner("Mul", inner("Sub", one, z), fresh), inner("Mul", z, old)),)

        return Cell(3, 1, weights, bias_of, step)

    return _layer(build, node, cell)


def _recurrent(node: Node) -> Callable[[Builder, int], Values]:
    """The recurrent weights of a direction, `[hidden, gates * hidden]`."""
    return lambda build, direction: (turned(build, part(build, node.operand(2), direction)),)


def _whole_bias(node: Node, gates: int) -> Callable[[Builder, int], Value | None]:
    """What is added to all gates: the input's bias and the state's."""
    bias, hidden = node.input(3), node.operand(2).shape[2]

    def both(build: Builder, direction: int) -> Value | None:
        if bias is None:
            return None
        own = part(build, bias, direction)
        size = gates * hidden
        return build("Add", rows(build, own, 0, size), rows(build, own, size, 2 * size))

    return both


# ---------------------------------------------------------------------- the steps


def _layer(build: Builder, node: Node, cell: Callable[[int], Cell]) -> Sequence[Value]:
    """All directions, and the outputs as the layout wants them."""
    is_batch_first = bool(node.attributes.get("layout", 0))
    x = node.operand(0)
    x = build("Transpose", x, perm=(1, 0, 2)) if is_batch_first else x
    name = node.attributes.get("direction", "forward")
    count = 2 if name == "bidirectional" else 1
    found = [
        _direction(build, node, x, cell(d), d, is_backward=name == "reverse" or d == 1) for d in range(count)
    ]  # a direction: what each step gave, [steps, batch, hidden]; then the last state, [batch, hidden] each
    outputs: list[Value] = []
    for place, parts in enumerate(zip(*found, strict=True)):
        axis = 1 if place == 0 else 0
        wide = [build("Unsqueeze", p, build.ints([axis])) for p in parts]
        joined = build("Concat", *wide, axis=axis) if len(wide) > 1 else wide[0]
        perm = (2, 0, 1, 3) if place == 0 else (1, 0, 2)
        outputs.append(build("Transpose", joined, perm=perm) if is_batch_first else joined)
    return outputs


def _direction(build: Builder, node: Node, x: Value, cell: Cell, direction: int, *, is_backward: bool) -> Values:
    lengths = node.input(4)
    weight = turned(build, part(build, node.operand(1), direction))
    gates = build("MatMul", x, weight)
    bias = cell.bias(build, direction)
    gates = gates if bias is None else build("Add", gates, bias)
    if lengths is not None:
        lengths = build("Cast", lengths, to=DType.INT64.onnx)
        gates = _reversed(build, gates, lengths) if is_backward else gates
    states = [_initial(build, node, node.input(5 + n), gates, direction) for n in range(cell.state)]
    outside = [length_of(build, x, 0), gates, *cell.weights(build, direction), *([lengths] if lengths else [])]
    body, step, again = loop_body(build, "steps")
    inner = Builder(body, node.name)
    old = tuple(body.add_input(body.unique_name("state"), value.type) for value in states)
    shared = capture(body, outside)
    weights = tuple(shared[2 : len(shared) - (lengths is not None)])
    place = place_of(inner, step, shared[0], is_backward and lengths is None)
    new = cell.step(inner, inner("Element", shared[1], place, domain=DOMAIN), old, weights)
    result = new[0]
    if lengths is not None:
        is_running = inner("Unsqueeze", inner("Less", step, shared[-1]), inner.ints([1]))
        new = tuple(inner("Where", is_running, a, b) for a, b in zip(new, old, strict=True))
        result = inner("Where", is_running, result, inner.scalar(0, result))
    body.set_outputs([again, *new, result])
    *last, all_steps = build.node(
        "Loop", outside[0], None, *states, *outside, outputs=1 + len(states), body=body, captures=len(outside)
    )
    if is_backward:
        all_steps = backward(build, all_steps) if lengths is None else _reversed(build, all_steps, lengths)
    return (all_steps, *last)


def _reversed(build: Builder, value: Value, lengths: Value) -> Value:
    """Each sequence of `[steps, batch, ...]` in reverse, as long as it is."""
    return build("ReverseSequence", value, lengths, time_axis=0, batch_axis=1)


def _initial(build: Builder, node: Node, given: Value | None, gates: Value, direction: int) -> Value:
    """The state before the first step: `[batch, hidden]`, zeros where none is given."""
    if given is not None:
        axis = 1 if node.attributes.get("layout", 0) else 0
        return build("Gather", given, build.constant(direction, DType.INT64), axis=axis)
    shape = [gates.shape[1], node.operand(2).shape[2]]
    static = dims.all_static(shape)
    sizes = build.ints(shape) if static else build("Dims", domain=DOMAIN, dims=shape, rank=1)
    return build("Expand", build.scalar(0, gates), sizes)
