"""Between the IR and ONNX's protobuf messages: types, attributes and single nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import AttributeProto, TypeProto, helper, numpy_helper

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.graph import Attribute, Graph, Node, Value
from partita.ir.types import DType, OptionalType, SequenceType, TensorType, Type, UnknownType, check_shape

Names = dict[str, dims.Dim]  # what a `dim_param` stands for


def type_from_proto(proto: TypeProto, names: Names | None = None) -> Type:
    """The IR's type. A dimension that says nothing is None in the shape; the caller names it."""
    kind = proto.WhichOneof("value")
    if kind == "tensor_type":
        tensor = proto.tensor_type
        if tensor.elem_type == 0:
            return UnknownType()
        dtype = _dtype(tensor.elem_type)
        if not tensor.HasField("shape"):
            return TensorType(dtype, None)
        shape = tuple(_dim_from_proto(dim, names or {}) for dim in tensor.shape.dim)
        check_shape(shape, f"type {dtype!r}{list(shape)}")
        return TensorType(dtype, shape)
    if kind == "sequence_type":
        return SequenceType(type_from_proto(proto.sequence_type.elem_type, names))
    if kind == "optional_type":
        return OptionalType(type_from_proto(proto.optional_type.elem_type, names))
    if kind is None:
        return UnknownType()
    raise ModelError(f"values of type {kind} are not supported; tensors, sequences and optionals are")


def type_to_proto(kind: Type, names: Names | None = None) -> TypeProto:
    """ONNX's message for a type; symbolic dimensions become `dim_param`s, those of tensors recorded in `names`."""
    if isinstance(kind, TensorType):
        shape: list[int | str | None] | None = None
        if kind.shape is not None:
            shape = [dim if dim is None or dims.is_static(dim) else str(dim) for dim in kind.shape]
            if names is not None:
                names.update({str(dim): dim for dim in kind.shape if not dims.is_static(dim)})
        return helper.make_tensor_type_proto(kind.dtype.onnx, shape)
    if isinstance(kind, SequenceType):
        return helper.make_sequence_type_proto(type_to_proto(kind.element))
    if isinstance(kind, OptionalType):
        return helper.make_optional_type_proto(type_to_proto(kind.element))
    return TypeProto()


def _dtype(number: int) -> DType:
    try:
        return DType.from_onnx(number)
    except LookupError as error:
        raise ModelError(f"{error}; the file is damaged or too new") from None


def _dim_from_proto(proto: onnx.TensorShapeProto.Dimension, names: Names) -> dims.Dim | None:
    """A dimension; None for one without a name. Exporters write -1 and "?" for these too, each time for another."""
    kind = proto.WhichOneof("value")
    if kind == "dim_value":
        return None if proto.dim_value == -1 else int(proto.dim_value)
    if kind == "dim_param" and proto.dim_param not in ("", "?"):
        if not isinstance(proto.dim_param, str):  # bytes, where they are no UTF-8
            raise ModelError(f"the dimension name {proto.dim_param!r} is no UTF-8 text")
        return names.get(proto.dim_param) or dims.symbol(proto.dim_param)
    return None


def attribute_to_proto(
    name: str, value: Attribute, rename: Mapping[Value, str] | None = None, taken: Iterable[str] = ()
) -> AttributeProto:
    """ONNX's message for an attribute. `rename` gives the outer names of what a graph captures, `taken` all names that
    mean something outside."""
    from partita.ir.write_onnx import graph_to_proto

    if isinstance(value, Graph):
        return helper.make_attribute(name, graph_to_proto(value, rename=rename, taken=taken))
    if isinstance(value, TensorType | SequenceType | OptionalType):
        return helper.make_attribute(name, type_to_proto(value))
    if isinstance(value, np.ndarray):
        return helper.make_attribute(name, numpy_helper.from_array(value, name))
    if isinstance(value, tuple):
        value = list(value)
        if not value:
            return AttributeProto(name=name, type=AttributeProto.INTS)
    return helper.make_attribute(name, value)


def node_to_proto(node: Node, names: Mapping[Value, str] | None = None) -> onnx.NodeProto:
    """ONNX's message for one node; `names` renames values. What subgraphs capture goes back to being outer names."""
    names = names or {}
    proto = onnx.NodeProto(op_type=node.op_type, name=node.name, domain=node.domain)
    plain = len(node.inputs) - node.attributes.get("captures", 0)
    proto.input.extend("" if v is None else names.get(v, v.name) for v in node.inputs[:plain])
    proto.output.extend(names.get(v, v.name) for v in node.outputs)
    for key, value in node.attributes.items():
        if key == "captures":
            continue
        rename = None
        if isinstance(value, Graph):
            inner = value.inputs[len(value.inputs) - (len(node.inputs) - plain) :]
            rename = {i: names.get(o, o.name) for i, o in zip(inner, node.inputs[plain:], strict=True) if o is not None}
        proto.attribute.append(attribute_to_proto(key, value, rename, names.values()))
    return proto
