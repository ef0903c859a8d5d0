"""Composite operators become what they are made of.

    before: model (float[2, 3] x) => (float[2, 3] y) { y = Softmax <axis = 1> (x) }
    after:  model (float[2, 3] x) => (float[2, 3] y) <int64[1] axes = {1}> {
                m = ReduceMax (x, axes)
                e = partita.ExpBelow (x, m)
                s = ReduceSum (e, axes)
                y = Div (e, s)
            }

Backends call this when they lower their regions, so that whoever knows an operator whole may claim it whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import onnx

from partita.errors import ModelError
from partita.ir.builder import Builder
from partita.ir.functions import opset_versions
from partita.ir.graph import Graph, Node, Value
from partita.ir.operators import definition
from partita.ir.protobuf import node_to_proto, type_to_proto
from partita.ir.read_graph import GraphReader
from partita.ir.schema import schema_of
from partita.passes.canonicalize import upgrade
from partita.passes.dead_code import dead_code

Keep = Callable[[Node], bool]


def has_expression(node: Node) -> bool:
    """Whether the definition of `node` says what it computes, so that it need not be taken apart."""
    operator = definition(node)
    if operator is None:
        return False
    return operator.compute is not None or operator.procedure is not None or operator.routine is not None


def decompose(graph: Graph, keep: Keep = has_expression) -> bool:
    """Takes apart every node that `keep` does not want to keep, and what comes of it, as far as it goes: by its
    definition, or else by ONNX's function for it."""
    changed, again = False, True
    while again:
        again = False
        for node in graph.nodes:
            again |= not keep(node) and _expand(graph, node)
        changed |= again
    if changed:
        dead_code(graph)
    return changed


def _expand(graph: Graph, node: Node) -> bool:
    """Puts what a node is made of in its place; False when it is elementary."""
    operator = definition(node)
    if operator is not None and operator.decompose is not None:
        try:
            result = operator.decompose(Builder(graph, node.name), node)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            raise ModelError(f"{node.describe()}: {error}") from error
        values = [result] if isinstance(result, Value) else list(result)
        graph.replace_node(node, values[: len(node.outputs)])
        return True
    function = _function(node)
    if function is None:
        return False
    reader = GraphReader({**graph.opsets, **opset_versions(function.opset_import)})
    results, added = reader.expand(graph, function, _with_defaults(node), node.inputs, f"{node.name}.")
    reader.check()
    for old, new in zip(node.outputs, results, strict=True):
        new.type = old.type
    graph.replace_node(node, results)
    for fresh in added:
        upgrade(graph, fresh)
    return True


def _function(node: Node) -> onnx.FunctionProto | None:
    """ONNX's own definition of the operator in terms of others."""
    schema: Any = schema_of(node.op_type, node.version, node.domain)  # the stubs lack what is used here
    if schema is None:
        return None
    if schema.has_function:
        return cast(onnx.FunctionProto, schema.function_body)
    if not schema.has_context_dependent_function:
        return None
    types = [type_to_proto(value.type).SerializeToString() if value is not None else b"" for value in node.inputs]
    body = schema.get_context_dependent_function(node_to_proto(node).SerializeToString(), types)
    return onnx.FunctionProto.FromString(body) if body else None


def _with_defaults(node: Node) -> onnx.NodeProto:
    """The node's message with its defaults written down: function bodies refer to attributes by name."""
    proto = node_to_proto(node)
    schema = schema_of(node.op_type, node.version, node.domain)
    for name, attribute in schema.attributes.items() if schema is not None else ():
        if name not in node.attributes and attribute.default_value.name:
            proto.attribute.append(attribute.default_value)
    return proto
