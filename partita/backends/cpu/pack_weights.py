"""Packing: which kernel a convolution gets, and its weights in that kernel's layout, as nodes on parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from partita.backends.cpu import winograd_matrices
from partita.backends.cpu.lanes import NONE, Lanes, Reach, count, in_order, is_in_order
from partita.ir.builder import Builder
from partita.ir.graph import Attribute, Node, Value
from partita.ir.types import DType
from partita.ir.window import window

WIDE = 16  # channels in and out from which Winograd pays: fewer do not fill a vector
DENSE = 0.85  # of the lanes that a kernel reads hold channels; with fewer, it is worth while to pass over the others
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

    def choose(self, node: Node, inner: Lanes | None, outer: Lanes) -> Choice:
        """The kernel of a Conv on images: `inner` are the lanes of its input, None where that is not blocked and few
        channels can be read as they are; `outer` are its result's."""
        w = node.operand(1)
        group = int(node.attributes.get("group", 1))
        outputs, per_group, *kernel = w.shape
        view = window(node, node.operand(0).shape[2:], kernel)
        blocks = len(outer) // self.block

        def bias() -> Value:
            return self.bias(node.input(2), outer)

        if inner is None:
            panels = self.panels(blocks, view.output[1])
            return Choice("PlanarConv", lambda: self.planar(w, outer, panels), bias)
        if group > 1 and per_group == 1 and group == outputs:
            return Choice("BlockedDepthwiseConv", lambda: self.depthwise(w, outer), bias)
        unit = view.strides == (1, 1) and view.dilations == (1, 1)
        if group == 1 and tuple(kernel) == (3, 3) and unit and per_group >= WIDE and outputs >= WIDE:
            tile = self.winograd_tile(view.output, per_group * outputs)
            if tile:
                tiles = -(-view.output[0] // tile) * -(-view.output[1] // tile)
                panels = self.panels(blocks, tiles)
                return Choice(
                    "WinogradConv", lambda: self.winograd(w, inner, outer, panels, tile), bias, {"tile": tile}
                )
        is_sparse = count(inner) <= DENSE * len(inner) if group == 1 else not self._is_whole(group, inner, outer)
        if is_sparse:
            groups = [range(g * per_group, (g + 1) * per_group) for g in range(group)]
            reach = Reach.of([groups[output * group // outputs] for output in range(outputs)], inner, outer, self.block)
            return Choice("GatheredConv", lambda: self.gathered(w, reach), bias, reach.attributes)
        is_flat = all(k == 1 for k in kernel) and unit and not view.is_padded
        pixels = view.output[0] * view.output[1] if is_flat else view.output[1]
        if group > 1:
            panels = self.panels(blocks // group, pixels)
            own = in_order(per_group, self.block)
            return Choice("BlockedConv", lambda: self.blocked(w, own, outer, panels), bias, {"group": group})
        panels = self.panels(blocks, pixels)
        return Choice("BlockedConv", lambda: self.blocked(w, inner, outer, panels), bias)

    def _is_whole(self, group: int, inner: Lanes, outer: Lanes) -> bool:
        """Whether each group has blocks of its own, in order."""
        whole = all(len(lanes) % (group * self.block) == 0 and NONE not in lanes for lanes in (inner, outer))
        return whole and is_in_order(inner) and is_in_order(outer)

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
        wanted = (4, 2, 1) if pixels <= 4 else (2, 1)
        return next(panels for panels in wanted if blocks % panels == 0)

    # ------------------------------------------------------------------ layouts

    def channels(self, value: Value, lanes: Lanes, shape: tuple[int, ...]) -> Value:
        """A vector over channels, or one number for all of them, in their lanes and with `shape`."""
        flat = self.build("Reshape", value, self.build.ints([-1]))
        return self.build("Reshape", self.spread(flat, 0, lanes), self.build.ints(shape))

    def bias(self, value: Value | None, lanes: Lanes) -> Value:
        """`[Ob, B]`, zero where there is none."""
        shape = (len(lanes) // self.block, self.block)
        if value is None:
            return self.build.constant([[0.0] * self.block] * shape[0], DType.FLOAT32)
        return self.channels(value, lanes, shape)

    def depthwise(self, w: Value, lanes: Lanes) -> Value:
        """`[C, 1, kh, kw]` to `[Cb, kh, kw, B]`."""
        _, _, kh, kw = w.shape
        shape = [len(lanes) // self.block, self.block, kh, kw]
        split = self.build("Reshape", self.spread(w, 0, lanes), self.build.ints(shape))
        return self.build("Transpose", split, perm=(0, 2, 3, 1))

    def planar(self, w: Value, outer: Lanes, panels: int) -> Value:
        """`[O, C, kh, kw]` to `[Op, C, kh, kw, V, B]`."""
        _, channels, kh, kw = w.shape
        shape = [len(outer) // self.block // panels, panels, self.block, channels, kh, kw]
        split = self.build("Reshape", self.spread(w, 0, outer), self.build.ints(shape))
        return self.build("Transpose", split, perm=(0, 3, 4, 5, 1, 2))

    def blocked(self, w: Value, inner: Lanes, outer: Lanes, panels: int) -> Value:
        """`[O, I, kh, kw]` to `[Op, Ib, kh, kw, B, V, B]`."""
        _, _, kh, kw = w.shape
        spread = self.spread(self.spread(w, 0, outer), 1, inner)
        shape = [len(outer) // self.block // panels, panels, self.block, len(inner) // self.block, self.block, kh, kw]
        return self.build(
            "Transpose", self.build("Reshape", spread, self.build.ints(shape)), perm=(0, 3, 5, 6, 4, 1, 2)
        )

    def gathered(self, w: Value, reach: Reach) -> Value:
        """`[O, I, kh, kw]` to `[T, kh, kw, B]`: a vector for each channel that a block of outputs reads."""
        outputs, channels, kh, kw = w.shape
        flat = self.build("Reshape", w, self.build.ints([outputs * channels, kh * kw]))
        with_zero = self.build("Pad", flat, self.build.ints([0, 0, 1, 0]))
        output, offset = reach.reads()
        filters = np.where(offset == NONE, outputs * channels, output * channels + offset)
        vectors = self.build("Gather", with_zero, self.build.constant(filters, DType.INT64), axis=0)
        vectors = self.build("Transpose", vectors, perm=(0, 2, 1))
        return self.build("Reshape", vectors, self.build.ints([len(reach.places), kh, kw, self.block]))

    def winograd(self, w: Value, inner: Lanes, outer: Lanes, panels: int, tile: int) -> Value:
        """`[O, I, 3, 3]` to `[(tile + 2)^2, Op, Ib, B, V, B]`: G w G^T, computed in double precision."""
        matrix = winograd_matrices.as_array(winograd_matrices.weight_matrix(tile))
        both = self.build.constant(np.kron(matrix, matrix).T, DType.FLOAT64)  # one product instead of two a filter
        flat = self.build("Reshape", w, self.build.ints([w.shape[0], w.shape[1], 9]))
        product = self.build("MatMul", self.build("Cast", flat, to=DType.FLOAT64.onnx), both)
        points = self.build("Cast", product, to=DType.FLOAT32.onnx)
        spread = self.spread(self.spread(points, 0, outer), 1, inner)
        blocks = len(outer) // self.block // panels, panels, self.block, len(inner) // self.block, self.block
        split = self.build("Reshape", spread, self.build.ints([*blocks, (tile + 2) ** 2]))
        return self.build("Transpose", split, perm=(5, 0, 3, 4, 1, 2))

    def spread(self, value: Value, axis: int, lanes: Lanes) -> Value:
        """The value with the channels of an axis in lanes, zero where there is none."""
        rank, extent = len(value.shape), value.shape[axis]
        missing = len(lanes) - extent
        ends = [0] * (2 * rank)
        if is_in_order(lanes):
            ends[rank + axis] = missing
            return self.build("Pad", value, self.build.ints(ends)) if missing else value
        if NONE in lanes:
            ends[rank + axis] = 1
            value = self.build("Pad", value, self.build.ints(ends))
        places = [extent if channel == NONE else channel for channel in lanes]
        return self.build("Gather", value, self.build.ints(places), axis=axis)
