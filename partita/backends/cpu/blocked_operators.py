"""Operators on blocked tensors, in the domain `partita`: what the layout pass puts in the place of ONNX's.

A blocked tensor is `[N, ceil(C / B), H, W, B]`: B channels, one vector register, lie together. Channels beyond C are
padding; they hold finite numbers that nothing reads. Everything else on blocked tensors is plain ONNX: pointwise
operators broadcast, pools see a third spatial axis of window 1, layout changes are Reshape and Transpose.
"""

from __future__ import annotations

from dataclasses import fields, replace

from partita.ir import dims
from partita.ir.expression import Computation
from partita.ir.formula import compute, indices_over, load, over, reduce, tensor
from partita.ir.graph import Node
from partita.ir.registry import computes
from partita.ir.types import DType, TensorType
from partita.ir.window import Window, window

DOMAIN = "partita"


def block_window(node: Node) -> Window:
    """The sliding window of a blocked convolution or pool over its two spatial axes."""
    x, kernel = node.operand(0), node.attributes["kernel_shape"]
    if not is_pool(node):
        return window(node, x.shape[2:4], kernel)
    view = window(node, x.shape[2:], kernel)
    axes = [field.name for field in fields(view) if field.name != "may_overhang"]
    return replace(view, **{name: getattr(view, name)[:2] for name in axes})


@computes("BlockedConv", domain=DOMAIN)
def blocked_convolution(node: Node, *, group: int = 1) -> Computation:
    """`x [N, Ib, H, W, B]`, weights `[Op, Ib / group, kh, kw, B, V, B]` for Op panels of V output blocks, bias
    `[Ob, B]`. Result `[N, Ob, OH, OW, B]`."""
    x, w, bias = node.operands
    view = block_window(node)
    panels, width = w.shape[5], w.shape[6]
    n, block, *out, lane = i = indices_over((x.shape[0], bias.shape[0], *view.output, width))
    c, *inner, depth = k = indices_over([w.shape[1], *view.kernel, w.shape[4]], "k")
    first = block // (bias.shape[0] // group) * w.shape[1]
    value = view.seen(out, inner, lambda *place: load(x, n, first + c, *place, depth))
    weight = load(w, block // panels, c, *inner, depth, block % panels, lane)
    return tensor(i, reduce("sum", k, value * weight) + load(bias, block, lane))


@computes("PlanarConv", domain=DOMAIN)
def planar_convolution(node: Node) -> Computation:
    """The first layer: planar `x [N, C, H, W]` of few channels, weights `[Op, C, kh, kw, V, B]`, bias `[Ob, B]`.
    Result blocked."""
    x, w, bias = node.operands
    view = block_window(node)
    panels, width = w.shape[4], w.shape[5]
    n, block, *out, lane = i = indices_over((x.shape[0], bias.shape[0], *view.output, width))
    c, *inner = k = indices_over([x.shape[1], *view.kernel], "k")
    value = view.seen(out, inner, lambda *place: load(x, n, c, *place))
    weight = load(w, block // panels, c, *inner, block % panels, lane)
    return tensor(i, reduce("sum", k, value * weight) + load(bias, block, lane))


@computes("BlockedDepthwiseConv", domain=DOMAIN)
def blocked_depthwise_convolution(node: Node) -> Computation:
    """One filter a channel: `x [N, Cb, H, W, B]`, weights `[Cb, kh, kw, B]`, bias `[Cb, B]`."""
    x, w, bias = node.operands
    view = block_window(node)
    n, block, *out, lane = i = indices_over((x.shape[0], x.shape[1], *view.output, x.shape[4]))
    k = indices_over(view.kernel, "k")
    value = view.seen(out, k, lambda *place: load(x, n, block, *place, lane))
    return tensor(i, reduce("sum", k, value * load(w, block, *k, lane)) + load(bias, block, lane))


@computes("GatheredConv", domain=DOMAIN)
def gathered_convolution(node: Node) -> Computation:
    """A convolution in groups that share blocks. Output block b reads the lanes `places[starts[b]:starts[b + 1]]`,
    both attributes: `x [N, Ib, H, W, B]`, weights `[T, kh, kw, B]`, a vector for each of all T places, bias `[Ob, B]`.
    The blocks' sums are of unequal length, so the expression says the shape alone."""
    x, _, bias = node.operands
    view = block_window(node)
    return compute(
        (x.shape[0], bias.shape[0], *view.output, x.shape[4]),
        lambda n, block, oh, ow, lane: load(bias, block, lane),
    )


@computes("PackedMatMul", domain=DOMAIN)
def packed_product(node: Node) -> Computation:
    """`x [..., K]` by a matrix `[K, N]` that is packed as `[P, K, V, B]`: P panels of V blocks of columns. Attribute
    `columns` is N. Result `[..., N]`."""
    x, w = node.operand(0), node.operand(1)
    panels, width = w.shape[2], w.shape[3]
    *row, column = i = indices_over((*x.shape[:-1], node.attributes["columns"]))
    block, k = column // width, over("k", w.shape[1])
    weight = load(w, block // panels, k, block % panels, column % width)
    return tensor(i, reduce("sum", [k], load(x, *row, k) * weight))


@computes("StrassenMatMul", domain=DOMAIN)
def strassen_product(node: Node) -> Computation:
    """`x [..., K]` by a matrix `[K, N]` of which seven sums of quarters are packed, `[P, 7, K / 2, V, B]`, as
    `strassen.weights` makes them. Attribute `columns` is N. The expression says the shape alone."""
    x = node.operand(0)
    return compute((*x.shape[:-1], node.attributes["columns"]), lambda *i: load(x, *i[:-1], 0))


@computes("WinogradConv", domain=DOMAIN)
def winograd_convolution(node: Node) -> Computation:
    """A 3x3 convolution of stride 1 by tiles of `tile` x `tile` outputs. Its weights are transformed when they are
    bound, so the expression says the shape alone: `x [N, Ib, H, W, B]`, weights `[(tile + 2)^2, Op, Ib, B, V, B]`."""
    x, _, bias = node.operands
    view = block_window(node)
    return compute(
        (x.shape[0], bias.shape[0], *view.output, x.shape[4]),
        lambda n, block, oh, ow, lane: load(bias, block, lane),
    )


CONVOLUTIONS = frozenset({"BlockedConv", "PlanarConv", "BlockedDepthwiseConv", "GatheredConv", "WinogradConv"})
LANES = (8, 16)  # channels that a block may have


def is_blocked_kernel(node: Node) -> bool:
    return (node.domain == DOMAIN and node.op_type in CONVOLUTIONS) or is_pool(node)


def is_packed_product(node: Node) -> bool:
    return node.domain == DOMAIN and node.op_type in ("PackedMatMul", "StrassenMatMul")


def is_pool(node: Node) -> bool:
    """Whether a node is a pool of blocked images: the third axis of its window, over the lanes, is 1."""
    if node.domain or node.op_type not in ("MaxPool", "AveragePool") or len(node.outputs) != 1:
        return False
    kind = node.operand(0).type
    if not isinstance(kind, TensorType) or kind.dtype is not DType.FLOAT32 or not dims.all_static(kind.shape):
        return False
    return len(kind.dims) == 5 and kind.dims[4] in LANES and node.attributes["kernel_shape"][2] == 1


def block_count(channels: int, block: int) -> int:
    return int(dims.ceil_div(channels, block))
