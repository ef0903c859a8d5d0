"""Scan and the recurrent layers (RNN, GRU, LSTM), as Loops.

Each step of a Scan gathers its slice of what is scanned. Each direction of a layer is one matrix product over all
steps, for what depends on the input alone, and a Loop over the steps, in which the state is multiplied with the
recurrent weights. State, batch and gates are `[batch, hidden]` each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from partita.errors import UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import normalized_axis
from partita.ir.dims import Dim
from partita.ir.expression import call
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import captured, plain
from partita.ir.operators.control_flow import scanned_axes
from partita.ir.operators.elementwise import elementwise
from partita.ir.operators.internal import DOMAIN, vector_of
from partita.ir.registry import decomposes, infers, upgrades, value_renamed
from partita.ir.subgraph import embed
from partita.ir.types import DType, TensorType, Type

FIRST = -(1 << 62)  # before every element, as the end of a Slice that goes backward


def backward(build: Builder, value: Value, axis: int = 0) -> Value:
    """`value` with the elements of one axis in reverse."""
    return build("Slice", value, [-1], [FIRST], [axis], [-1])


def length_of(build: Builder, value: Value, axis: int) -> Value:
    """The size of an axis, as a scalar."""
    size = value.shape[axis]
    if dims.is_static(size):
        return build.constant(size, DType.INT64)
    return build("Gather", build("Shape", value), build.constant(axis, DType.INT64))


def empty_body(build: Builder, name: str) -> Graph:
    """A graph for a node of that of `build` to hold."""
    return Graph(name, f"{build.graph.unique_name(f'{build.prefix}.{name}')}.", build.graph.opsets)


@decomposes("Scan")
def scan_as_loop(
    build: Builder, node: Node, *, body: Graph, num_scan_inputs: int, scan_input_directions: Sequence[int] = ()
) -> Sequence[Value]:
    scanned, count = scanned_axes(node), len(plain(node)) - num_scan_inputs
    captures = [length_of(build, *scanned[0]), *node.operands[count:]]
    loop = empty_body(build, f"{body.name}.loop")
    inner = Builder(loop, node.name)
    step = loop.add_input(loop.unique_name("step"), TensorType(DType.INT64, ()))
    again = loop.add_input(loop.unique_name("again"), TensorType(DType.BOOL, ()))
    carried = [loop.add_input(value.name, value.type) for value in body.inputs[:count]]  # their sizes are named so
    length, *shared = (loop.add_input(loop.unique_name(value.name), value.type) for value in captures)
    directions = scan_input_directions or (0,) * num_scan_inputs
    last = inner("Sub", inner("Sub", length, 1), step) if any(directions) else step
    slices = [
        inner("Element", x, last if is_backward else step, domain=DOMAIN, axis=axis)
        for x, (_, axis), is_backward in zip(shared, scanned, directions, strict=False)
    ]
    loop.set_outputs([again, *embed(body, loop, [*carried, *slices, *shared[num_scan_inputs:]])])
    results = build.node(
        "Loop", captures[0], None, *node.operands[:count], *captures,
        outputs=len(node.outputs), body=loop, captures=len(captures),
    )  # fmt: skip
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
    """Axis 0 of all operands was a batch: a Scan over it runs the Scan over the sequences, now on axis 0 each. Of a
    sequence that is shorter than the others only the beginning is scanned; zeros follow what its steps give."""
    lengths, *operands = plain(node)
    count, outside, body = len(operands) - num_scan_inputs, captured(node), node.attributes["body"]
    if lengths is not None:
        lengths = build("Clip", lengths, 0, length_of(build, node.operand(1 + count), 1))
        operands.append(build("Unsqueeze", lengths, [1]))
    batch = empty_body(build, f"{body.name}.batch")
    inner = Builder(batch, node.name)
    kinds = [TensorType(x.tensor.dtype, x.shape[1:]) for x in operands if x is not None]
    own = [batch.add_input(batch.unique_name("x"), kind) for kind in kinds]
    shared = [batch.add_input(batch.unique_name(value.name), value.type) for value in outside]
    states, sequences = own[:count], own[count : count + num_scan_inputs]
    if lengths is not None:
        rest = inner("Sub", inner("Shape", sequences[0], end=1), own[-1])
        sequences = [inner("Slice", x, [0], own[-1], [0]) for x in sequences]
    attributes = {
        "body": body, "captures": len(outside), "num_scan_inputs": num_scan_inputs,
        "scan_input_directions": tuple(directions) or (0,) * num_scan_inputs,
    }  # fmt: skip
    inputs = [*states, *sequences, *shared]
    scan = batch.add_node("Scan", inputs, attributes, outputs=[""] * len(node.outputs), name=node.name)  # body yet old
    results = list(scan.outputs)
    if lengths is not None:
        zeros = (inner("Concat", [0], rest, axis=0), None, inner.ints([0]))
        results[count:] = [batch.add_node("Pad", [y, *zeros]).output for y in results[count:]]
    batch.set_outputs(results)
    build.graph.set_inputs(node, [*operands, *outside])
    node.attributes = {"body": batch, "num_scan_inputs": len(operands), "captures": len(outside)}


# ---------------------------------------------------------------------- recurrent layers

value_renamed("GRU", before=3, attribute="direction", values={"foward": "forward"})

Values = tuple[Value, ...]
Functions = list[Callable[[Builder, Value], Value]]

_ACTIVATIONS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_NUMBERS: dict[str, tuple[str, ...]] = {  # what each takes; without it, it is as the operator of this name
    **dict.fromkeys(("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus"), ()),
    **dict.fromkeys(("LeakyRelu", "Elu", "ThresholdedRelu"), ("alpha",)),
    **dict.fromkeys(("HardSigmoid", "Affine", "ScaledTanh"), ("alpha", "beta")),
}

elementwise("Affine", lambda x, alpha, beta: x * alpha + beta, alpha=1.0, beta=0.0)
elementwise("ScaledTanh", lambda x, alpha, beta: call("tanh", x * beta) * alpha, alpha=1.0, beta=1.0)


def activations(node: Node) -> tuple[Functions, Functions]:
    """The functions of each direction. `activation_alpha` and `activation_beta` go to those that take one, in order."""
    defaults = _ACTIVATIONS[node.op_type]
    given = {key: iter(node.attributes.get(f"activation_{key}", ())) for key in ("alpha", "beta")}
    result: Functions = []
    for place, activation in enumerate(node.attributes.get("activations", defaults * 2)):
        name = next((name for name in _NUMBERS if name.lower() == activation.lower()), None)
        if name is None:
            raise UnsupportedOperatorError(f"{node.describe()}: the activation {activation!r} is unknown to ONNX")
        numbers = {key: next(given[key], None) for key in _NUMBERS[name]}
        limit = node.attributes.get("clip") if place % len(defaults) < 2 else None  # of gates, not of an LSTM's memory
        result.append(functools.partial(_activated, name, numbers, limit))
    return result[: len(defaults)], result[len(defaults) :]


def _activated(name: str, numbers: dict[str, Any], limit: float | None, build: Builder, x: Value) -> Value:
    return build(name, x if limit is None else build("Clip", x, -limit, limit), **numbers)


# ---------------------------------------------------------------------- parts of weights


def equal_parts(build: Builder, value: Value, count: int) -> Values:
    """The last axis, such as `[batch, count * hidden]`, as one tensor a gate."""
    return build.node("Split", value, outputs=count, axis=-1, num_outputs=count)


def cut(build: Builder, value: Value, first: Dim) -> Values:
    """The last axis as its `first` elements and the rest."""
    sizes = vector_of(build, [first, dims.simplified(value.shape[-1] - first)])
    return build.node("Split", value, sizes, outputs=2, axis=-1)


def _weights(
    build: Builder, node: Node, recurrent: Value, bias: Value | None, peepholes: Value | None
) -> tuple[Values, Values]:
    """What the steps of a direction read, `[hidden, gates * hidden]` first; the biases that the input's share has."""
    weights: Values = (build("Transpose", recurrent, perm=(1, 0)),)
    biases = equal_parts(build, bias, 2) if bias else ()
    weights += equal_parts(build, peepholes, 3) if peepholes else ()
    if node.op_type == "GRU" and node.attributes.get("linear_before_reset", 0):
        return (*weights, *biases[1:]), biases[:1]
    if node.op_type == "GRU":  # of update and reset; then the candidate's
        weights = cut(build, weights[0], 2 * recurrent.shape[1])
    return weights, biases


# ---------------------------------------------------------------------- steps
# They give the new state, hidden first, from the input's share of all gates with all biases, and the state.


def rnn(build: Builder, node: Node, functions: Functions, x: Value, state: Values, weights: Values) -> Values:
    return (functions[0](build, build("Add", build("MatMul", *state, *weights), x)),)


def lstm(build: Builder, node: Node, functions: Functions, x: Value, state: Values, weights: Values) -> Values:
    (hidden, memory), (f, g, h), (weight, *peepholes) = state, functions, weights

    def seen(gate: Value, place: int, content: Value) -> Value:
        return build("Add", gate, build("Mul", peepholes[place], content)) if peepholes else gate

    i, o, forget, c = equal_parts(build, build("Add", build("MatMul", hidden, weight), x), 4)
    i = f(build, seen(i, 0, memory))
    is_tied = node.attributes.get("input_forget", 0)
    forget = build("Sub", 1, i) if is_tied else f(build, seen(forget, 2, memory))
    kept = build("Add", build("Mul", forget, memory), build("Mul", i, g(build, c)))
    o = f(build, seen(o, 1, kept))
    return build("Mul", o, h(build, kept)), kept


def gru(build: Builder, node: Node, functions: Functions, x: Value, state: Values, weights: Values) -> Values:
    """With `linear_before_reset` the candidate's product is reset, its bias too, and not the state before it."""
    (old,), (f, g), (weight, *rest) = state, functions, weights
    product, (early, late) = build("MatMul", old, weight), cut(build, x, 2 * old.shape[1])
    if is_linear := node.attributes.get("linear_before_reset", 0):
        product = build("Add", product, *rest) if rest else product
        product, linear = cut(build, product, 2 * old.shape[1])
    z, r = (f(build, gate) for gate in equal_parts(build, build("Add", product, early), 2))
    candidate = build("Mul", r, linear) if is_linear else build("MatMul", build("Mul", r, old), *rest)
    fresh = g(build, build("Add", late, candidate))
    return (build("Add", build("Mul", build("Sub", 1, z), fresh), build("Mul", z, old)),)


# ---------------------------------------------------------------------- the layers


@infers("RNN", "GRU", "LSTM")
def layer_types(
    node: Node, x: Value, _: Value, weights: Value, *, layout: int = 0, direction: str = ""
) -> Sequence[Type]:
    """What all steps gave; then the last states."""
    (first, second), count, hidden = x.shape[:2], 2 if direction == "bidirectional" else 1, weights.shape[2]
    steps = (first, second, count, hidden) if layout else (first, count, second, hidden)
    last = (first, count, hidden) if layout else (count, second, hidden)
    return [TensorType(x.tensor.dtype, shape) for shape in (steps, last, last)][: len(node.outputs)]


@decomposes("RNN", "GRU", "LSTM")
def layer(build: Builder, node: Node) -> Sequence[Value]:
    """All directions beside each other. Where the batch comes first: as where it does not, turned."""
    if node.attributes.get("layout", 0):
        turn = functools.partial(build, "Transpose", perm=(1, 0, 2))
        inputs = [turn(value) if value and n in (0, 5, 6) else value for n, value in enumerate(node.inputs)]
        attributes = {**node.attributes, "layout": 0}
        y, *states = build.node(node.op_type, *inputs, outputs=len(node.outputs), **attributes)
        return [build("Transpose", y, perm=(2, 0, 1, 3)), *map(turn, states)]
    name, functions, found = node.attributes.get("direction", "forward"), activations(node), []
    for d in range(2 if name == "bidirectional" else 1):
        own: list[Any] = [  # sequences and their lengths are of all directions
            value if value is None or n in (0, 4) else build("Gather", value, build.constant(d, DType.INT64))
            for n, value in enumerate(node.inputs)
        ]
        found.append(_direction(build, node, functions[d], d == 1 or name == "reverse", *own))
    outputs = []
    for parts, axis in zip(zip(*found, strict=True), (1, 0, 0), strict=False):
        wide = [build("Unsqueeze", p, [axis]) for p in parts]
        outputs.append(build("Concat", *wide, axis=axis) if len(wide) > 1 else wide[0])
    return outputs


def _direction(
    build: Builder, node: Node, functions: Functions, is_backward: bool, x: Value, w: Value, recurrent: Value,
    bias: Value | None = None, lengths: Value | None = None, hidden: Value | None = None, memory: Value | None = None,
    peepholes: Value | None = None,
) -> Values:  # fmt: skip
    """What each step gave, `[steps, batch, hidden]`, and the last state, `[batch, hidden]` each."""
    weights, biases = _weights(build, node, recurrent, bias, peepholes)
    gates = build("MatMul", x, build("Transpose", w, perm=(1, 0)))
    gates = build("Add", gates, functools.reduce(functools.partial(build, "Add"), biases)) if biases else gates
    lengths = build.cast(lengths, DType.INT64) if lengths else None

    def turned(value: Value) -> Value:
        """Sequences of different lengths, backward; if all are of one length, the Scan turns them."""
        if lengths is None or not is_backward:
            return value
        return build("ReverseSequence", value, lengths, time_axis=0, batch_axis=1)

    zeros = build("Expand", build.scalar(0, gates), vector_of(build, [gates.shape[1], recurrent.shape[1]]))
    states = [state or zeros for state in ((hidden, memory) if node.op_type == "LSTM" else (hidden,))]
    scanned, count = [turned(gates)], len(states)
    if lengths is not None:
        steps = build("Unsqueeze", build("Range", 0, length_of(build, gates, 0), 1), [1, 2])
        scanned.append(build("Less", steps, build("Unsqueeze", lengths, [1])))
    body = empty_body(build, "steps")
    inner = Builder(body, node.name)
    parts = (TensorType(value.tensor.dtype, value.shape[1:]) for value in scanned)
    kinds = [*(v.type for v in states), *parts, *(v.type for v in weights)]
    own = tuple(body.add_input(body.unique_name("x"), kind) for kind in kinds)
    old, (share, *is_running), shared = own[:count], own[count : -len(weights)], own[-len(weights) :]
    step = {"RNN": rnn, "GRU": gru, "LSTM": lstm}[node.op_type]
    new = step(inner, node, functions, share, old, shared)
    results = [*new, new[0]]
    if is_running:  # a sequence keeps its states from its end on, and gives zeros
        others = [*old, inner.scalar(0, new[0])]
        results = [inner("Where", *is_running, *pair) for pair in zip(results, others, strict=True)]
    body.set_outputs(results)
    way = int(is_backward and lengths is None)
    *last, all_steps = build.node(
        "Scan", *states, *scanned, *weights, outputs=count + 1, body=body, captures=len(weights),
        num_scan_inputs=len(scanned), scan_input_directions=(way,) * len(scanned), scan_output_directions=(way,),
    )  # fmt: skip
    return (turned(all_steps), *last)
