"""Function messages: model-local functions, and the bodies of ONNX's own composite operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import onnx

GRAPH = onnx.AttributeProto.GRAPH
Key = tuple[str, str, str]  # domain, name, overload


def function_key(proto: onnx.NodeProto) -> Key:
    """The key of the function that a node calls, if any."""
    return plain_domain(proto.domain), proto.op_type, proto.overload


def functions_by_key(functions: Iterable[onnx.FunctionProto]) -> dict[Key, onnx.FunctionProto]:
    return {(plain_domain(f.domain), f.name, f.overload): f for f in functions}


def plain_domain(domain: str) -> str:
    """The domain as the IR names it: ONNX's own is ""."""
    return "" if domain == "ai.onnx" else domain


def opset_versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {plain_domain(entry.domain): entry.version for entry in imports}


def recursion(functions: Mapping[Key, onnx.FunctionProto]) -> list[Key]:
    """A chain of functions of which each calls the next, and the last the first; empty when there is none."""
    calls = {
        key: [callee for node in _all_nodes(function.node) if (callee := function_key(node)) in functions]
        for key, function in functions.items()
    }
    done: set[Key] = set()
    for root in functions:
        path: list[Key] = []
        pending: list[tuple[Key, bool]] = [(root, False)]
        while pending:
            key, leaving = pending.pop()
            if leaving:
                done.add(path.pop())
            elif key in path:
                return path[path.index(key) :]
            elif key not in done:
                path.append(key)
                pending.append((key, True))
                pending += [(callee, False) for callee in calls[key]]
    return []


def expanded_size(functions: Mapping[Key, onnx.FunctionProto], nodes: Iterable[onnx.NodeProto]) -> int:
    """How many nodes there are once every call of a function is its body. The functions must not be recursive."""
    sizes: dict[Key, int] = {}

    def size(body: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in _all_nodes(body):
            key = function_key(node)
            if key in functions and key not in sizes:
                sizes[key] = size(functions[key].node)
            total += sizes.get(key, 1)
        return total

    return size(nodes)


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == GRAPH:
                yield from _all_nodes(attribute.g.node)


def body_of(function: onnx.FunctionProto, call: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes of a function with the call's attributes filled in, in subgraphs too."""
    given = {attribute.name: attribute for attribute in function.attribute_proto}
    given.update({attribute.name: attribute for attribute in call.attribute})
    return [_filled(node, given) for node in function.node]


def _filled(node: onnx.NodeProto, given: Mapping[str, onnx.AttributeProto]) -> onnx.NodeProto:
    result = onnx.NodeProto()
    result.CopyFrom(node)
    del result.attribute[:]
    for attribute in node.attribute:
        if attribute.ref_attr_name and attribute.ref_attr_name not in given:
            continue  # absent in the call: absent here
        actual = result.attribute.add()
        actual.CopyFrom(given[attribute.ref_attr_name] if attribute.ref_attr_name else attribute)
        actual.name = attribute.name
        if actual.type == GRAPH and not attribute.ref_attr_name:
            inner = [_filled(proto, given) for proto in actual.g.node]
            del actual.g.node[:]
            actual.g.node.extend(inner)
    return result
