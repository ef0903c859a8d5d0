"""Sequences and optional values: what their operators give.

A sequence says of its elements what all have in common. What is taken out of one has sizes of its own: symbols, named
after the value, that are set when it is taken out.
"""

from __future__ import annotations

from partita.errors import ShapeError
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import axis_of, known, normalized_axis
from partita.ir.operators.registry import infers, keeps_type
from partita.ir.types import DType, OptionalType, SequenceType, TensorType, Type, UndeterminedTypeError

ANY = "?"  # the name of a size that differs from element to element


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
    return TensorType(kind.dtype, None if kind.shape is None else tuple(map(_own_size, kind.shape)))


def _own_size(dim: Dim) -> Dim:
    return dim if dims.is_static(dim) else None


def sequence_of(kind: TensorType) -> SequenceType:
    shape = None if kind.shape is None else tuple(d if dims.is_static(d) else dims.symbol(ANY) for d in kind.shape)
    return SequenceType(TensorType(kind.dtype, shape))


def joined_sequences(first: SequenceType, second: SequenceType) -> SequenceType:
    """A type for sequences of both types."""
    if first.is_empty or second.is_empty:
        return second if first.is_empty else first
    a, b = element_of(first), element_of(second)
    if a.dtype is not b.dtype:
        raise ShapeError(f"elements of {a.dtype!r} and {b.dtype!r} in one sequence")
    if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return sequence_of(TensorType(a.dtype, None))
    return sequence_of(TensorType(a.dtype, tuple(x if x == y else None for x, y in zip(a.shape, b.shape, strict=True))))


def _sequence(value: Value) -> SequenceType:
    if not isinstance(value.type, SequenceType):
        raise UndeterminedTypeError(f"{value.name!r} is {value.type}, not a sequence")
    return value.type


# ---------------------------------------------------------------------- sequences


@infers("SequenceEmpty")
def sequence_empty(node: Node, *, dtype: int = DType.FLOAT32.onnx) -> Type:
    return SequenceType(TensorType(DType.from_onnx(dtype), None), is_empty=True)


infers("SequenceAt")(lambda node: element_of(node.operand(0).type))
infers("SequenceInsert")(lambda node: joined_sequences(_sequence(node.operand(0)), sequence_of(node.operand(1).tensor)))
infers("SequenceLength")(lambda node: TensorType(DType.INT64, ()))
infers("OptionalHasElement")(lambda node: TensorType(DType.BOOL, ()))
keeps_type("SequenceErase")
keeps_type("Copy", domain="partita")


@infers("SequenceConstruct")
def sequence_construct(node: Node) -> Type:
    first, *others = (sequence_of(value.tensor) for value in node.operands)
    for other in others:
        first = joined_sequences(first, other)
    return first


@infers("SplitToSequence")
def split_to_sequence(node: Node) -> Type:
    x, split = node.operand(0).tensor, node.input(1)
    axis = axis_of(node, x.rank)
    before, behind = x.dims[:axis], x.dims[axis + 1 :]
    if split is None and not node.attributes.get("keepdims", 1):
        return sequence_of(TensorType(x.dtype, (*before, *behind)))
    content = known(split) if split is not None else None
    parts = set() if content is None else set(content.reshape(-1).tolist())
    size: Dim = 1 if split is None else None
    if split is not None and len(parts) == 1:
        (part,) = parts
        whole = split.shape != () or (dims.is_static(x.dims[axis]) and x.dims[axis] % part == 0)
        size = part if whole else None
    return sequence_of(TensorType(x.dtype, (*before, dims.symbol(ANY) if size is None else size, *behind)))


@infers("ConcatFromSequence")
def concat_from_sequence(node: Node) -> Type:
    element = element_of(node.operand(0).type)
    axis = joined_axis(node, element)
    rest = element.dims[axis if node.attributes.get("new_axis", 0) else axis + 1 :]
    return TensorType(element.dtype, (*element.dims[:axis], None, *rest))


def joined_axis(node: Node, element: TensorType) -> int:
    """The axis of the result along which ConcatFromSequence joins."""
    return normalized_axis(node, node.attributes["axis"], element.rank + int(node.attributes.get("new_axis", 0)))


# ---------------------------------------------------------------------- optional values


@infers("Optional")
def optional(node: Node) -> Type:
    value = node.input(0)
    if value is None:
        return OptionalType(node.attributes["type"])
    return OptionalType(sequence_of(value.type).element if isinstance(value.type, TensorType) else value.type)


@infers("OptionalGetElement")
def optional_get_element(node: Node) -> Type:
    kind = node.operand(0).type
    if not isinstance(kind, OptionalType):
        return kind
    return element_of(kind) if isinstance(kind.element, TensorType) else kind.element
