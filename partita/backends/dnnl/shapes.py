"""Shapes as oneDNN wants them: matrices of one rank, broadcast operands aligned, pads that it can take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from partita.ir.graph import Node, Value
from partita.ir.window import Window, window

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Product:
    """The shapes of a matrix product: left, right and result have one rank. A matrix on the right alone is multiplied
    by all rows of the left at once."""

    left: Shape
    right: Shape
    result: Shape
    left_transposed: bool = False
    right_transposed: bool = False


def product_of(node: Node) -> Product:
    """The product that a MatMul or Gemm computes."""
    a, b = node.operand(0).shape, node.operand(1).shape
    if node.op_type == "Gemm":
        flip_a, flip_b = bool(node.attributes.get("transA", 0)), bool(node.attributes.get("transB", 0))
        left, right = (a[::-1] if flip_a else a), (b[::-1] if flip_b else b)
        return Product(left, right, (left[0], right[1]), flip_a, flip_b)
    a = a if len(a) > 1 else (1, *a)
    b = b if len(b) > 1 else (*b, 1)
    if len(b) == 2:
        left = (math.prod(a[:-1]), a[-1])
        return Product(left, b, (left[0], b[1]))
    rank = max(len(a), len(b))
    left, right = aligned(a, rank), aligned(b, rank)
    batch = tuple(max(x, y) for x, y in zip(left[:-2], right[:-2], strict=True))
    return Product(left, right, (*batch, left[-2], right[-1]))


def aligned(shape: Sequence[int], rank: int) -> Shape:
    """`shape` with leading sizes of 1, so that it has at least `rank` axes, and at least one."""
    return (1,) * (max(rank, 1) - len(shape)) + tuple(shape)


def is_bias(value: Value, result: Sequence[int], axis: int) -> bool:
    """Whether `value` broadcasts along one axis of `result`, of which it has every element."""
    shape = aligned(value.shape, len(result))
    expected = [1] * len(result)
    expected[axis] = result[axis]
    return len(shape) == len(result) and list(shape) == expected


def window_of(node: Node) -> Window:
    """The window of a Conv or a pool."""
    x = node.operand(0)
    spatial = x.shape[2:]
    if node.op_type == "Conv":
        return window(node, spatial, node.operand(1).shape[2:])
    if node.op_type.startswith("Global"):
        rank = len(spatial)
        return Window(spatial, spatial, (1,) * rank, (1,) * rank, (0,) * rank, (0,) * rank, (1,) * rank)
    return window(node, spatial, node.attributes["kernel_shape"])


def pads_after(node: Node, view: Window) -> Shape:
    """Padding at the ends that makes the number of windows come out exactly, rounding up (ceil_mode) included."""
    spatial = node.operand(0).shape[2:]
    return tuple(
        max((view.output[n] - 1) * view.strides[n] + reach(view, n) - spatial[n] - view.begin[n], 0)
        if node.attributes.get("ceil_mode", 0)
        else view.end[n]
        for n in range(len(spatial))
    )


def reach(view: Window, axis: int) -> int:
    """Elements from the first to the last that a window touches along an axis."""
    extent: int = (view.kernel[axis] - 1) * view.dilations[axis] + 1
    return extent
