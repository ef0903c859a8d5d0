"""Sequences and optional values: what their operators give.

A sequence says of its elements what all have in common. What is taken out of one has sizes of its own: symbols, named
after the value, that are set when it is taken out.
"""

from __future__ import annotations

import functools

from partita.errors import ShapeError
from partita.ir import dims
from partita.ir.graph import Node, Value
from partita.ir.registry import infers
from partita.ir.types import DType, OptionalType, SequenceType, TensorType, Type, UndeterminedTypeError


def is_list(value: Value) -> bool:
    """Whether a value is a sequence or optional: a list of tensors, when it runs."""
    return isinstance(value.type, SequenceType | OptionalType)


def has_lists(node: Node) -> bool:
    """Whether a node reads or gives sequences or optional values."""
    return any(map(is_list, (*node.operands, *node.outputs)))


def element_of(kind: Type) -> TensorType:
    """The tensors in a sequence or an optional value; sizes that are no number are None."""
    while isinstance(kind, SequenceType | OptionalType):
        kind = kind.element
    if not isinstance(kind, TensorType):
        raise UndeterminedTypeError(f"elements of type {kind}")
    if kind.shape is None:
        return kind
    return TensorType(kind.dtype, tuple(dim if dims.is_static(dim) else None for dim in kind.shape))


def joined_sequences(first: SequenceType, second: SequenceType) -> SequenceType:
    """A type for sequences of both types."""
    if first.is_empty or second.is_empty:
        return second if first.is_empty else first
    a, b = element_of(first), element_of(second)
    if a.dtype is not b.dtype:
        raise ShapeError(f"elements of {a.dtype!r} and {b.dtype!r} in one sequence")
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return SequenceType(TensorType(a.dtype, None))
    shape = (x if x == y else None for x, y in zip(a.shape, b.shape, strict=True))
    return SequenceType(TensorType(a.dtype, tuple(shape)))


@infers("SequenceEmpty")
def sequence_empty(node: Node, *, dtype: int = DType.FLOAT32.onnx) -> Type:
    return SequenceType(TensorType(DType.from_onnx(dtype), None), is_empty=True)


@infers("SequenceInsert")
def sequence_insert(node: Node, sequence: Value, x: Value) -> Type:
    kind = sequence.type if isinstance(sequence.type, SequenceType) else SequenceType(element_of(sequence.type))
    return joined_sequences(kind, SequenceType(element_of(x.type)))


@infers("SequenceConstruct")
def sequence_construct(node: Node) -> Type:
    return functools.reduce(joined_sequences, (SequenceType(element_of(value.type)) for value in node.operands))


infers("Copy", domain="partita")(lambda node, x: x.type)
