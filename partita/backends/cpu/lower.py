"""Lowering of the host's regions: operators become expressions, neighbours become kernels."""

from __future__ import annotations

from partita.backends.cpu import kernels
from partita.backends.cpu.bodies import separate_outputs, share_parameters
from partita.backends.cpu.chains import chain
from partita.backends.cpu.layout import assign_layouts
from partita.backends.cpu.lines import lay_in_lines
from partita.backends.cpu.pack_products import pack_products
from partita.backends.cpu.sequences import SEQUENCE_OPERATORS
from partita.backends.cpu.target import Target
from partita.backends.source import C_TYPES
from partita.errors import ShapeError, UnsupportedOperatorError
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import bodies, is_control
from partita.ir.operators import definition
from partita.ir.operators.internal import is_observation
from partita.ir.operators.sequences import is_list
from partita.ir.schema import STANDARD_DOMAINS
from partita.ir.subgraph import alone
from partita.ir.types import DType, OptionalType, SequenceType, TensorType
from partita.passes.decompose import decompose, has_expression
from partita.passes.fuse import Fusion, fuse


def lower(body: Graph, target: Target, fast_math: frozenset[str] = frozenset()) -> None:
    """Rewrites a region in place, for a kind of processor."""
    decompose(body)
    for node in filter(is_control, body.nodes):
        share_parameters(body, node)
        for inner in bodies(node).values():
            lower(inner, target, fast_math)
        separate_outputs(node)
    pack_products(body, target.block, fast_math)
    lay_in_lines(body)
    assign_layouts(body, target.block)
    fuse(body, Fusion(kernels.is_kernel, kernels.takes_epilogue, _is_loop))
    chain(body)


def unsupported(node: Node) -> str | None:
    """Why the host cannot run `node`; None when it can: what the node comes down to has expressions and C types."""
    if definition(node) is None and node.domain not in STANDARD_DOMAINS:
        return f"the standard has no operator {node.qualified_type}"
    problem = next((p for value in (*node.operands, *node.outputs) if (p := _no_c_type(value))), None)
    if problem is None and is_control(node):
        inner = (part for body in bodies(node).values() for part in body.nodes)
        return next((f"{part.op_type} in its body: {p}" for part in inner if (p := unsupported(part))), None)
    problem = problem or _undefined(node)
    if problem is not None or has_expression(node) or is_observation(node) or node.op_type in SEQUENCE_OPERATORS:
        return problem
    graph = alone(node)
    try:
        decompose(graph)
    except UnsupportedOperatorError as error:
        return str(error)
    for part in graph.nodes:
        if is_control(part):
            problem = unsupported(part)
        elif not has_expression(part) and not is_observation(part) and part.op_type not in SEQUENCE_OPERATORS:
            inside = "" if part.op_type == node.op_type else f" (part of {node.op_type})"
            return f"{part.qualified_type}{inside} has no expression and no kernel"
        problem = problem or next((p for value in part.outputs if (p := _no_c_type(value))), None)
        if problem is not None:
            return problem
    return None


def _undefined(node: Node) -> str | None:
    """Why the definition of `node` says nothing for these operands: strings where numbers are wanted, or loops whose
    number only a run tells."""
    operator = definition(node)
    strings = any(isinstance(v.type, TensorType) and v.type.dtype is DType.STRING for v in node.operands)
    try:
        if operator is not None and operator.compute is not None and strings:
            operator.computations(node)
        elif operator is not None and operator.compute is None and operator.procedure is not None:
            operator.procedure(node)
    except (UnsupportedOperatorError, ShapeError) as error:
        return f"{node.op_type}: {error}"
    return None


def _no_c_type(value: Value) -> str | None:
    kind = value.type
    if isinstance(kind, OptionalType):
        kind = kind.element
    if isinstance(kind, SequenceType):
        kind = kind.element
    if not isinstance(kind, TensorType):
        return f"{value.name!r} is {value.type}; tensors, and sequences of tensors, have C"
    if kind.shape is None and not is_list(value):
        return (
            f"the rank of {value.name!r} is unknown, and has to be known; of what is taken out of a sequence, "
            "the model's input declares it"
        )
    if kind.dtype not in C_TYPES:
        return f"{value.name!r} has element type {kind.dtype!r}, which has no C type yet"
    return None


def _is_loop(node: Node) -> bool:
    operator = definition(node)
    return operator is not None and not operator.is_view
