"""Claims what ONNX's reference evaluator implements; a region is shipped as an ONNX graph without its weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

from onnx.reference import ReferenceEvaluator

from partita.backends.base import Accept, Availability, Backend, Claim, Reject
from partita.backends.opaque import make_opaque, opaque_node
from partita.ir.graph import Graph, Node
from partita.ir.nested import bodies
from partita.ir.protobuf import node_to_proto, type_to_proto
from partita.ir.region import Region
from partita.ir.types import DType, TensorType, Type, UnknownType
from partita.ir.write_onnx import write_onnx
from partita.passes.plan_memory import MemoryPlan
from partita.runtime import InterpretedModule

# Where the evaluator keeps its operators.
_OPERATORS = {
    "": "onnx.reference.ops._op_list",
    "ai.onnx.ml": "onnx.reference.ops.aionnxml._op_list",
    "ai.onnx.preview.training": "onnx.reference.ops.aionnx_preview_training._op_list",
}


# Where the evaluator gives other numbers than the standard asks for.
_FAULTS: dict[str, Callable[[Node], str | Literal[False]]] = {
    "GlobalMaxPool": lambda node: len(node.operand(0).shape) != 4 and "it reduces the wrong axes unless there are 4",
    "LRN": lambda node: "it mistakes the batch for the channels",
}


class ReferenceBackend(Backend):
    """Any operator that the evaluator has, control flow included, at sizes known or not."""

    name = "reference"

    def probe(self) -> Availability:
        return Availability(True, "ONNX's reference evaluator; an artifact with such regions needs Python and onnx")

    def claims(self, node: Node) -> Claim:
        reason = _not_implemented(node) or _not_typed(node)
        return Accept() if reason is None else Reject(reason)

    def lower(self, body: Graph) -> None:
        make_opaque(body, body.nodes)

    def emit(self, regions: Sequence[Region], plan: MemoryPlan) -> InterpretedModule:
        (region,) = regions
        node = opaque_node(region)
        body: Graph = node.attributes["body"]
        constants = tuple(value.name for value in node.operands if value.parameter is not None)
        model = write_onnx(_in_order(body, region, node), copy_outputs=True)
        names = [info.name for info in model.graph.input]
        return InterpretedModule(
            self.name,
            region.symbol,
            inputs=tuple(names[: len(names) - len(constants)]),
            outputs=tuple(info.name for info in model.graph.output),
            constants=constants,
            model=model.SerializeToString(deterministic=True),
        )


def _in_order(body: Graph, region: Region, node: Node) -> Graph:
    """The body with its inputs and outputs in the region's order, the constants last."""
    inner = dict(zip(node.operands, body.inputs, strict=True))
    made = dict(zip(node.outputs, body.outputs, strict=True))
    constants = [value for value in node.operands if value.parameter is not None]
    body.inputs = [inner[value] for value in (*region.body.inputs, *constants)]
    body.set_outputs(made[value] for value in region.body.outputs)
    return body


def _not_implemented(node: Node) -> str | None:
    """Why the evaluator does not run `node`."""
    for inner in (inner for body in bodies(node).values() for inner in body.nodes):
        reason = _not_implemented(inner)
        if reason is not None:
            return f"{inner.qualified_type} in its body: {reason}"
    module = _OPERATORS.get(node.domain)
    if module is None:
        return f"ONNX's reference evaluator has no operators of the domain {node.domain!r}"
    load: Any = importlib.import_module(module).load_op
    further: dict[str, Any] = {}
    if node.domain == "":
        names: dict[str, Any] = {}
        types = [type_to_proto(value.type, names) for value in node.operands]
        further = {"node": node_to_proto(node), "input_types": types, "evaluator_cls": ReferenceEvaluator}
    fault = _FAULTS[node.op_type](node) if node.domain == "" and node.op_type in _FAULTS else False
    if fault:
        return f"ONNX's reference evaluator is wrong for this {node.op_type}: {fault}"
    try:
        load(node.domain, node.op_type, node.version, **further)
    except Exception as error:
        return f"ONNX's reference evaluator does not implement {node.qualified_type}: {error}"
    return None


def _not_typed(node: Node) -> str | None:
    """Why the values of `node` cannot cross a region's border."""
    for value in (*node.operands, *node.outputs):
        reason = _type_problem(value.type)
        if reason is not None:
            return f"{value.name!r} is {reason}"
    return None


def _type_problem(kind: Type) -> str | None:
    if isinstance(kind, UnknownType):
        return "of unknown type"
    if not isinstance(kind, TensorType):
        return f"{kind}; an engine is given tensors, the host has sequences"
    if kind.shape is None:
        return "of unknown rank; the runtime describes tensors by their sizes"
    if kind.dtype is DType.STRING:
        return f"{kind}; the runtime has no such elements"
    return None


__all__ = ["ReferenceBackend"]
