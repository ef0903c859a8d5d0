"""Scan and the recurrent layers (RNN, GRU, LSTM), as Loops.

Each step of a Scan gathers its slice of what is scanned. Each direction of a layer is one matrix product over all
steps, for what depends on the input alone, and a Loop over the steps, in which the state is multiplied with the
recurrent weights. State, batch and gates are `[batch, hidden]` each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from partita.errors import UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.graph import Graph, Node, Value
from partita.ir.operators.contents import normalized_axis
from partita.ir.operators.control_flow import captured, plain
from partita.ir.operators.internal import DOMAIN, vector_of
from partita.ir.operators.older import attribute_dropped, value_renamed
from partita.ir.operators.registry import decomposes, infers, upgrades
from partita.ir.schema import NEWEST_OPSET
from partita.ir.subgraph import copy_nodes, share_parameter
from partita.ir.types import DType, TensorType, Type, UnknownType

FIRST = -(1 << 62)  # before every element, as the end of a Slice that goes backward


def loop_body(build: Builder, name: str) -> tuple[Graph, Value, Value]:
    """An empty body for a Loop in the graph of `build`, the number of the step, and whether to go on."""
    body = Graph(name, f"{build.graph.unique_name(f'{build.prefix}.{name}')}.")
    body.opsets = dict(build.graph.opsets)
    step = body.add_input(body.unique_name("step"), TensorType(DType.INT64, ()))
    again = body.add_input(body.unique_name("again"), TensorType(DType.BOOL, ()))
    return body, step, again


def capture(body: Graph, values: Sequence[Value]) -> list[Value]:
    """Inputs of `body` for values of outside."""
    inner = [body.add_input(body.unique_name(value.name), value.type) for value in values]
    for own, value in zip(inner, values, strict=True):
        own.known = value.known
    return inner


def place_of(build: Builder, step: Value, length: Value, is_backward: bool) -> Value:
    """The element that a step looks at."""
    return build("Sub", build("Sub", length, 1), step) if is_backward else step


def backward(build: Builder, value: Value, axis: int = 0) -> Value:
    """`value` with the elements of one axis in reverse."""
    return build("Slice", value, [-1], [FIRST], [axis], [-1])


def length_of(build: Builder, value: Value, axis: int) -> Value:
    """The size of an axis, as a scalar."""
    size = value.shape[axis]
    if dims.is_static(size):
        return build.constant(size, DType.INT64)
    return build("Gather", build("Shape", value), build.constant(axis, DType.INT64))


@decomposes("Scan")
def scan_as_loop(build: Builder, node: Node) -> Sequence[Value]:
    operands, outside = [value for value in plain(node) if value is not None], captured(node)
    count = len(operands) - node.attributes["num_scan_inputs"]
    states, scanned = operands[:count], operands[count:]
    axes = node.attributes.get("scan_input_axes", (0,) * len(scanned))
    axes = [normalized_axis(node, axis, len(x.shape)) for axis, x in zip(axes, scanned, strict=True)]
    length = length_of(build, scanned[0], axes[0])
    old: Graph = node.attributes["body"]
    body, step, again = loop_body(build, old.name)
    inner = Builder(body, node.name)
    carried = [
        body.add_input(value.name, value.type) for value in old.inputs[:count]
    ]  # which their sizes are named after
    shared = capture(body, [length, *scanned, *outside])
    directions = node.attributes.get("scan_input_directions", (0,) * len(scanned))
    slices = [
        inner("Element", x, place_of(inner, step, shared[0], bool(is_backward)), domain=DOMAIN, axis=axis)
        for x, axis, is_backward in zip(shared[1:], axes, directions, strict=False)
    ]
    mapping = dict(zip(old.inputs, [*carried, *slices, *shared[1 + len(scanned) :]], strict=True))
    mapping |= {value: share_parameter(value, body) for value in old.parameters}
    copy_nodes(old.nodes, body, mapping)
    body.set_outputs([again, *(mapping[output] for output in old.outputs)])
    captures = [length, *scanned, *outside]
    results = build.node(
        "Loop", length, None, *states, *captures, outputs=len(node.outputs), body=body, captures=len(captures)
    )
    return [*results[:count], *_stacked(build, node, results[count:])]


def _stacked(build: Builder, node: Node, results: Sequence[Value]) -> list[Value]:
    """The outputs of a Scan, for what its steps give on axis 0 of `results`."""
    axes = node.attributes.get("scan_output_axes", (0,) * len(results))
    directions = node.attributes.get("scan_output_directions", (0,) * len(results))
    stacked, outputs = node.outputs[len(node.outputs) - len(results) :], []
    for value, output, axis, is_backward in zip(results, stacked, axes, directions, strict=True):
        axis = normalized_axis(node, axis, len(value.shape))
        order = [*range(1, axis + 1), 0, *range(axis + 1, len(value.shape))]
        shape = [output.shape[order.index(n)] for n in range(len(order))]
        value.type = TensorType(value.tensor.dtype, tuple(shape))  # in the sizes that its readers know
        value = backward(build, value) if is_backward else value
        outputs.append(build("Transpose", value, perm=order) if axis else value)
    return outputs


@upgrades("Scan", before=9)
def over_batches(build: Builder, node: Node, *, num_scan_inputs: int, directions: Sequence[int] = ()) -> None:
    """Axis 0 of all operands was a batch: a Scan over it runs the Scan over the sequences, now on axis 0 each. A
    sequence may be shorter than the others: it keeps its states from its end on, and gives zeros."""
    lengths, *operands = plain(node)
    count, outside, body = len(operands) - num_scan_inputs, captured(node), node.attributes["body"]
    if lengths is not None:
        if any(directions):
            raise UnsupportedOperatorError(
                f"{node.describe()}: sequences of different lengths, backward; export opset 9"
            )
        steps = build("Range", 0, length_of(build, node.operand(1 + count), 1), 1)
        operands.append(build("Less", steps, build("Unsqueeze", lengths, [1])))
        body = _masked(body, count, count + num_scan_inputs)
    batch = Graph(f"{body.name}.batch", f"{build.graph.unique_name(node.output.name)}.batch.")
    batch.opsets = dict(body.opsets)
    own = [batch.add_input(batch.unique_name(f"x{n}"), UnknownType()) for n in range(len(operands))]
    shared = [batch.add_input(batch.unique_name(value.name), value.type) for value in outside]
    attributes = {"body": body, "num_scan_inputs": len(operands) - count, "captures": len(outside)}
    if directions:
        attributes["scan_input_directions"] = tuple(directions)
    names = batch.unique_names(output.name for output in node.outputs)
    scan = batch.add_node("Scan", [*own, *shared], attributes, outputs=names, name=node.name, version=9)
    batch.set_outputs(scan.outputs)
    build.graph.set_inputs(node, [*operands, *outside])
    node.attributes = {"body": batch, "num_scan_inputs": len(operands), "captures": len(outside)}


def _masked(body: Graph, count: int, scanned: int) -> Graph:
    """`body`, of `count` states, for sequences that may end early: after the last input that is `scanned`, another one
    says whether the sequence still runs."""
    masked = Graph(body.name, body.prefix)
    masked.opsets = dict(body.opsets)
    mapping = {value: masked.add_input(value.name, value.type) for value in body.inputs[:scanned]}
    is_running = masked.add_input(masked.unique_name("running"), UnknownType())
    mapping |= {value: masked.add_input(value.name, value.type) for value in body.inputs[scanned:]}
    mapping |= {value: share_parameter(value, masked) for value in body.parameters}
    copy_nodes(body.nodes, masked, mapping)
    kind = TensorType(DType.INT64, ())
    zero = masked.add_parameter(masked.unique_name("zero"), kind, lambda: np.zeros((), np.int64), is_constant=True)

    def node(op_type: str, *operands: Value) -> Value:
        return masked.add_node(op_type, operands, version=NEWEST_OPSET).output

    values = [mapping[output] for output in body.outputs]
    others = [mapping[state] for state in body.inputs[:count]] + [node("CastLike", zero, v) for v in values[count:]]
    masked.set_outputs(node("Where", is_running, *pair) for pair in zip(values, others, strict=True))
    return masked


# ---------------------------------------------------------------------- recurrent layers

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


def part(build: Builder, value: Value, direction: int, axis: int = 0) -> Value:
    """What is of one direction, of all directions."""
    return build("Gather", value, build.constant(direction, DType.INT64), axis=axis)


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
                gate = inner("Add", gate, inner("Mul", weights[1 + place], content)) if peepholes else gate
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
    outputs = []
    for parts, axis, perm in zip(
        zip(*found, strict=True), (1, 0, 0), ((2, 0, 1, 3), (1, 0, 2), (1, 0, 2)), strict=False
    ):
        wide = [build("Unsqueeze", p, [axis]) for p in parts]
        joined = build("Concat", *wide, axis=axis) if len(wide) > 1 else wide[0]
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
    first = vector_of(build, [gates.shape[1], node.operand(2).shape[2]])
    states = [
        build("Expand", build.scalar(0, gates), first)
        if given is None
        else part(build, given, direction, axis=node.attributes.get("layout", 0))
        for given in map(node.input, range(5, 5 + cell.state))
    ]
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
