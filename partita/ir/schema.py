"""What ONNX's schemas say about a node: whether the operator exists, its arity, attributes and element types."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
from onnx import defs

from partita.ir.graph import Graph, Node
from partita.ir.types import DType, OptionalType, SequenceType, TensorType, Type

NEWEST_OPSET = 28
"""The opset whose meaning every node has after canonicalization, and the definitions in `ir/operators` give."""

STANDARD_DOMAINS = tuple(sorted({schema.domain for schema in defs.get_all_schemas()}))

NONDETERMINISTIC = frozenset(
    [
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Normal",
        "Uniform",
    ]
)
"""Operators that may give something else every time."""

_KINDS: dict[str, tuple[type, ...]] = {
    "FLOAT": (float, int),
    "INT": (int,),
    "STRING": (str,),
    "TENSOR": (np.ndarray,),
    "SPARSE_TENSOR": (np.ndarray,),
    "GRAPH": (Graph,),
    "TYPE_PROTO": (TensorType, SequenceType, OptionalType),
}


@functools.cache
def schema_of(op_type: str, version: int, domain: str) -> defs.OpSchema | None:
    """The schema in force at opset `version`, or None where ONNX has none."""
    try:
        return defs.get_schema(op_type, version, domain)
    except (defs.SchemaError, TypeError):  # a version may be no C integer
        return None


def form_problems(node: Node) -> list[str]:
    """What is wrong with the operator, the attributes and the number of operands, in words."""
    if node.domain not in STANDARD_DOMAINS:
        return []
    schema = schema_of(node.op_type, node.version, node.domain)
    where = node.describe()
    if schema is None:
        known = defs.has(node.op_type, node.domain)
        hint = "it is newer than the imported opset" if known else "is it from a custom domain?"
        return [f"{where}: opset {node.version} has no such operator; {hint}"]
    if schema.deprecated and node.op_type != "GroupNormalization":  # deprecated for a slip of 18, not removed
        return [f"{where}: the operator is deprecated since opset {schema.since_version}; export the model again"]
    problems = []
    plain, outputs = len(node.inputs) - node.attributes.get("captures", 0), len(node.outputs)
    if not schema.min_input <= plain <= schema.max_input:
        problems.append(f"{where}: {plain} operands; {_span(schema.min_input, schema.max_input)} are needed")
    if not schema.min_output <= outputs <= schema.max_output:
        problems.append(f"{where}: {outputs} outputs; {_span(schema.min_output, schema.max_output)} are possible")
    for index, formal in enumerate(schema.inputs[:plain]):
        if formal.option == defs.OpSchema.FormalParameterOption.Single and node.inputs[index] is None:
            problems.append(f"{where}: operand {index} ({formal.name}) must be present")
    return problems + [f"{where}: {text}" for text in _attribute_problems(node, schema)]


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} or more" if high > 1 << 20 else f"{low} to {high}"


def _attribute_problems(node: Node, schema: defs.OpSchema) -> list[str]:
    problems = []
    for name, attribute in schema.attributes.items():
        if attribute.required and name not in node.attributes:
            problems.append(f"the attribute {name!r} is missing; the operator requires it")
    for name, value in node.attributes.items():
        if name == "captures":
            continue
        if name not in schema.attributes:
            problems.append(f"the attribute {name!r} is unknown; known are {', '.join(sorted(schema.attributes))}")
            continue
        kind = str(schema.attributes[name].type).rpartition(".")[2]
        if not _fits(value, kind):
            problems.append(f"the attribute {name!r} is {value!r}, but must be of type {kind}")
    return problems


def _fits(value: Any, kind: str) -> bool:
    if kind in _KINDS:
        return isinstance(value, _KINDS[kind]) and not isinstance(value, bool)
    element = _KINDS.get(kind.removesuffix("S"))
    return isinstance(value, tuple) and (element is None or all(isinstance(item, element) for item in value))


def type_problems(node: Node) -> list[str]:
    """Where the operands' element types are not what the operator takes, or differ where they must agree."""
    schema = schema_of(node.op_type, node.version, node.domain) if node.domain in STANDARD_DOMAINS else None
    if schema is None:
        return []
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    bound: dict[str, tuple[str, str]] = {}
    problems = []
    plain = node.inputs[: len(node.inputs) - node.attributes.get("captures", 0)]
    for index, value in enumerate(plain):
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        text = None if value is None else type_text(value.type)
        if value is None or text is None:
            continue
        if not any(_names(choice, text) for choice in allowed.get(formal.type_str, [formal.type_str])):
            problems.append(f"{node.describe()}: operand {index} ({formal.name}) may not be of type {text}")
        elif formal.is_homogeneous:
            name, other = bound.setdefault(formal.type_str, (value.name, text))
            if other != text:
                problems.append(
                    f"{node.describe()}: operands {name!r} of {other} and {value.name!r} of {text} must be of one type"
                )
    return problems


def _names(choice: str, text: str) -> bool:
    """Whether a type as a schema writes it may be the one of `text`, which may be unknown inside."""
    return choice == text or ("?" in text and choice.startswith(text.partition("?")[0]))


def type_text(kind: Type) -> str | None:
    """ONNX's name of a type, such as `tensor(float)`, with `?` for what is not known inside; None for no type."""
    match kind:
        case TensorType(dtype=dtype):
            return f"tensor({_element_name(dtype)})"
        case SequenceType(element=element):
            return f"seq({type_text(element) or '?'})"
        case OptionalType(element=element):
            return f"optional({type_text(element) or '?'})"
        case _:
            return None


def _element_name(dtype: DType) -> str:
    names = {DType.FLOAT32: "float", DType.FLOAT64: "double"}
    return names.get(dtype) or str(onnx.TensorProto.DataType.Name(dtype.onnx)).lower()
