"""What is computed twice is computed once; equal small constants are one.

    before: model (float[2] x) => (float[2] y) {
                a = Exp (x)
                b = Exp (x)
                y = Add (a, b)
            }
    after:  model (float[2] x) => (float[2] y) {
                a = Exp (x)
                y = Add (a, a)
            }

Weights are never compared: equal ones may be bound to different values later.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import bodies
from partita.ir.schema import NONDETERMINISTIC

LARGEST_CONSTANT = 1 << 12  # bytes that are worth comparing


def common_subexpressions(graph: Graph) -> bool:
    """Merges equal nodes and constants, in each graph for itself. What comes first stays."""
    changed = _merge_constants(graph)
    first: dict[Hashable, Node] = {}
    for node in graph.nodes:
        for body in bodies(node).values():
            changed |= common_subexpressions(body)
        if node.op_type == "Identity" or node.op_type in NONDETERMINISTIC or bodies(node):
            continue  # an Identity that is left carries the name of an output
        kept = first.setdefault(_key(node), node)
        if kept is not node:
            graph.replace_node(node, kept.outputs)
            changed = True
    return changed


def _merge_constants(graph: Graph) -> bool:
    changed = False
    first: dict[Hashable, Value] = {}
    for value, parameter in list(graph.parameters.items()):
        if not parameter.is_constant or graph.is_output(value):
            continue
        array = parameter.array
        if array.nbytes > LARGEST_CONSTANT:
            continue
        kept = first.setdefault(_frozen(array), value)
        if kept is not value:
            graph.replace_uses(value, kept)
            graph.remove_parameter(value)
            changed = True
    return changed


def _key(node: Node) -> Hashable:
    attributes = tuple((name, _frozen(value)) for name, value in sorted(node.attributes.items()))
    return node.domain, node.op_type, node.version, node.inputs, attributes, len(node.outputs)


def _frozen(value: Any) -> Hashable:
    """An attribute as something that is equal exactly when the attribute is."""
    if isinstance(value, np.ndarray):
        content = tuple(value.reshape(-1).tolist()) if value.dtype == object else value.tobytes()
        return value.dtype.str, value.dtype.name, value.shape, content
    if isinstance(value, tuple):
        return tuple(map(_frozen, value))
    return type(value).__name__, repr(value) if isinstance(value, float) else value
