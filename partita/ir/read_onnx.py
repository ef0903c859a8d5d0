"""ONNX in: a model file, its bytes or a ModelProto becomes a Graph.

Weights are not copied: inline ones stay in the mapped file, external ones in theirs. Captured values of subgraphs
become explicit operands, so that every graph stands on its own.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from partita.errors import ModelError
from partita.ir import dims, wire
from partita.ir.external_data import external_array
from partita.ir.graph import Attribute, Graph, Value
from partita.ir.protobuf import array_from_tensor, type_from_proto
from partita.ir.types import DType, TensorType, Type, UnknownType

ModelSource = str | Path | bytes | onnx.ModelProto
Shapes = Mapping[str, Sequence[int | str | None]]
Load = Callable[[], np.ndarray[Any, Any]]

NEWEST_OPSET: int = onnx.defs.onnx_opset_version()
NEWEST_IR_VERSION: int = onnx.IR_VERSION


def read_onnx(source: ModelSource, shapes: Shapes | None = None) -> Graph:
    """Reads a model. `shapes` fixes input shapes: a number fixes a dimension, a name makes it symbolic, None leaves
    it. `ModelError` tells what is wrong with the file, all problems of a kind at once."""
    model, raw, base = _open(source)
    _check_header(model)
    graph = _Reader(model, raw, base, shapes or {}).read()
    return graph


def _open(source: ModelSource) -> tuple[onnx.ModelProto, list[memoryview | None], Path | None]:
    if isinstance(source, onnx.ModelProto):
        return source, [None] * len(source.graph.initializer), None
    base: Path | None = None
    if isinstance(source, bytes):
        data = memoryview(source)
    else:
        path = Path(source)
        base = path.parent
        data = _map(path)
    if not len(data):
        raise ModelError("the model is empty: 0 bytes; export it again")
    try:
        slim = wire.slim(data)
        model = onnx.ModelProto.FromString(slim.message)
    except (ValueError, DecodeError) as error:
        where = "the bytes given" if base is None else repr(str(source))
        raise ModelError(
            f"{where} cannot be read as an ONNX model: {error}; is it another format, or cut off?"
        ) from error
    return model, [None if piece is None else data[piece[0] : sum(piece)] for piece in slim.raw], base


def _map(path: Path) -> memoryview:
    try:
        if not path.is_file():
            raise ModelError(f"{str(path)!r} is not a file; give the path of an ONNX model")
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be opened: {error.strerror}") from error


def _check_header(model: onnx.ModelProto) -> None:
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise ModelError("the file holds no ONNX graph: is it another format, or only weights?")
    if not 1 <= model.ir_version <= NEWEST_IR_VERSION:
        raise ModelError(
            f"IR version {model.ir_version} is outside the supported 1 to {NEWEST_IR_VERSION}; "
            "export the model again, or install a newer onnx"
        )
    domains = [entry.domain for entry in model.opset_import]
    if not domains and model.ir_version >= 3:
        raise ModelError("the model imports no operator set; the exporter must write opset_import")
    repeated = sorted({domain or "ai.onnx" for domain in domains if domains.count(domain) > 1})
    if repeated:
        raise ModelError(f"operator set {', '.join(repeated)} is imported more than once; keep one version each")
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and not 1 <= entry.version <= NEWEST_OPSET:
            raise ModelError(f"opset {entry.version} is outside the supported 1 to {NEWEST_OPSET}; convert the model")
    if not model.graph.output:
        raise ModelError("the graph has no outputs: nothing to compute")


class _Reader:
    """One reading of one model; holds what the pieces share."""

    def __init__(self, model: onnx.ModelProto, raw: list[memoryview | None], base: Path | None, shapes: Shapes) -> None:
        self.model = model
        self.raw = raw
        self.base = base
        self.shapes = shapes
        self.opsets = {("" if e.domain == "ai.onnx" else e.domain): e.version for e in model.opset_import} or {"": 1}
        self.functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self.problems: list[str] = []

    def read(self) -> Graph:
        proto = self.model.graph
        graph = Graph(proto.name or "graph")
        graph.opsets = dict(self.opsets)
        scope: dict[str, Value] = {}
        self._read_initializers(graph, proto, scope)
        self._read_inputs(graph, proto, scope)
        declared = {} if self.shapes else {info.name: info.type for info in [*proto.value_info, *proto.output]}
        self._read_nodes(graph, proto.node, scope, declared)
        graph.set_outputs(self._lookup(scope, info.name, "output of the graph") for info in proto.output)
        self._raise()
        return graph

    def _raise(self) -> None:
        if self.problems:
            raise ModelError("\n".join(dict.fromkeys(self.problems)))

    def _lookup(self, scope: Mapping[str, Value], name: str, user: str) -> Value:
        if name not in scope:
            self.problems.append(f"value {name!r}, {user}, is produced by nothing")
            return Value(name)
        return scope[name]

    # ------------------------------------------------------------------ parameters and inputs

    def _read_initializers(self, graph: Graph, proto: onnx.GraphProto, scope: dict[str, Value]) -> None:
        for position, tensor in enumerate(proto.initializer):
            raw = self.raw[position] if proto is self.model.graph and position < len(self.raw) else None
            self._add_parameter(graph, scope, tensor.name, tensor, raw)
        for sparse in proto.sparse_initializer:
            array = _dense(sparse)
            self._define(
                scope,
                sparse.values.name,
                lambda name, a=array: graph.add_parameter(name, _type_of(a), lambda: a),
            )
        self._raise()

    def _add_parameter(
        self,
        graph: Graph,
        scope: dict[str, Value],
        name: str,
        tensor: onnx.TensorProto,
        raw: memoryview | None,
        *,
        is_constant: bool = False,
    ) -> None:
        try:
            kind, load = self._tensor(tensor, raw)
        except ModelError as error:
            self.problems.append(str(error))
            return
        self._define(scope, name, lambda unique: graph.add_parameter(unique, kind, load, is_constant=is_constant))

    def _tensor(self, tensor: onnx.TensorProto, raw: memoryview | None) -> tuple[TensorType, Load]:
        where = f"initializer {tensor.name!r}"
        try:
            dtype = DType.from_onnx(tensor.data_type)
        except KeyError:
            raise ModelError(f"{where}: element type {tensor.data_type} is not one of ONNX's") from None
        shape = tuple(int(dim) for dim in tensor.dims)
        if any(dim < 0 for dim in shape):
            raise ModelError(f"{where}: shape {shape} has a negative dimension")
        kind = TensorType(dtype, shape)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            array = external_array(tensor, dtype, shape, self.base)
            return kind, lambda: array
        if raw is not None:
            if dtype.bits < 8 or dtype is DType.STRING:
                tensor = onnx.TensorProto.FromString(tensor.SerializeToString())
                tensor.raw_data = bytes(raw)
            else:
                return kind, _view(raw, dtype, shape, where)
        array = array_from_tensor(tensor, where)
        return kind, lambda: array

    def _read_inputs(self, graph: Graph, proto: onnx.GraphProto, scope: dict[str, Value]) -> None:
        unknown = sorted(set(self.shapes) - {info.name for info in proto.input})
        if unknown:
            names = ", ".join(repr(info.name) for info in proto.input if info.name not in scope)
            self.problems.append(f"shapes names {', '.join(map(repr, unknown))}, but the inputs are {names}")
        for info in proto.input:
            if info.name in scope:
                continue  # an initializer with the same name is its default: a parameter
            kind = self._input_type(info)
            self._define(scope, info.name, lambda name, kind=kind: graph.add_input(name, kind))
        self._raise()

    def _input_type(self, info: onnx.ValueInfoProto) -> Type:
        try:
            kind = type_from_proto(info.type)
        except ModelError as error:
            self.problems.append(f"input {info.name!r}: {error}")
            return UnknownType()
        if isinstance(kind, UnknownType):
            self.problems.append(f"input {info.name!r} has no type; the exporter must write one")
        if not isinstance(kind, TensorType):
            return kind
        given = self.shapes.get(info.name)
        if given is None:
            if kind.shape is None:
                return kind
            given = [None] * len(kind.shape)
        shape = kind.shape if kind.shape is not None else (None,) * len(given)
        if len(given) != len(shape):
            self.problems.append(
                f"shapes gives input {info.name!r} rank {len(given)} {tuple(given)}, but the model has {kind}"
            )
            return kind
        return TensorType(
            kind.dtype,
            tuple(self._dim(info.name, n, d, g) for n, (d, g) in enumerate(zip(shape, given, strict=True))),
        )

    def _dim(self, name: str, axis: int, declared: Any, given: int | str | None) -> Any:
        if given is None:
            return declared if declared is not None else dims.symbol(f"{name}.{axis}")
        if isinstance(given, str):
            return dims.symbol(given)
        if int(given) < 0 or (isinstance(declared, int) and declared != given):
            self.problems.append(f"shapes fixes axis {axis} of input {name!r} at {given}, but the model has {declared}")
        return int(given)

    def _define(self, scope: dict[str, Value], name: str, make: Callable[[str], Value]) -> None:
        if not name:
            self.problems.append("a value without a name cannot be referred to")
        elif name in scope:
            self.problems.append(f"the name {name!r} is produced twice; names must be unique in a graph")
        else:
            scope[name] = make(name)

    # ------------------------------------------------------------------ nodes

    def _read_nodes(
        self,
        graph: Graph,
        protos: Sequence[onnx.NodeProto],
        scope: dict[str, Value],
        declared: Mapping[str, onnx.TypeProto],
    ) -> None:
        for proto in _sorted(protos, scope, self.problems):
            function = self.functions.get((proto.domain, proto.op_type, proto.overload))
            if function is not None:
                self._inline(graph, proto, function, scope)
            elif proto.op_type == "Constant" and proto.domain in ("", "ai.onnx") and len(proto.output) == 1:
                self._read_constant(graph, proto, scope)
            else:
                self._read_node(graph, proto, scope, declared)
        self._raise()

    def _read_constant(self, graph: Graph, proto: onnx.NodeProto, scope: dict[str, Value]) -> None:
        if len(proto.attribute) != 1:
            self.problems.append(f"node {proto.name!r} (Constant) must have exactly one attribute")
            return
        attribute = proto.attribute[0]
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            self._add_parameter(graph, scope, proto.output[0], value, None, is_constant=True)
            return
        if attribute.name == "sparse_value":
            array = _dense(value)
        elif attribute.name in ("value_string", "value_strings"):
            decoded = value.decode() if isinstance(value, bytes) else [text.decode() for text in value]
            array = np.asarray(decoded, dtype=object)
        else:
            array = np.asarray(value, dtype=np.float32 if "float" in attribute.name else np.int64)
        self._define(
            scope,
            proto.output[0],
            lambda name: graph.add_parameter(name, _type_of(array), lambda: array, is_constant=True),
        )

    def _read_node(
        self,
        graph: Graph,
        proto: onnx.NodeProto,
        scope: dict[str, Value],
        declared: Mapping[str, onnx.TypeProto],
    ) -> None:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        user = f"input of node {proto.name!r} ({proto.op_type})"
        inputs = [None if name == "" else self._lookup(scope, name, user) for name in proto.input]
        while inputs and inputs[-1] is None:
            inputs.pop()
        attributes: dict[str, Attribute] = {}
        bodies: list[tuple[str, onnx.GraphProto]] = []
        for attribute in proto.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                bodies.append((attribute.name, attribute.g))
            else:
                attributes[attribute.name] = self._attribute(attribute)
        if bodies:
            captured = self._read_bodies(bodies, scope, attributes)
            attributes["captures"] = len(captured)
            inputs += captured
        names = list(proto.output)
        while names and names[-1] == "":
            names.pop()
        for name in names:
            if name in scope and name:
                self.problems.append(f"the name {name!r} is produced twice; names must be unique in a graph")
                return
        node = graph.add_node(
            proto.op_type,
            inputs,
            attributes,
            outputs=names,
            domain=domain,
            name=proto.name or (names[0] if names else ""),
            version=self.opsets.get(domain),
        )
        for name, output in zip(names, node.outputs, strict=True):
            if name:
                scope[name] = output
                if name in declared:
                    output.type = _declared_type(declared[name])

    def _attribute(self, attribute: onnx.AttributeProto) -> Attribute:
        value = helper.get_attribute_value(attribute)
        match attribute.type:
            case onnx.AttributeProto.TENSOR:
                return self._tensor(value, None)[1]()
            case onnx.AttributeProto.STRING:
                return value.decode(errors="surrogateescape")
            case onnx.AttributeProto.STRINGS:
                return tuple(text.decode(errors="surrogateescape") for text in value)
            case onnx.AttributeProto.TYPE_PROTO:
                return type_from_proto(value)
            case onnx.AttributeProto.SPARSE_TENSOR:
                return _dense(value)
            case onnx.AttributeProto.TENSORS:
                return tuple(self._tensor(tensor, None)[1]() for tensor in value)
            case onnx.AttributeProto.FLOATS | onnx.AttributeProto.INTS:
                return tuple(value)
            case _:
                return value

    # ------------------------------------------------------------------ subgraphs and functions

    def _read_bodies(
        self,
        bodies: Sequence[tuple[str, onnx.GraphProto]],
        scope: Mapping[str, Value],
        attributes: dict[str, Attribute],
    ) -> list[Value]:
        """Reads the subgraphs of one node. What they capture becomes inputs after their own, the same for all."""
        captured = list(dict.fromkeys(name for _, proto in bodies for name in _free_names(proto) if name in scope))
        for key, proto in bodies:
            body = Graph(proto.name or key)
            body.opsets = dict(self.opsets)
            inner: dict[str, Value] = {}
            for info in proto.input:
                kind = type_from_proto(info.type)
                self._define(inner, info.name, lambda name, kind=kind: body.add_input(name, _anonymous(name, kind)))
            for name in captured:
                if name in inner:
                    self.problems.append(f"the name {name!r} in subgraph {body.name!r} shadows one outside")
                    continue
                inner[name] = body.add_input(name, scope[name].type)
            self._read_initializers(body, proto, inner)
            declared = {info.name: info.type for info in [*proto.value_info, *proto.output]}
            self._read_nodes(body, proto.node, inner, declared)
            body.set_outputs(self._lookup(inner, info.name, f"output of {body.name!r}") for info in proto.output)
            attributes[key] = body
        return [scope[name] for name in captured]

    def _inline(
        self, graph: Graph, call: onnx.NodeProto, function: onnx.FunctionProto, scope: dict[str, Value]
    ) -> None:
        """Writes the body of a model-local function in the place of its call."""
        key = (function.domain, function.name, function.overload)
        del self.functions[key]  # a function that calls itself finds an unknown operator
        outer = self.opsets
        self.opsets = {
            **outer,
            **{("" if e.domain == "ai.onnx" else e.domain): e.version for e in function.opset_import},
        }
        user = f"input of node {call.name!r} ({call.op_type})"
        inner = {
            formal: self._lookup(scope, actual, user)
            for formal, actual in zip(function.input, call.input, strict=False)
            if actual
        }
        given = {attribute.name: attribute for attribute in call.attribute}
        given = {**{a.name: a for a in function.attribute_proto}, **given}
        body = [_specialized(proto, call, function, given) for proto in function.node]
        renamed = {name: f"{call.output[0]}.{name}" for proto in body for name in proto.output if name}
        for proto in body:
            proto.input[:] = [renamed.get(name, name) for name in proto.input]
            proto.output[:] = [renamed.get(name, name) for name in proto.output]
        missing = set(function.input) - set(inner)
        for proto in body:
            proto.input[:] = ["" if name in missing else name for name in proto.input]
        self._read_nodes(graph, body, inner, {})
        for formal, actual in zip(function.output, call.output, strict=False):
            if actual:
                value = self._lookup(inner, renamed.get(formal, formal), f"output of function {function.name!r}")
                if value.producer is not None and actual != value.name and not graph.is_output(value):
                    graph.rename(value, actual)
                scope[actual] = value
        self.functions[key] = function
        self.opsets = outer


# ---------------------------------------------------------------------- helpers


def _declared_type(proto: onnx.TypeProto) -> Type:
    """A declared type as far as it says anything certain: names of dimensions in it bind nothing."""
    kind = type_from_proto(proto)
    if isinstance(kind, TensorType) and not dims.all_static(kind.shape):
        return TensorType(kind.dtype, None)
    return kind


def _anonymous(name: str, kind: Type) -> Type:
    if not isinstance(kind, TensorType) or kind.shape is None:
        return kind
    shape = tuple(dims.symbol(f"{name}.{n}") if dim is None else dim for n, dim in enumerate(kind.shape))
    return TensorType(kind.dtype, shape)


def _type_of(array: np.ndarray[Any, Any]) -> TensorType:
    return TensorType(DType.of(array.dtype), tuple(map(int, array.shape)))


def _view(raw: memoryview, dtype: DType, shape: tuple[int, ...], where: str) -> Load:
    expected = dims.product(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ModelError(f"{where}: raw data of {len(raw)} bytes, but shape {shape} of {dtype!r} takes {expected}")
    return lambda: np.frombuffer(raw, dtype=dtype.numpy).reshape(shape)


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray[Any, Any]:
    values = array_from_tensor(sparse.values, "a sparse tensor")
    indices = array_from_tensor(sparse.indices, "a sparse tensor")
    dense = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense


def _free_names(proto: onnx.GraphProto) -> list[str]:
    """Names that a subgraph reads from outside, in order of first use."""
    own = {info.name for info in proto.input} | {tensor.name for tensor in proto.initializer}
    own |= {sparse.values.name for sparse in proto.sparse_initializer}
    own |= {name for node in proto.node for name in node.output}
    free: list[str] = []
    for node in proto.node:
        free += node.input
        free += [n for a in node.attribute if a.type == onnx.AttributeProto.GRAPH for n in _free_names(a.g)]
    free += [info.name for info in proto.output]
    return [name for name in dict.fromkeys(free) if name and name not in own]


def _reads(proto: onnx.NodeProto) -> list[str]:
    inner = [n for a in proto.attribute if a.type == onnx.AttributeProto.GRAPH for n in _free_names(a.g)]
    return [name for name in [*proto.input, *inner] if name]


def _sorted(protos: Sequence[onnx.NodeProto], scope: Mapping[str, Value], problems: list[str]) -> list[onnx.NodeProto]:
    """The nodes in an order that computes before it reads; the given one wherever it does. Cycles are problems."""
    producers = {name: index for index, proto in enumerate(protos) for name in proto.output if name}
    state = [0] * len(protos)  # 0 new, 1 open, 2 done
    order: list[onnx.NodeProto] = []
    for root in range(len(protos)):
        stack = [root]
        while stack:
            index = stack[-1]
            if state[index] == 2:
                stack.pop()
                continue
            state[index] = 1
            wanted = [producers[n] for n in _reads(protos[index]) if n in producers and n not in scope]
            waiting = [w for w in dict.fromkeys(wanted) if state[w] != 2]
            circular = [w for w in waiting if state[w] == 1]
            if circular:
                names = [protos[w].name or protos[w].op_type for w in (*circular, index)]
                problems.append(f"the graph has a cycle through {' -> '.join(map(repr, names))}")
                state[index] = 2
                stack.pop()
            elif waiting:
                stack += reversed(waiting)
            else:
                state[index] = 2
                order.append(protos[index])
                stack.pop()
    return order


def _specialized(
    proto: onnx.NodeProto,
    call: onnx.NodeProto,
    function: onnx.FunctionProto,
    given: Mapping[str, onnx.AttributeProto],
) -> onnx.NodeProto:
    """A node of a function's body with the call's attributes filled in."""
    result = onnx.NodeProto()
    result.CopyFrom(proto)
    result.name = f"{call.name or call.op_type}.{proto.name or proto.op_type}"
    del result.attribute[:]
    for attribute in proto.attribute:
        if not attribute.ref_attr_name:
            result.attribute.append(attribute)
        elif attribute.ref_attr_name in given:
            actual = onnx.AttributeProto()
            actual.CopyFrom(given[attribute.ref_attr_name])
            actual.name = attribute.name
            result.attribute.append(actual)
    return result
