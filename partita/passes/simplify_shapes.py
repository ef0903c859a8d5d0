"""Arithmetic on shapes is done now: what is known of it becomes constants.

    before: model (float[N, 4, 6] x) => (float[N, 24] y)
                <int64[1] first = {0}, int64[1] rest = {-1}> {
                s = Shape (x)
                n = Gather <axis = 0> (s, first)
                t = Concat <axis = 0> (n, rest)
                y = Reshape (x, t)
            }
    after:  model (float[N, 4, 6] x) => (float[N, 24] y) <int64[2] t = {0, 24}> {
                y = Reshape (x, t)
            }

Sizes that depend on the inputs' dimensions become a `Dims` node, which knows them by name. A symbol that no input of
the graph has as a dimension is left to whatever computes it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import Known, ints, known
from partita.ir.dims import Dim
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import bodies
from partita.ir.operators.internal import DOMAIN
from partita.ir.types import DIMENSION_TYPES, DType, TensorType


def simplify_shapes(graph: Graph) -> bool:
    """Replaces every value whose content is known, and gives Reshape the simplest target; in subgraphs too."""
    changed = False
    bound = _bound_symbols(graph)
    for node in graph.nodes:
        for body in bodies(node).values():
            changed |= simplify_shapes(body)
        if node.op_type == "Reshape" and not node.domain:
            changed |= _simplify_target(graph, node)
        if len(node.outputs) == 1 and node.output.known is not None and not _is_final(graph, node):
            value = _written(graph, node, node.output.known, bound)
            if value is not None:
                graph.replace_node(node, [value])
                changed = True
    return changed


def _bound_symbols(graph: Graph) -> set[str]:
    """Names of the symbols that are a dimension of an input."""
    shapes = [value.type.shape for value in graph.inputs if isinstance(value.type, TensorType)]
    return {str(dim) for shape in shapes for dim in shape or () if not dims.is_static(dim) and dim.is_Symbol}


def _is_final(graph: Graph, node: Node) -> bool:
    """A node that says already what is known, or that carries the name of an output."""
    if node.op_type in ("Dims", "Observe") and node.domain == DOMAIN:
        return True
    return node.op_type == "Identity" and graph.is_output(node.output)


def _written(graph: Graph, node: Node, content: Known, bound: set[str]) -> Value | None:
    """A constant, or a Dims node, that holds `content`."""
    build = Builder(graph, node.output.name)
    dtype = node.output.tensor.dtype
    elements = ints(content)
    if dtype not in DIMENSION_TYPES or dims.all_static(elements):
        return build.constant(np.array(elements, dtype=dtype.numpy).reshape(content.shape), dtype)
    if dtype is not DType.INT64 or content.ndim > 1 or not _symbols(elements) <= bound:
        return None
    return build("Dims", domain=DOMAIN, dims=elements, rank=content.ndim)


def _symbols(elements: Iterable[Dim]) -> set[str]:
    return {name for element in elements for name in dims.symbols_of(element)}


def _simplify_target(graph: Graph, node: Node) -> bool:
    """The target shape as a constant: 0 where a dimension is kept, -1 for one that follows from the others."""
    x, target = node.operand(0), node.operand(1)
    kinds = x.type, node.output.type
    if target.parameter is not None or any(not isinstance(k, TensorType) or k.shape is None for k in kinds):
        return False  # what comes from an operator that nobody knows has no type
    simple = reshape_target(x.shape, node.output.shape)
    if simple is None or known(target) is None:
        return False
    node.attributes.pop("allowzero", None)
    graph.set_input(node, 1, Builder(graph, target.name).ints(simple))
    return True


def reshape_target(source: tuple[Dim, ...], result: tuple[Dim, ...]) -> list[int] | None:
    """The constant with which Reshape makes `result` of `source`, or None where there is none."""
    target: list[int] = []
    for axis, dim in enumerate(result):
        if axis < len(source) and dims.same(dim, source[axis]) and not (dims.is_static(dim) and dim != 0):
            target.append(0)
        elif dims.is_static(dim):
            if dim == 0:
                return None
            target.append(dim)
        else:
            target.append(-1)
    if target.count(-1) > 1:
        return None
    if -1 in target:
        place = target.index(-1)
        rest = dims.product(dim for axis, dim in enumerate(result) if axis != place)
        if not dims.is_static(rest) or rest == 0:
            return None  # with a size of 0 among the others, a -1 would not be determined
        if not dims.same(dims.floor_div(dims.product(source), rest), result[place]):
            return None
    return target
