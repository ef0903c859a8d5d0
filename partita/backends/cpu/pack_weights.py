"""Packing: which kernel a convolution gets, and its weights in that kernel's layout, as nodes on parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from partita.backends.cpu import winograd_matrices
from partita.backends.cpu.blocked_operators import block_count
from partita.ir.builder import Builder
from partita.ir.graph import Attribute, Node, Value
from partita.ir.operators.contraction import window
from partita.ir.types import DType

WIDE = 16  # channels in and out from which Winograd pays: fewer do not fill a vector
CACHED = 24 << 20  # bytes of transformed weights that a cache can be hoped to hold


@dataclass(frozen=True, slots=True)
class Choice:
    """A kernel for one convolution: the operator, its attributes, and how its parameters are made."""

    op_type: str
    weights: Callable[[], Value]
    bias: Callable[[], Value]
    attributes: dict[str, Attribute] = field(default_factory=dict)


class Packer:
    """Writes packing nodes. `block` is the number of channels in a vector."""

    def __init__(self, build: Builder, block: int) -> None:
        self.build = build
        self.block = block

    def choose(self, node: Node) -> Choice:
        """The kernel of a Conv on images."""
        x, w = node.operand(0), node.operand(1)
        group = int(node.attributes.get("group", 1))
        outputs, per_group, *kernel = w.shape
        view = window(node, x.shape[2:], kernel)
        blocks = block_count(outputs, self.block)

        def bias() -> Value:
            return self.bias(node.input(2), blocks)

        if group > 1 and per_group == 1 and group == outputs:
            return Choice("BlockedDepthwiseConv", lambda: self.depthwise(w, blocks), bias)
        if group == 1 and per_group <= 4:
            panels = self.panels(blocks, view.output[1])
            return Choice("PlanarConv", lambda: self.planar(w, blocks, panels), bias)
        unit = view.strides == (1, 1) and view.dilations == (1, 1)
        if group == 1 and tuple(kernel) == (3, 3) and unit and per_group >= WIDE and outputs >= WIDE:
            tile = self.winograd_tile(view.output, per_group * outputs)
            if tile:
                count = -(-view.output[0] // tile) * -(-view.output[1] // tile)
                panels = self.panels(blocks, count)
                return Choice("WinogradConv", lambda: self.winograd(w, blocks, panels, tile), bias, {"tile": tile})
        is_flat = all(k == 1 for k in kernel) and unit and not view.is_padded
        pixels = view.output[0] * view.output[1] if is_flat else view.output[1]
        panels = self.panels(block_count(outputs // group, self.block), pixels)
        return Choice(
            "BlockedConv", lambda: self.blocked(w, blocks, panels), bias, {"group": group} if group > 1 else {}
        )

    @staticmethod
    def winograd_tile(output: tuple[int, ...], products: int) -> int:
        """Outputs a tile has on a side; 0 where the direct kernel is as good. Small images with many weights take the
        smaller tile, whose transformed weights are fewer."""
        if min(output) < 4:
            return 0
        return 2 if 36 * 4 * products > CACHED and max(output) <= 8 else 4

    @staticmethod
    def panels(blocks: int, pixels: int) -> int:
        """Output blocks that one tile computes: few where there are pixels enough to fill the registers."""
        wanted = (4, 2, 1) if pixels % 14 and pixels % 7 == 0 and pixels <= 49 else (2, 1)
        if pixels <= 4:
            wanted = (4, 2, 1)
        return next(panels for panels in wanted if blocks % panels == 0)

    # ------------------------------------------------------------------ layouts

    def channels(self, value: Value, shape: tuple[int, ...]) -> Value:
        """A vector over channels, padded with zeros and given `shape`."""
        count = 1
        for extent in shape:
            count *= extent
        flat = self.build("Reshape", value, self.build.ints([-1]))
        padding = count - flat.shape[0]
        if padding:
            flat = self.build("Pad", flat, self.build.ints([0, padding]))
        return self.build("Reshape", flat, self.build.ints(shape))

    def bias(self, value: Value | None, blocks: int) -> Value:
        """`[Ob, B]`, zero where there is none."""
        if value is None:
            return self.build.constant([[0.0] * self.block] * blocks, DType.FLOAT32)
        return self.channels(value, (blocks, self.block))

    def depthwise(self, w: Value, blocks: int) -> Value:
        """`[C, 1, kh, kw]` to `[Cb, kh, kw, B]`."""
        _, _, kh, kw = w.shape
        padded = self._padded(w, blocks * self.block, 1)
        split = self.build("Reshape", padded, self.build.ints([blocks, self.block, kh, kw]))
        return self.build("Transpose", split, perm=(0, 2, 3, 1))

    def planar(self, w: Value, blocks: int, panels: int) -> Value:
        """`[O, C, kh, kw]` to `[Op, C, kh, kw, V, B]`."""
        _, channels, kh, kw = w.shape
        padded = self._padded(w, blocks * self.block, channels)
        shape = [blocks // panels, panels, self.block, channels, kh, kw]
        return self.build("Transpose", self.build("Reshape", padded, self.build.ints(shape)), perm=(0, 3, 4, 5, 1, 2))

    def blocked(self, w: Value, blocks: int, panels: int) -> Value:
        """`[O, I, kh, kw]` to `[Op, Ib, kh, kw, B, V, B]`."""
        _, channels, kh, kw = w.shape
        inner = block_count(channels, self.block)
        padded = self._padded(w, blocks * self.block, inner * self.block)
        shape = [blocks // panels, panels, self.block, inner, self.block, kh, kw]
        split = self.build("Reshape", padded, self.build.ints(shape))
        return self.build("Transpose", split, perm=(0, 3, 5, 6, 4, 1, 2))

    def winograd(self, w: Value, blocks: int, panels: int, tile: int) -> Value:
        """`[O, I, 3, 3]` to `[(tile + 2)^2, Op, Ib, B, V, B]`: G w G^T, computed in double precision."""
        matrix = winograd_matrices.as_array(winograd_matrices.weight_matrix(tile))
        both = self.build.constant(np.kron(matrix, matrix).T, DType.FLOAT64)  # one product instead of two a filter
        flat = self.build("Reshape", w, self.build.ints([w.shape[0], w.shape[1], 9]))
        product = self.build("MatMul", self.build("Cast", flat, to=DType.FLOAT64.onnx), both)
        sizes = self.build.ints([w.shape[0], w.shape[1], tile + 2, tile + 2])
        points = self.build("Reshape", self.build("Cast", product, to=DType.FLOAT32.onnx), sizes)
        inner = block_count(w.shape[1], self.block)
        padded = self._padded(points, blocks * self.block, inner * self.block)
        shape = [blocks // panels, panels, self.block, inner, self.block, (tile + 2) ** 2]
        split = self.build("Reshape", padded, self.build.ints(shape))
        return self.build("Transpose", split, perm=(5, 0, 3, 4, 1, 2))

    def _padded(self, w: Value, outputs: int, inputs: int) -> Value:
        """Weights with zero channels added at the end."""
        more = (outputs - w.shape[0], inputs - w.shape[1])
        if not any(more):
            return w
        return self.build("Pad", w, self.build.ints([0, 0, 0, 0, *more, 0, 0]))
