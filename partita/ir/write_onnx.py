"""ONNX out: any graph, at any stage, becomes a ModelProto that Netron opens and a peer can run.

Nodes of the domain `partita` that hold a body (regions, fused kernels) become calls of model-local functions, so
that the composite and its meaning stand in one file. A `Dims` node (a tensor of symbolic dimensions) becomes shape
arithmetic on the graph's inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from partita.ir import dims
from partita.ir.graph import Graph, Node, Value
from partita.ir.protobuf import node_to_proto, type_to_proto
from partita.ir.types import TensorType, UnknownType

DOMAIN = "partita"


def write_onnx(graph: Graph, *, weights: bool = True, copy_outputs: bool = True) -> onnx.ModelProto:
    """The graph as a model. Without `weights`, parameters become inputs that have no data. An output that is an input,
    a parameter or repeated goes through an Identity, unless `copy_outputs` is off."""
    functions: list[onnx.FunctionProto] = []
    proto = graph_to_proto(graph, weights=weights, copy_outputs=copy_outputs, functions=functions)
    opsets = dict(graph.opsets)
    if any(node.domain == DOMAIN for node in nodes_and_bodies(graph)):
        opsets[DOMAIN] = 1
    return helper.make_model(
        proto,
        functions=functions,
        producer_name="partita",
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(opsets.items())],
        ir_version=onnx.IR_VERSION,
    )


def nodes_and_bodies(graph: Graph) -> Iterator[Node]:
    """Every node of the graph and of the graphs inside it."""
    for node in graph.nodes:
        yield node
        for attribute in node.attributes.values():
            if isinstance(attribute, Graph):
                yield from nodes_and_bodies(attribute)


def graph_to_proto(
    graph: Graph,
    *,
    weights: bool = True,
    copy_outputs: bool = True,
    functions: list[onnx.FunctionProto] | None = None,
    rename: Mapping[Value, str] | None = None,
    taken: Iterable[str] = (),
) -> onnx.GraphProto:
    """The message of one graph. Values in `rename` have the names given there; inputs among them stand for captured
    values and are left out. Other values avoid the names in `taken`, which mean something outside."""
    own = [value for value in graph.inputs if value not in (rename or {})]
    names = _names(graph, rename or {}, frozenset(taken))
    nodes: list[onnx.NodeProto] = []
    for node in graph.nodes:
        if node.domain == DOMAIN and node.op_type == "Dims":
            nodes += _dims_protos(graph, node, names)
        elif isinstance(node.attributes.get("body"), Graph) and functions is not None and node.domain == DOMAIN:
            nodes.append(_call_proto(node, graph, functions, names))
        else:
            nodes.append(node_to_proto(node, names))
    outputs: list[onnx.ValueInfoProto] = []
    for position, output in enumerate(graph.outputs):
        name = names[output]
        if copy_outputs and (output.producer is None or any(output is other for other in graph.outputs[:position])):
            name = f"{name}.output.{position}"
            nodes.append(helper.make_node("Identity", [names[output]], [name]))
        outputs.append(helper.make_value_info(name, type_to_proto(output.type)))
    inputs = [helper.make_value_info(names[value], type_to_proto(value.type)) for value in own]
    initializers = []
    for value, parameter in graph.parameters.items():
        if weights or parameter.is_constant:
            initializers.append(numpy_helper.from_array(np.asarray(parameter.array), names[value]))
        else:
            inputs.append(helper.make_value_info(names[value], type_to_proto(value.type)))
    infos = [
        helper.make_value_info(names[output], type_to_proto(output.type))
        for node in graph.nodes
        for output in node.outputs
        if not isinstance(output.type, UnknownType) and not graph.is_output(output)
    ]
    return helper.make_graph(nodes, graph.name, inputs, outputs, initializers, value_info=infos)


def _names(graph: Graph, rename: Mapping[Value, str], taken: frozenset[str]) -> dict[Value, str]:
    """What every value is called in the message."""
    names = dict(rename)
    used = {*taken, *rename.values()}
    for value in graph.values():
        if value not in names:
            name = value.name
            while name in used:
                name += ".inner"
            names[value] = name
    return names


def _call_proto(
    node: Node, graph: Graph, functions: list[onnx.FunctionProto], names: Mapping[Value, str]
) -> onnx.NodeProto:
    """A call of the node's body, which becomes a function; parameters of the body are further operands.

    The function is named after the region's symbol or the node, numbered where another has that name: nodes of one name
    are nothing unusual."""
    body: Graph = node.attributes["body"]
    inner = graph_to_proto(body, functions=functions)
    stem = name = str(node.attributes.get("symbol", node.name))
    taken = {function.name for function in functions}
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}.{number}"
    parameters = [value.name for value in body.parameters]
    constants = [
        helper.make_node("Constant", [], [value.name], value=numpy_helper.from_array(np.asarray(p.array)))
        for value, p in body.parameters.items()
        if p.is_constant
    ]
    weights = [value.name for value, p in body.parameters.items() if not p.is_constant]
    function = helper.make_function(
        DOMAIN,
        name,
        [value.name for value in body.inputs] + weights,
        [info.name for info in inner.output],
        [*constants, *inner.node],
        [helper.make_opsetid(domain, version) for domain, version in sorted(graph.opsets.items())]
        + ([helper.make_opsetid(DOMAIN, 1)] if DOMAIN not in graph.opsets else []),
    )
    for key in ("backend", "symbol"):
        if key in node.attributes:
            function.metadata_props.add(key=key, value=str(node.attributes[key]))
    function.metadata_props.add(key="op_type", value=node.op_type)
    functions.append(function)
    assert set(weights) <= set(parameters)
    inputs = ["" if value is None else names[value] for value in node.inputs] + weights
    return helper.make_node(name, inputs, [names[v] for v in node.outputs], name=node.name, domain=DOMAIN)


def _dims_protos(graph: Graph, node: Node, names: Mapping[Value, str]) -> list[onnx.NodeProto]:
    """A tensor of symbolic dimensions, as ONNX arithmetic on the shapes of the graph's inputs."""
    content = node.attributes["dims"]
    stem = names[node.output]
    protos: list[onnx.NodeProto] = []

    def constant(number: int) -> str:
        name = f"{stem}.c{len(protos)}"
        protos.append(helper.make_node("Constant", [], [name], value_ints=[number]))
        return name

    def apply(op_type: str, *operands: str) -> str:
        name = f"{stem}.n{len(protos)}"
        protos.append(helper.make_node(op_type, list(operands), [name]))
        return name

    def symbol(wanted: str) -> str:
        for value in graph.inputs:
            shape = value.type.shape if isinstance(value.type, TensorType) else None
            for axis, dim in enumerate(shape or ()):
                if str(dim) == wanted:
                    name = f"{stem}.n{len(protos)}"
                    protos.append(helper.make_node("Shape", [names[value]], [name], start=axis, end=axis + 1))
                    return name
        raise KeyError(f"the symbolic dimension {wanted!r} is bound by no input of {graph.name!r}")

    def build(dim: dims.Dim) -> str:
        if dims.is_static(dim) or dim.is_Integer:
            return constant(int(dim))
        if dim.is_Symbol:
            return symbol(str(dim))
        if dim.func.__name__ == "floor":
            top, bottom = dim.args[0].together().as_numer_denom()
            return apply("Div", build(top), build(bottom))
        operators = {"Add": "Add", "Mul": "Mul", "Max": "Max", "Min": "Min", "Mod": "Mod"}
        if dim.func.__name__ == "Pow":
            return apply("Mul", build(dim.args[0]), build(dim.args[0] ** (dim.args[1] - 1)))
        built = [build(argument) for argument in dim.args]
        result = built[0]
        for operand in built[1:]:
            result = apply(operators[dim.func.__name__], result, operand)
        return result

    parts = [build(dim) for dim in content]
    if node.output.tensor.rank == 0:
        protos.append(helper.make_node("Squeeze", [parts[0], constant(0)], [stem]))
    else:
        protos.append(helper.make_node("Concat", parts, [stem], axis=0))
    return protos
