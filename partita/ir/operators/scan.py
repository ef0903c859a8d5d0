"""Scan as a Loop: each step gathers its slice of what is scanned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from partita.errors import UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node, Value
from partita.ir.operators.contents import normalized_axis
from partita.ir.operators.control_flow import captured, plain
from partita.ir.operators.internal import DOMAIN
from partita.ir.operators.registry import decomposes, upgrades
from partita.ir.schema import NEWEST_OPSET
from partita.ir.subgraph import copy_nodes, share_parameter
from partita.ir.types import DType, TensorType, UnknownType

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


# ---------------------------------------------------------------------- older opsets


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
