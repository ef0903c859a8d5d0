"""What a graph computes, by ONNX's reference implementation: slow, and the judge of what passes do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import AttributeProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from partita.errors import ExecutionError
from partita.ir.graph import Attribute, Graph, Node, Value
from partita.ir.interpret import interpret
from partita.ir.operators import definition, definitions
from partita.ir.operators.internal import DOMAIN
from partita.ir.read_tensor import type_of
from partita.ir.write_onnx import write_onnx

Array = np.ndarray[Any, Any]


def evaluate(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs by name, for inputs by name. Regions and fused nodes run as what their bodies say, other operators of
    our own as their expressions do."""
    session = ReferenceEvaluator(write_onnx(graph), new_ops=[Observe, *_own_operators()])
    arrays = {name: np.asarray(value) if np.isscalar(value) else value for name, value in inputs.items()}
    results = session.run(None, arrays)
    return {output.name: result for output, result in zip(graph.outputs, results, strict=True)}


def evaluate_node(node: Node, arrays: Mapping[Value, Array]) -> list[Array]:
    """The outputs of a node by its definition's expressions, for operands of static shapes."""
    operator = definition(node)
    if operator is None or operator.compute is None:
        raise NotImplementedError(f"{node.describe()} has no expression")
    return [interpret(computation, arrays) for computation in operator.computations(node)]


class Observe(OpRun):  # ONNX's evaluator finds an operator by the name of its class
    op_domain = DOMAIN

    def _run(self, sizes: Array, valid: Array | None = None, symbols: Any = None, message: str = "") -> tuple[Array]:
        if valid is not None and not valid.all():
            raise ExecutionError(message)
        return (sizes,)


class _OwnOperator(OpRun):
    """An operator of the domain `partita`, by its expression."""

    op_domain = DOMAIN

    def _run(self, *arrays: Array | None, **defaults: Any) -> tuple[Array, ...]:
        graph = Graph()
        given: dict[Value, Array] = {}
        operands: list[Value | None] = []
        for place, array in enumerate(arrays):
            if array is None:
                operands.append(None)
                continue
            content = np.asarray(array)
            value = graph.add_parameter(f"x{place}", type_of(content), _loader(content), is_constant=True)
            given[value] = content
            operands.append(value)
        proto = self.onnx_node
        attributes = {attribute.name: _attribute(attribute) for attribute in proto.attribute}
        node = graph.add_node(proto.op_type, operands, attributes, outputs=proto.output, domain=DOMAIN)
        return tuple(evaluate_node(node, given))


def _own_operators() -> list[type[OpRun]]:
    """A class for each operator of our own that has an expression."""
    return [
        type(operator.name, (_OwnOperator,), {})
        for operator in definitions()
        if operator.domain == DOMAIN and operator.compute is not None and operator.name != "Dims"
    ]


def _loader(array: Array) -> Any:
    return lambda: array


def _attribute(proto: AttributeProto) -> Attribute:
    value = helper.get_attribute_value(proto)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return tuple(item.decode() if isinstance(item, bytes) else item for item in value)
    return value
