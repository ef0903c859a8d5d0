"""Composite operators become what they are made of.

    before: <ir_version: 14, opset_import: ["" : 28]>
            model (float[2, 3] x) => (float[2, 3] y) { y = Softmax <axis = 1> (x) }
    after:  <ir_version: 14, opset_import: ["" : 28]>
            model (float[2, 3] x) => (float[2, 3] y) <int64[1] axes = {1}> {
                m = ReduceMax (x, axes)
                d = Sub (x, m)
                e = Exp (d)
                s = ReduceSum (e, axes)
                y = Div (e, s)
            }

Backends call this when they lower their regions, so that whoever knows an operator whole may claim it whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx

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
    return operator is not None and operator.compute is not None


def decompose(graph: Graph, keep: Keep = has_expression) -> bool:
    """Takes apart every node that `keep` does not want to keep, and what comes of it, as far as it goes: by its
    definition, or else by ONNX's function for it."""
    pending = list(reversed(graph.nodes))
    changed = False
    while pending:
        node = pending.pop()
        if keep(node):
            continue
        expansion = _expand(graph, node)
        if expansion is not None:
            values, added = expansion
            graph.replace_node(node, values)
            pending += reversed(added)
            changed = True
    if changed:
        dead_code(graph)
    return changed


def _expand(graph: Graph, node: Node) -> tuple[list[Value | None], Sequence[Node]] | None:
    """The values that take the place of a node's outputs, and the nodes made for them; None when it is elementary."""
    operator = definition(node)
    if operator is not None and operator.decompose is not None:
        build = Builder(graph, node.name)
        result = operator.decompose(build, node)
        values = [result] if isinstance(result, Value) else list(result)
        return list(values[: len(node.outputs)]), build.nodes
    function = _function(node)
    return None if function is None else _expand_function(graph, node, function)


def _function(node: Node) -> onnx.FunctionProto | None:
    """ONNX's own definition of the operator in terms of others."""
    schema = schema_of(node.op_type, node.version, node.domain)
    if schema is None:
        return None
    if schema.has_function:
        return schema.function_body
    if not schema.has_context_dependent_function:
        return None
    types = [type_to_proto(value.type).SerializeToString() if value is not None else b"" for value in node.inputs]
    body = schema.get_context_dependent_function(node_to_proto(node).SerializeToString(), types)
    return onnx.FunctionProto.FromString(body) if body else None


def _expand_function(
    graph: Graph, node: Node, function: onnx.FunctionProto
) -> tuple[list[Value | None], Sequence[Node]]:
    reader = GraphReader({**graph.opsets, **opset_versions(function.opset_import)})
    schema = schema_of(node.op_type, node.version, node.domain)
    assert schema is not None
    results, added = reader.expand(graph, function, _with_defaults(node, schema), node.inputs, f"{node.name}.")
    reader.check()
    for fresh in added:
        upgrade(graph, fresh)
    return list(results), [fresh for fresh in added if fresh in graph.topology]


def _with_defaults(node: Node, schema: onnx.defs.OpSchema) -> onnx.NodeProto:
    """The node's message with its defaults written down: function bodies refer to attributes by name."""
    proto = node_to_proto(node)
    for name, attribute in schema.attributes.items():
        if name not in node.attributes and attribute.default_value.name:
            proto.attribute.append(attribute.default_value)
    return proto
