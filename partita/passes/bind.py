"""Bind: everything that depends on parameters alone leaves the graph, and runs when weights are bound.

    before: model (float[2] x) => (float[2] y) <float[2] w = {1, 2}, float[2] s = {3, 4}> {
                k = Mul (w, s)
                y = Add (x, k)
            }
    after:  model (float[2] x) => (float[2] y) <float[2] k = {3, 8}> {
                y = Add (x, k)
            }
    bind:   program (float[2] w, float[2] s) => (float[2] k) {
                k = Mul (w, s)
            }

The bind program is a graph like any other: its inputs are the model's parameters, its outputs the entries of the
metadata table. It grows as graphs are hoisted: first the whole model's, then each region's after its backend has put
packing and folding in as nodes. Two regions that compute one thing from one parameter share one entry.

One name links everything: a parameter of any graph is computed by the value of that name in the bind graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from partita.ir import dims
from partita.ir.graph import Attribute, Graph, Node, Parameter, Value
from partita.ir.schema import NONDETERMINISTIC, STANDARD_DOMAINS
from partita.ir.subgraph import copy_nodes
from partita.ir.types import DType, TensorType
from partita.ir.write_onnx import write_onnx
from partita.runtime import evaluate_bind_program

Array = np.ndarray[Any, Any]


class BindProgram:
    """The bind program under construction, for the model `graph` was read from."""

    def __init__(self, model: Graph) -> None:
        self.graph = Graph(f"{model.name}.bind")
        self.graph.opsets = dict(model.opsets)
        self.entries: tuple[str, ...] = ()
        self.weights: dict[str, Parameter] = {}  # the model's own parameters that the program reads
        self._computed: dict[str, Value] = {}  # name -> the value of the bind graph
        self._shared: dict[tuple[object, ...], Node] = {}
        self._reserved = {value.name for value in model.inputs}

    # ------------------------------------------------------------------ cutting

    def hoist(self, graph: Graph) -> bool:
        """Moves the nodes of `graph` that depend on parameters alone here; their results are parameters then. A node
        that makes an output of the graph stays, so that the output keeps its name."""
        for value in list(graph.parameters):
            self._source(graph, value)
        moved: dict[Node, None] = {}
        for node in graph.nodes:
            known = all(value.parameter is not None or value.producer in moved for value in node.operands)
            if known and is_movable(node) and not any(map(graph.is_output, node.outputs)):
                moved[node] = None
        mapping = {v: self._source(graph, v) for node in moved for v in node.operands if v.parameter is not None}
        for node in moved:
            self._copy(node, mapping)
        for node in moved:
            for output in node.outputs:
                if any(user not in moved for user in graph.consumers(output)):
                    graph.replace_uses(output, self._parameter(graph, output, mapping[output]))
        for node in reversed(moved):
            graph.remove_node(node)
        for value in [v for v in graph.parameters if not graph.uses(v) and not graph.is_output(v)]:
            graph.remove_parameter(value)
        return bool(moved)

    def _source(self, graph: Graph, value: Value) -> Value:
        """The value of the bind graph behind a parameter of `graph`. Constants that were made while different regions
        were lowered may have one name: the later gets another."""
        parameter = value.parameter
        assert parameter is not None
        known = self._computed.get(value.name)
        if parameter.is_constant and known is not None and not _holds(known, parameter):
            numbers = itertools.count(2)
            graph.rename(value, next(n for i in numbers if (n := f"{value.name}.{i}") not in self._computed))
        if value.name not in self._computed:
            if parameter.is_constant:
                source = self.graph.add_parameter(value.name, value.type, lambda: parameter.array, is_constant=True)
            else:
                source = self.graph.add_input(value.name, value.type)
                self.weights[value.name] = parameter
                if value.tensor.dtype is DType.STRING:
                    parameter.bake()  # its text decides how long the table's entry is
            self._computed[value.name] = source
        return self._computed[value.name]

    def _copy(self, node: Node, mapping: dict[Value, Value]) -> None:
        operands = tuple(None if value is None else id(mapping[value]) for value in node.inputs)
        key = (node.domain, node.op_type, operands, _frozen(node.attributes), len(node.outputs))
        if key not in self._shared:
            copy_nodes([node], self.graph, mapping)
            fresh = mapping[node.output].producer
            assert fresh is not None
            self._shared[key] = fresh
            for output in fresh.outputs:
                if output.name in self._reserved:
                    self.graph.rename(output, f"{output.name}.bound")
                self._computed[output.name] = output
        for old, new in zip(node.outputs, self._shared[key].outputs, strict=True):
            mapping[old] = new

    def _parameter(self, graph: Graph, replaced: Value, computed: Value) -> Value:
        """The parameter of `graph` that holds a computed value, under that value's name."""
        existing = graph.value_named(computed.name)
        if existing is not None and existing.parameter is not None:
            return existing
        if existing is not None:
            graph.rename(existing, f"{existing.name}.unbound")
        name = computed.name
        result = graph.add_parameter(name, replaced.type, lambda: self.evaluate([name])[name])
        result.known = replaced.known
        assert result.parameter is not None
        result.parameter.on_bake = lambda: self._bake(computed)
        return result

    def _bake(self, computed: Value) -> None:
        """The compiler looked at a computed value: all weights it is computed from are fixed by that."""
        pending = [computed]
        while pending:
            value = pending.pop()
            if value.producer is not None:
                pending += value.producer.operands
            elif value.name in self.weights:
                self.weights[value.name].bake()

    # ------------------------------------------------------------------ the finished program

    def finish(self, graph: Graph, names: Iterable[str]) -> None:
        """Declares the table: the entries that functions asked for, and the outputs of `graph` that are parameters."""
        outputs = [value for value in graph.outputs if value.parameter is not None]
        for value in outputs:
            self._source(graph, value)
        self.entries = tuple(dict.fromkeys([*names, *(value.name for value in outputs)]))
        needed = _ancestors(self._computed[name] for name in self.entries)
        # What was looked at stays, although nothing computes with it any more: other weights must agree with it.
        self.weights = {
            name: weight for name, weight in self.weights.items() if weight.baked or self._computed[name] in needed
        }

    def to_bytes(self, names: Iterable[str] | None = None) -> bytes:
        """The program, or the part of it that computes `names`, in ONNX's form. Outputs have the entries' names; an
        entry that is a weight as it came is input and output at once."""
        wanted = [self._computed[name] for name in (self.entries if names is None else names)]
        needed = _ancestors(wanted)
        part = Graph(self.graph.name)
        part.opsets = dict(self.graph.opsets)
        mapping: dict[Value, Value] = {}
        for value in [v for v in self.graph.inputs if v in needed]:
            mapping[value] = part.add_input(value.name, value.type)
        for value, parameter in self.graph.parameters.items():
            if value in needed:
                load = partial(getattr, parameter, "array")
                mapping[value] = part.add_parameter(value.name, value.type, load, is_constant=True)
        copy_nodes([node for node in self.graph.nodes if needed & set(node.outputs)], part, mapping)
        part.set_outputs(mapping[value] for value in wanted)
        serialized: bytes = write_onnx(part, copy_outputs=False).SerializeToString(deterministic=True)
        return serialized

    def evaluate(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Runs the program, or the part that computes `names`, on the model's own weights."""
        wanted = list(self.entries if names is None else names)
        needed = _ancestors(self._computed[name] for name in wanted)
        arrays = {name: weight.array for name, weight in self.weights.items() if self._computed[name] in needed}
        return evaluate_bind_program(self.to_bytes(wanted), arrays)


def is_movable(node: Node) -> bool:
    """Whether a node may run at bind time: it is a standard operator of known sizes, and gives the same every time.
    Strings are made where they are used: C holds them in another form than tables do."""
    if node.domain not in STANDARD_DOMAINS or any(isinstance(a, Graph) for a in node.attributes.values()):
        return False
    if node.op_type in NONDETERMINISTIC:
        return False
    return all(
        isinstance(o.type, TensorType) and dims.all_static(o.type.shape) and o.type.dtype is not DType.STRING
        for o in node.outputs
    )


def _holds(value: Value, constant: Parameter) -> bool:
    """Whether a value of the bind graph is this constant."""
    if value.parameter is None:
        return False
    first, second = value.parameter.array, constant.array
    return first is second or (
        (first.dtype, first.shape) == (second.dtype, second.shape) and first.tobytes() == second.tobytes()
    )


def _ancestors(values: Iterable[Value]) -> set[Value]:
    """The values, and all that they are computed from."""
    needed: set[Value] = set()
    pending = list(values)
    while pending:
        value = pending.pop()
        if value not in needed:
            needed.add(value)
            if value.producer is not None:
                pending += value.producer.operands
                needed.update(value.producer.outputs)
    return needed


def _frozen(attributes: dict[str, Attribute]) -> tuple[object, ...]:
    def freeze(value: Attribute) -> object:
        if isinstance(value, np.ndarray):
            return (value.dtype.str, value.shape, value.tobytes())
        return id(value) if isinstance(value, Graph) else value

    return tuple((key, freeze(value)) for key, value in sorted(attributes.items()))
