"""Types, shapes and known contents of every value, in one walk over the graph.

An operator's own definition speaks first; ONNX's shape inference answers for the others. Dimensions that neither can
tell become fresh symbols, named after the value and axis.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, shape_inference

from partita.errors import ModelError, PartitaError, ShapeError, UnsupportedOperatorError
from partita.ir import dims
from partita.ir.contents import DataDependentError, Known, known
from partita.ir.folding import folded
from partita.ir.graph import Graph, Node, Value
from partita.ir.known_contents import content as content_of
from partita.ir.operators import Operator, definition
from partita.ir.protobuf import node_to_proto, type_from_proto, type_to_proto
from partita.ir.types import (
    DIMENSION_TYPES,
    DType,
    TensorType,
    Type,
    UndeterminedTypeError,
    UnknownType,
    check_shape,
)

LARGEST_KNOWN = 64  # elements: shapes, axes and pads are small; larger contents are data


def infer(graph: Graph, *, declared: bool = True) -> None:
    """Types every value; `ShapeError` lists all nodes whose operands do not fit. A type that a value has already must
    agree with what is inferred, unless `declared` is off: then it only fills in what inference cannot tell."""
    problems: list[str] = []
    for node in graph.nodes:
        try:
            infer_node(node, declared=declared)
        except PartitaError as error:
            problems.append(str(error))
            if any(isinstance(output.type, UnknownType) for output in node.outputs):
                break  # what follows would only repeat this
    if problems:
        raise ShapeError("\n".join(problems))


def infer_node(node: Node, *, declared: bool = True) -> None:
    """Types the outputs of one node, and their contents where they are shape arithmetic; see `infer`."""
    operator = definition(node)
    types = inferred_types(node)
    for output, inferred in zip(node.outputs, types, strict=False):
        output.type = _merged(node, output, inferred, declared)
        if isinstance(output.type, TensorType) and output.type.shape is not None:
            check_shape(output.type.shape, node.describe())
    if node.outputs:
        node.output.known = _content(node, operator)


def inferred_types(node: Node) -> Sequence[Type]:
    """The types that the outputs of `node` have by what it computes. Dimensions that cannot be told are None."""
    try:
        return _types(node, definition(node))
    except PartitaError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ShapeError(f"{node.describe()}: {error}") from error


def _types(node: Node, operator: Operator | None) -> Sequence[Type]:
    """What the definition says or, where it cannot tell (a shape that depends on data, a training step), ONNX."""
    with contextlib.suppress(DataDependentError, UndeterminedTypeError, UnsupportedOperatorError):
        if operator is not None and operator.infer is not None:
            types = operator.infer(node)
            return types if isinstance(types, Sequence) else (types,)
        if operator is not None and operator.routine is not None:
            return operator.routine(node).results
        if operator is not None and operator.compute is not None:
            return [TensorType(c.dtype, c.shape) for c in operator.computations(node)]
    return _onnx_types(node)


def _merged(node: Node, output: Value, inferred: Type, strict: bool) -> Type:
    """The inferred type against the declared one: what is known wins, a contradiction is an error."""
    declared = output.type
    if isinstance(declared, UnknownType) or not isinstance(declared, TensorType):
        return declared if isinstance(inferred, UnknownType) else _named(output, inferred, None)
    if not isinstance(inferred, TensorType):
        return declared if isinstance(inferred, UnknownType) else inferred
    if inferred.shape is None:
        return TensorType(inferred.dtype, declared.shape)
    if strict and (declared.dtype is not inferred.dtype or _contradict(declared.shape, inferred.shape)):
        raise ShapeError(
            f"{node.describe()}: output {output.name!r} is declared as {declared}, but computes as {inferred}"
        )
    return _named(output, inferred, declared.shape)


def _contradict(first: tuple[dims.Dim, ...] | None, second: tuple[dims.Dim, ...]) -> bool:
    if first is None:
        return False
    if len(first) != len(second):
        return True
    return any(dims.is_static(a) and dims.is_static(b) and a != b for a, b in zip(first, second, strict=True))


def _named(output: Value, inferred: Type, declared: tuple[dims.Dim, ...] | None) -> Type:
    """`inferred` with its anonymous dimensions (None) as declared, or named after the value."""
    if not isinstance(inferred, TensorType) or inferred.shape is None or None not in inferred.shape:
        return inferred
    if declared is None or len(declared) != len(inferred.shape):
        declared = tuple(dims.symbol(f"{output.name}.{axis}") for axis in range(len(inferred.shape)))
    shape = tuple(b if a is None else a for a, b in zip(inferred.shape, declared, strict=True))
    return TensorType(inferred.dtype, shape)


def _content(node: Node, operator: Operator | None) -> Known | None:
    """What the first output of `node` holds, where it is small: by the operator's rule on dimensions or, if all
    operands are numbers of the program's, by the reference."""
    tensor = node.output.type
    if not isinstance(tensor, TensorType) or not dims.all_static(tensor.shape):
        return None
    if dims.product(tensor.dims) > LARGEST_KNOWN:
        return None
    content = _propagated(node, operator) if operator is not None and tensor.dtype in DIMENSION_TYPES else None
    if content is None:
        return folded(node)
    normal = np.empty(content.shape, dtype=object)
    for position in np.ndindex(content.shape):
        normal[position] = dims.simplified(content[position])
    return normal


def _propagated(node: Node, operator: Operator) -> Known | None:
    """The content by the operator's own rule or, from known contents, by its expression."""
    if operator.propagate is not None:
        return operator.propagate(node)
    with contextlib.suppress(DataDependentError):
        return content_of(operator.computations(node)[0]) if operator.compute is not None else None
    return None


# ---------------------------------------------------------------------- ONNX's own inference, node by node


def _onnx_types(node: Node) -> list[Type]:
    names: dict[str, dims.Dim] = {}
    inputs = [
        helper.make_value_info(value.name, type_to_proto(value.type, names)) for value in dict.fromkeys(node.operands)
    ]
    initializers = [_small_tensor(value) for value in dict.fromkeys(node.operands)]
    graph = helper.make_graph(
        [node_to_proto(node)],
        "node",
        inputs,
        [onnx.ValueInfoProto(name=output.name) for output in node.outputs],
        initializer=[tensor for tensor in initializers if tensor is not None],
    )
    opsets = [helper.make_opsetid(node.domain, max(node.version, 1))]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=onnx.IR_VERSION)
    try:
        inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(f"{node.describe()}: {error}") from error
    for info in inferred.graph.output:
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param not in names:  # "unk__0", of every node anew
                dim.ClearField("dim_param")
    found = {info.name: type_from_proto(info.type, names) for info in inferred.graph.output}
    return [found.get(output.name, UnknownType()) for output in node.outputs]


def _small_tensor(value: Value) -> onnx.TensorProto | None:
    """The content of an operand that ONNX's inference may want to see, when it is small and known."""
    if not isinstance(value.type, TensorType) or not dims.all_static(value.type.shape):
        return None
    if value.type.dtype not in (DType.INT64, DType.INT32) or dims.product(value.type.dims) > LARGEST_KNOWN:
        return None
    content = known(value)
    if content is None or not all(isinstance(dim, int) for dim in content.reshape(-1)):
        return None
    return onnx.numpy_helper.from_array(content.astype(value.type.dtype.numpy), value.name)
