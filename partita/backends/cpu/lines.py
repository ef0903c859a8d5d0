"""Convolutions along one axis become those of images with one line: the tiles of blocked convolutions go along lines.

    before: y = Conv (x, w)                                  x [N, C, L]; or [N, C, H, 1], and windows of one column
    after:  a = Reshape (x); b = Conv (a, Reshape (w)); y = Reshape (b)                              a [N, C, 1, L]

Nothing moves: a column's pixels lie in memory as a line's do, on blocked tensors too.
"""

from __future__ import annotations

from partita.backends.cpu.layout import SAME
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node
from partita.ir.subgraph import depends_on_parameters
from partita.ir.types import DType
from partita.ir.window import window

FEW = 32  # products of a sum: below, changing layouts costs more than the tiles save


def lay_in_lines(graph: Graph) -> bool:
    """Rewrites the convolutions of a region in place."""
    found = [node for node in graph.nodes if _is_along_one_axis(node)]
    for node in found:
        _rewrite(graph, node)
    return bool(found)


def _is_along_one_axis(node: Node) -> bool:
    if node.op_type != "Conv" or node.domain or node.output.tensor.dtype is not DType.FLOAT32:
        return False
    x, w = node.operand(0), node.operand(1)
    if not dims.all_static(x.shape[1:]) or not depends_on_parameters(w) or dims.product(w.shape[1:]) < FEW:
        return False
    if len(x.shape) == 3:
        return True
    if len(x.shape) != 4 or x.shape[3] != 1 or x.shape[2] == 1 or w.shape[3] != 1:
        return False
    view = window(node, x.shape[2:], w.shape[2:])
    return bool(view.begin[1] == view.end[1] == 0)


def _rewrite(graph: Graph, node: Node) -> None:
    build = Builder(graph, node.name)
    x, w, y = node.operand(0), node.operand(1), node.output
    view = window(node, x.shape[2:], w.shape[2:])
    line = build("Reshape", x, [SAME, SAME, 1, x.shape[2]])
    result = build(
        "Conv", line, build("Reshape", w, [*w.shape[:2], 1, w.shape[2]]), node.input(2),
        group=node.attributes.get("group", 1), kernel_shape=(1, w.shape[2]), strides=(1, view.strides[0]),
        dilations=(1, view.dilations[0]), pads=(0, view.begin[0], 0, view.end[0]),
    )  # fmt: skip
    graph.replace_node(node, [build("Reshape", result, [SAME, SAME, *y.shape[2:]])])
