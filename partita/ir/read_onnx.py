"""ONNX in: a model file, its bytes or a ModelProto becomes a Graph.

Weights are not copied: inline ones stay in the mapped file, external ones in theirs.
"""

from __future__ import annotations

import hashlib
import mmap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from partita.errors import ModelError, PartitaError
from partita.ir import dims, wire
from partita.ir.functions import expanded_size, functions_by_key, opset_versions, recursion
from partita.ir.graph import Graph, Value
from partita.ir.maps import take_out_maps
from partita.ir.protobuf import type_from_proto
from partita.ir.read_graph import GraphReader, Scope
from partita.ir.schema import NEWEST_OPSET
from partita.ir.types import TensorType, Type, UnknownType

ModelSource = str | Path | bytes | onnx.ModelProto
Shapes = Mapping[str, Sequence[int | str | None]]

NEWEST_IR_VERSION: int = onnx.IR_VERSION
LARGEST_MESSAGE = (1 << 31) - 1  # bytes: protobuf's own limit
LARGEST_EXPANSION = 1_000_000  # nodes, once functions are written out


def read_onnx(source: ModelSource, shapes: Shapes | None = None) -> Graph:
    """Reads a model. `shapes` fixes input shapes: a number fixes a dimension, a name makes it symbolic, None leaves
    it. `ModelError` tells what is wrong with the file, all problems of a kind at once."""
    try:
        model, raw, base, digest = _open(source)
        _check_header(model)
        _check_functions(model)
        model, maps = take_out_maps(model)
        graph = _read(model, raw, base, shapes or {})
        graph.digest, graph.maps = digest, maps
        return graph
    except PartitaError:
        raise
    except Exception as error:  # damaged messages make the libraries raise anything
        raise ModelError(f"the model is damaged: {type(error).__name__}: {error}") from error


def _open(source: ModelSource) -> tuple[onnx.ModelProto, list[memoryview | None], Path | None, str]:
    """The message without large weights, the weights' bytes, the folder of external files, and the message's digest."""
    if isinstance(source, onnx.ModelProto):
        return source, [], None, ""
    base: Path | None = None
    if isinstance(source, bytes):
        data = memoryview(source)
    else:
        path = Path(source)
        base = path.parent
        data = _map(path)
    if not len(data):
        raise ModelError("the model is empty: 0 bytes; export it again")
    if len(data) > LARGEST_MESSAGE:
        raise ModelError(
            f"the model takes {len(data)} bytes, more than protobuf allows; store weights as external data"
        )
    try:
        slim = wire.slim(data)
        model = onnx.ModelProto.FromString(slim.message)
    except (ValueError, DecodeError) as error:
        where = "the bytes given" if base is None else repr(str(source))
        raise ModelError(
            f"{where} cannot be read as an ONNX model: {error}; is it another format, or cut off?"
        ) from error
    weights = [None if piece is None else data[piece[0] : sum(piece)] for piece in slim.raw]
    return model, weights, base, _digest(slim.message, model)


def _digest(message: bytes, model: onnx.ModelProto) -> str:
    """The digest of a message; "" where some constant, rather than a weight, lies in another file."""
    external = sum(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    return "" if message.count(b"location") > external else hashlib.sha256(message).hexdigest()


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
    domains = [entry.domain or "ai.onnx" for entry in model.opset_import]
    if not domains and model.ir_version >= 3:
        raise ModelError("the model imports no operator set; the exporter must write opset_import")
    versions = {(entry.domain or "ai.onnx", entry.version) for entry in model.opset_import}
    repeated = sorted({domain for domain in domains if sum(domain == name for name, _ in versions) > 1})
    if repeated:
        raise ModelError(f"operator set {', '.join(repeated)} is imported in two versions; keep one each")
    for entry in [*model.opset_import, *(entry for f in model.functions for entry in f.opset_import)]:
        if entry.domain in ("", "ai.onnx") and not 1 <= entry.version <= NEWEST_OPSET:
            raise ModelError(f"opset {entry.version} is outside the supported 1 to {NEWEST_OPSET}; convert the model")
    if not model.graph.output:
        raise ModelError("the graph has no outputs: nothing to compute")


def _check_functions(model: onnx.ModelProto) -> None:
    functions = functions_by_key(model.functions)
    cycle = recursion(functions)
    if cycle:
        names = " -> ".join(f"{domain or 'ai.onnx'}::{name}" for domain, name, _ in [*cycle, cycle[0]])
        raise ModelError(f"functions call themselves: {names}; ONNX has no recursion")
    size = expanded_size(functions, model.graph.node)
    if size > LARGEST_EXPANSION:
        raise ModelError(f"{size} nodes once functions are written out; up to {LARGEST_EXPANSION} are supported")


def _read(model: onnx.ModelProto, raw: list[memoryview | None], base: Path | None, shapes: Shapes) -> Graph:
    proto = model.graph
    reader = GraphReader(opset_versions(model.opset_import) or {"": 1}, model.functions, base)
    reader.reserved = {name for node in proto.node for name in node.output}
    graph = Graph(str(proto.name or "graph"))
    graph.opsets = dict(reader.opsets)
    scope: Scope = {}
    reader.read_initializers(graph, proto, scope, raw)
    inputs = _Inputs(reader, shapes)
    inputs.read(graph, model, scope)
    reader.check()
    declared = {} if shapes else {info.name: info.type for info in [*proto.value_info, *proto.output]}
    reader.read_nodes(graph, proto.node, scope, declared)
    graph.set_outputs(reader.lookup(scope, info.name, "output of the graph") for info in proto.output)
    reader.check()
    return graph


class _Inputs:
    """The inputs of the model, with the shapes that the caller gave."""

    def __init__(self, reader: GraphReader, shapes: Shapes) -> None:
        self.problems = reader.problems
        self.reader = reader
        self.shapes = shapes

    def read(self, graph: Graph, model: onnx.ModelProto, scope: Scope) -> None:
        names = [info.name for info in model.graph.input if info.name not in scope]
        unknown = sorted(set(self.shapes) - set(names))
        if unknown:
            self.problems.append(
                f"shapes names {', '.join(map(repr, unknown))}, but the inputs are {', '.join(map(repr, names))}"
            )
        defaults = [info.name for info in model.graph.input if info.name in scope]
        if defaults and model.ir_version >= 4:  # before that every initializer had to be an input
            warnings.warn(
                f"inputs {', '.join(map(repr, defaults))} have default values: they became parameters, to be changed "
                "by binding other weights",
                stacklevel=4,
            )
        for info in model.graph.input:
            if info.name not in defaults:
                kind = self._type(info)
                self.reader.define(scope, info.name, _adder(graph, info.name, kind))

    def _type(self, info: onnx.ValueInfoProto) -> Type:
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


def _adder(graph: Graph, name: str, kind: Type) -> Any:
    def add() -> Value:
        return graph.add_input(name, kind)

    return add
