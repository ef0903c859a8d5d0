"""Constant folding of small nodes: numbers of the program's, computed by ONNX's reference. Weights play no part: what
they give is computed when they are bound."""

from __future__ import annotations

from typing import Any

import numpy as np

from partita.ir import dims
from partita.ir.contents import Known
from partita.ir.graph import Graph, Node, Value
from partita.ir.protobuf import node_to_proto
from partita.ir.schema import schema_of
from partita.ir.types import DType, TensorType

LARGEST_FOLDED = 64  # elements of an operand or result
TYPES = frozenset(
    [
        DType.BOOL,
        DType.FLOAT16,
        DType.FLOAT32,
        DType.FLOAT64,
        DType.INT8,
        DType.INT16,
        DType.INT32,
        DType.INT64,
        DType.UINT8,
        DType.UINT16,
        DType.UINT32,
        DType.UINT64,
    ]
)


def folded(node: Node) -> Known | None:
    """The content of the only output of `node`, or None where it is not a small matter of numbers."""
    if not _is_foldable(node):
        return None
    operands = [number(value) for value in node.operands]
    if any(operand is None for operand in operands):
        return None
    from onnx.reference import ReferenceEvaluator

    try:
        with np.errstate(all="ignore"):
            feeds = {value.name: operand for value, operand in zip(node.operands, operands, strict=True)}
            result: Any = ReferenceEvaluator(node_to_proto(node), opsets={"": node.version}).run(None, feeds)
    except Exception:  # what the reference cannot do, the run will
        return None
    array = np.asarray(result[0])
    expected = node.output.tensor
    if array.dtype != expected.dtype.numpy or array.shape != expected.dims:
        return None
    return array.astype(object)


def _is_foldable(node: Node) -> bool:
    schema: Any = schema_of(node.op_type, node.version, node.domain) if node.domain == "" else None
    if schema is None or len(node.outputs) != 1 or not node.operands or node.op_type == "Identity":
        return False
    if any(isinstance(attribute, Graph) for attribute in node.attributes.values()):
        return False
    return not schema.non_deterministic and _is_small(node.output)


def _is_small(value: Value) -> bool:
    kind = value.type
    if not isinstance(kind, TensorType) or kind.dtype not in TYPES or not dims.all_static(kind.shape):
        return False
    return bool(dims.product(kind.dims) <= LARGEST_FOLDED)


def number(value: Value) -> np.ndarray[Any, Any] | None:
    """A value of the program's as an array: known, small and without symbols."""
    if not _is_small(value):
        return None
    if value.known is not None:
        if any(not isinstance(element, int | float) for element in value.known.reshape(-1)):
            return None
        return value.known.astype(value.tensor.dtype.numpy)
    if value.parameter is not None and value.parameter.is_constant:
        return value.parameter.array
    return None
