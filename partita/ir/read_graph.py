"""Graph messages into graphs. Captured values of subgraphs become explicit operands, so that every graph stands on its
own; calls of functions are replaced by their bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.functions import body_of, function_key, functions_by_key, opset_versions, plain_domain
from partita.ir.graph import Attribute, Graph, Node, Value
from partita.ir.node_order import free_names, sorted_nodes
from partita.ir.protobuf import type_from_proto
from partita.ir.read_tensor import Array, dense, read_tensor, type_of
from partita.ir.types import TensorType, Type, UnknownType

Scope = dict[str, Value]
Declared = Mapping[str, onnx.TypeProto]

DEEPEST_NESTING = 32  # subgraphs in subgraphs, functions in functions


class GraphReader:
    """Reads the graphs of one model; holds what they share, and collects what is wrong."""

    def __init__(
        self, opsets: Mapping[str, int], functions: Sequence[onnx.FunctionProto] = (), base: Path | None = None
    ) -> None:
        self.opsets = dict(opsets)
        self.functions = functions_by_key(functions)
        self.base = base
        self.problems: list[str] = []
        self.reserved: set[str] = set()  # names that values of functions may not take
        self._inner: set[str] = set()  # names of values in subgraphs
        self._in_function = False
        self._depth = 0

    def check(self) -> None:
        """Raises what was found wrong, all at once."""
        if self.problems:
            raise ModelError("\n".join(dict.fromkeys(self.problems)))

    def lookup(self, scope: Mapping[str, Value], name: str, user: str) -> Value:
        if name not in scope:
            self.problems.append(f"value {name!r}, {user}, is produced by nothing")
            return Value(name)
        return scope[name]

    def define(self, scope: Scope, name: str, make: Callable[[], Value]) -> None:
        """Lets `name` stand for a value, which it may not do already."""
        if not name or not is_text(name):
            self.problems.append(f"a value has the name {name!r}, which cannot be referred to")
        elif name in scope:
            self.problems.append(f"the name {name!r} is produced twice; names must be unique in a graph")
        else:
            scope[name] = make()

    def _name(self, graph: Graph, name: str, prefix: str) -> str:
        """What the value `name` of a message is called in the graph. Values of all bodies differ in name: symbolic
        sizes are named after them, and weights are known by theirs."""
        if not name:
            return name
        if graph.prefix:
            inner = graph.unique_name(name) if self._in_function or name in self._inner | self.reserved else name
            self._inner.add(inner)
            return inner
        if not prefix:
            return name
        result = graph.unique_name(prefix + name)
        while result in self.reserved:
            result = graph.unique_name(f"{result}.inner")
        return result

    # ------------------------------------------------------------------ parameters

    def read_initializers(
        self, graph: Graph, proto: onnx.GraphProto, scope: Scope, raw: Sequence[memoryview | None] = ()
    ) -> None:
        for position, tensor in enumerate(proto.initializer):
            self._read_parameter(graph, scope, tensor, raw[position] if position < len(raw) else None)
        for sparse in proto.sparse_initializer:
            try:
                array = dense(sparse, self.base)
            except ModelError as error:
                self.problems.append(str(error))
                continue
            self._add_parameter(graph, scope, sparse.values.name, "", array)

    def _read_parameter(self, graph: Graph, scope: Scope, tensor: onnx.TensorProto, raw: memoryview | None) -> None:
        try:
            kind, load = read_tensor(tensor, self.base, raw)
        except ModelError as error:
            self.problems.append(str(error))
            return
        self.define(scope, tensor.name, lambda: graph.add_parameter(self._name(graph, tensor.name, ""), kind, load))

    def _add_parameter(
        self, graph: Graph, scope: Scope, name: str, prefix: str, array: Array, *, is_constant: bool = False
    ) -> None:
        def make() -> Value:
            unique = self._name(graph, name, prefix)
            return graph.add_parameter(unique, type_of(array), lambda: array, is_constant=is_constant)

        self.define(scope, name, make)

    # ------------------------------------------------------------------ nodes

    def read_nodes(
        self,
        graph: Graph,
        protos: Sequence[onnx.NodeProto],
        scope: Scope,
        declared: Declared | None = None,
        prefix: str = "",
    ) -> list[Node]:
        """Adds nodes whose operands are named in `scope`, which grows with their results; values and nodes are called
        as in the message, after `prefix`. Gives the nodes."""
        added: list[Node] = []
        for proto in sorted_nodes(protos, scope, self.problems):
            if not all(map(is_text, (proto.op_type, proto.domain, proto.name, *proto.input, *proto.output))):
                self.problems.append(f"node {proto.name!r} ({proto.op_type!r}) has names that are no UTF-8 text")
            elif function_key(proto) in self.functions:
                added += self._read_call(graph, proto, scope, prefix)
            elif proto.op_type == "Constant" and plain_domain(proto.domain) == "" and len(proto.output) == 1:
                self._read_constant(graph, proto, scope, prefix)
            else:
                added += self._read_node(graph, proto, scope, declared or {}, prefix)
        return added

    def _read_constant(self, graph: Graph, proto: onnx.NodeProto, scope: Scope, prefix: str) -> None:
        name = proto.output[0]
        where = f"node {proto.name or name!r} (Constant)"
        if len(proto.attribute) != 1:
            self.problems.append(f"{where} must have exactly one attribute")
            return
        try:
            array = self._constant(proto.attribute[0], where)
        except ModelError as error:
            self.problems.append(f"{where}: {error}")
            return
        self._add_parameter(graph, scope, name, prefix, array, is_constant=True)

    def _constant(self, attribute: AttributeProto, where: str) -> Array:
        value = helper.get_attribute_value(attribute)
        match attribute.name:
            case "value":
                return read_tensor(value, self.base, owner=f"the tensor of {where}")[1]()
            case "sparse_value":
                return dense(value, self.base)
            case "value_string":
                return np.asarray(value.decode(), dtype=object)
            case "value_strings":
                return np.asarray([text.decode() for text in value], dtype=object)
            case "value_float" | "value_floats":
                return np.asarray(value, dtype=np.float32)
            case "value_int" | "value_ints":
                return np.asarray(value, dtype=np.int64)
        raise ModelError(f"the attribute {attribute.name!r} is unknown")

    def _read_node(
        self, graph: Graph, proto: onnx.NodeProto, scope: Scope, declared: Declared, prefix: str
    ) -> list[Node]:
        domain = plain_domain(proto.domain)
        where = f"node {proto.name!r} ({proto.op_type})"
        inputs = [None if name == "" else self.lookup(scope, name, f"input of {where}") for name in proto.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        attributes = self._attributes(proto, where)
        bodies = {a.name: a.g for a in proto.attribute if a.type == AttributeProto.GRAPH}
        if bodies:
            stem = graph.unique_name(prefix + next(filter(None, proto.output), proto.op_type))
            captured = self._read_bodies(bodies, scope, attributes, where, stem)
            attributes["captures"] = len(captured)
            inputs += captured
        names = list(proto.output)
        while names and names[-1] == "":
            names.pop()
        repeated = [n for n, count in Counter(names).items() if n and (n in scope or count > 1)]
        if repeated:
            self.problems += [f"the name {n!r} is produced twice; names must be unique in a graph" for n in repeated]
            return []
        node = graph.add_node(
            proto.op_type,
            inputs,
            attributes,
            outputs=[self._name(graph, name, prefix) for name in names],
            domain=domain,
            name=prefix + (proto.name or (names[0] if names else proto.op_type)),
            version=self.opsets.get(domain),
        )
        for name, output in zip(names, node.outputs, strict=True):
            if name:
                scope[name] = output
            if name in declared:
                output.type = self._declared_type(declared[name], name)
        return [node]

    def _attributes(self, proto: onnx.NodeProto, where: str) -> dict[str, Attribute]:
        attributes: dict[str, Attribute] = {}
        for attribute in proto.attribute:
            if not is_text(attribute.name):
                self.problems.append(f"{where}: the attribute name {attribute.name!r} is no UTF-8 text")
            if attribute.name in attributes:
                self.problems.append(f"{where}: the attribute {attribute.name!r} is given twice")
            try:
                attributes[attribute.name] = self._attribute(attribute)
            except (ModelError, ValueError) as error:
                self.problems.append(f"{where}: the attribute {attribute.name!r} cannot be read: {error}")
        return attributes

    def _attribute(self, attribute: AttributeProto) -> Attribute:
        value: Any = helper.get_attribute_value(attribute)
        owner = f"the attribute {attribute.name!r}"
        match attribute.type:
            case AttributeProto.TENSOR:
                return read_tensor(value, self.base, owner=owner)[1]()
            case AttributeProto.TENSORS:
                return tuple(read_tensor(tensor, self.base, owner=owner)[1]() for tensor in value)
            case AttributeProto.SPARSE_TENSOR:
                return dense(value, self.base)
            case AttributeProto.STRING:
                return value.decode(errors="surrogateescape")
            case AttributeProto.STRINGS:
                return tuple(text.decode(errors="surrogateescape") for text in value)
            case AttributeProto.TYPE_PROTO:
                return type_from_proto(value)
            case AttributeProto.FLOATS | AttributeProto.INTS:
                return tuple(value)
            case AttributeProto.FLOAT | AttributeProto.INT | AttributeProto.GRAPH:
                return value
        raise ModelError(f"attributes of type {AttributeProto.AttributeType.Name(attribute.type)} are not supported")

    def _declared_type(self, proto: onnx.TypeProto, name: str) -> Type:
        """A declared type as far as it says anything certain: names of dimensions in it bind nothing."""
        try:
            kind = type_from_proto(proto)
        except ModelError as error:
            self.problems.append(f"the type declared for {name!r}: {error}")
            return UnknownType()
        if isinstance(kind, TensorType) and not dims.all_static(kind.shape):
            return TensorType(kind.dtype, None)
        return kind

    # ------------------------------------------------------------------ subgraphs and functions

    def _enter(self, what: str) -> None:
        self._depth += 1
        if self._depth > DEEPEST_NESTING:
            raise ModelError(f"{what} is nested more than {DEEPEST_NESTING} deep")

    def _read_bodies(
        self,
        bodies: Mapping[str, onnx.GraphProto],
        scope: Scope,
        attributes: dict[str, Attribute],
        where: str,
        stem: str,
    ) -> list[Value]:
        """Reads the subgraphs of one node. What they capture becomes inputs after their own, the same for all. Fresh
        names in them start with `stem`."""
        captured = list(dict.fromkeys(n for proto in bodies.values() for n in free_names(proto) if n in scope))
        for key, proto in bodies.items():
            self._enter(f"the subgraph {key!r} of {where}")
            body = Graph(str(proto.name or key), f"{stem}.{key}.")
            attributes[key] = self._read_body(body, proto, captured, scope)
            self._depth -= 1
        return [scope[name] for name in captured]

    def _read_body(self, body: Graph, proto: onnx.GraphProto, captured: Sequence[str], outer: Scope) -> Graph:
        name = body.name
        body.opsets = dict(self.opsets)
        own = [info.name for info in proto.input] + [tensor.name for tensor in proto.initializer]
        own += [result for node in proto.node for result in node.output]
        self.problems += [
            f"the name {inner!r} in subgraph {name!r} shadows one outside; names must differ"
            for inner in dict.fromkeys(own)
            if inner and inner in outer
        ]
        scope: Scope = {}
        for info in proto.input:
            kind = _with_symbols(info.name, self._input_type(info))
            self.define(scope, info.name, lambda name=info.name, kind=kind: self._add_own_input(body, name, kind))  # type: ignore[misc]
        for outside in captured:
            if outside not in scope:
                scope[outside] = body.add_input(outside, outer[outside].type)
        self.read_initializers(body, proto, scope)
        declared = {info.name: info.type for info in [*proto.value_info, *proto.output]}
        self.read_nodes(body, proto.node, scope, declared)
        body.set_outputs(self.lookup(scope, info.name, f"output of {name!r}") for info in proto.output)
        return body

    def _add_own_input(self, body: Graph, name: str, kind: Type) -> Value:
        return body.add_input(self._name(body, name, ""), kind)

    def _input_type(self, info: onnx.ValueInfoProto) -> Type:
        try:
            return type_from_proto(info.type)
        except ModelError as error:
            self.problems.append(f"input {info.name!r}: {error}")
            return UnknownType()

    def _read_call(self, graph: Graph, call: onnx.NodeProto, scope: Scope, prefix: str) -> list[Node]:
        """Writes the body of a function in the place of a call."""
        function = self.functions[function_key(call)]
        where = f"node {call.name!r} ({call.op_type})"
        if len(call.input) > len(function.input) or len(call.output) > len(function.output):
            self.problems.append(
                f"{where}: the function takes {len(function.input)} inputs, the call {len(call.input)}"
            )
            return []
        actual = [None if n == "" else self.lookup(scope, n, f"input of {where}") for n in call.input]
        self._enter(f"the call of function {call.op_type!r} by {where}")
        stem = f"{prefix}{call.name or next(filter(None, call.output), call.op_type)}."
        results, added = self.expand(graph, function, call, actual, stem)
        self._depth -= 1
        for name, value in zip(call.output, results, strict=False):
            if name in scope:
                self.problems.append(f"the name {name!r} is produced twice; names must be unique in a graph")
            elif name:
                scope[name] = value
                if value.producer in added and value.name not in call.output:
                    graph.rename(value, self._name(graph, name, prefix))
        return added

    def expand(
        self,
        graph: Graph,
        function: onnx.FunctionProto,
        call: onnx.NodeProto,
        actual: Sequence[Value | None],
        prefix: str,
    ) -> tuple[list[Value], list[Node]]:
        """Adds the nodes of a function, applied to `actual` with the attributes of `call`. Gives its results and the
        nodes."""
        outer, was_inside = self.opsets, self._in_function
        self._in_function = True
        self.opsets = {**outer, **opset_versions(function.opset_import)}
        body = body_of(function, call)
        scope = {formal: value for formal, value in zip(function.input, actual, strict=False) if value is not None}
        absent = set(function.input) - set(scope)
        for proto in body:
            _drop_names(proto, absent)
        added = self.read_nodes(graph, body, scope, None, prefix)
        self.opsets, self._in_function = outer, was_inside
        user = f"output of function {function.name!r}"
        return [self.lookup(scope, formal, user) for formal in function.output[: len(call.output)]], added


def is_text(name: object) -> bool:
    """Whether a name is text: protobuf gives bytes where it is not UTF-8."""
    return isinstance(name, str)


def _drop_names(proto: onnx.NodeProto, absent: set[str]) -> None:
    """Marks operands of a function that the call did not give as absent."""
    proto.input[:] = ["" if name in absent else name for name in proto.input]
    for attribute in proto.attribute:
        for inner in attribute.g.node if attribute.type == AttributeProto.GRAPH else ():
            _drop_names(inner, absent)


def _with_symbols(name: str, kind: Type) -> Type:
    if not isinstance(kind, TensorType) or kind.shape is None:
        return kind
    shape = tuple(dims.symbol(f"{name}.{axis}") if dim is None else dim for axis, dim in enumerate(kind.shape))
    return TensorType(kind.dtype, shape)
