"""Kernels of sliding windows that keep channels apart, on blocked tensors: pools and depthwise convolutions. They go a
line of output pixels at a time, a tile of neighbours in registers, and read what lies inside the image alone: nothing
is padded. Only tiles at the left and right edge ask for each pixel whether it is inside, and these know where they are
when they are compiled."""

from __future__ import annotations

from abc import ABC, abstractmethod

from partita.backends.cpu.blocked_convolution import BANDS, BlockedKernel
from partita.backends.cpu.expressions import Scope
from partita.backends.cpu.kernel import Kernel
from partita.ir.expression import Computation, Load
from partita.ir.formula import cast, indices_over, tensor
from partita.ir.types import DType
from partita.ir.window import averaged_count

ELEMENTS = 20  # of a window a nanosecond, on one thread


class WindowKernel(BlockedKernel, ABC):
    """`[N, Cb, H, W, B]` to `[N, Cb, OH, OW, B]`: each vector of the result from one window of its own channels."""

    def write(self) -> Kernel:
        writer, x, view = self.writer, self.kernel.operand(0), self.view
        self.rows, self.columns = (int(extent) for extent in view.kernel)
        batch, block = self.result.axes[:2]
        cost = self.width * self.block * self.rows * self.columns / ELEMENTS
        scope, line, _ = self.open_bands(block, self.height, -(-self.height // BANDS), cost)
        names = writer.printer.axis_names
        plane = f"({names[batch]} * {x.shape[1]} + {names[block]}) * {x.shape[2] * x.shape[3] * self.block}"
        scope.write(f"const partita_lanes *image = (const partita_lanes *)({writer.pointer(x)} + {plane});")
        scope.write(f"const int64_t top = {line} * {view.strides[0]} - {view.begin[0]};")
        self.places = {1: names[block], 2: line}
        pixels = self._tile_pixels()
        tiles = [(start, min(pixels, self.width - start)) for start in range(0, self.width, pixels)]
        inner = [self._is_inside(*tile) and tile[1] == pixels for tile in tiles]
        first = inner.index(True) if any(inner) else len(tiles)
        last = first + sum(inner)
        for start, count in tiles[:first]:
            self._write_tile(scope, str(start), count, self._is_inside(start, count))
        if last > first:
            start, end = tiles[first][0], tiles[last - 1][0]
            scope.write(f"for (int64_t start = {start}; start <= {end}; start += {pixels}) {{")
            self._write_tile(scope.inner(), "start", pixels, True)
            scope.write("}")
        for start, count in tiles[last:]:
            self._write_tile(scope, str(start), count, self._is_inside(start, count))
        writer.close_steps()
        return writer.finish()

    def _tile_pixels(self) -> int:
        """Pixels of a tile: with their inputs and a row of the window they fit the registers."""
        most = max(2, self.writer.target.sums // 3)
        return -(-self.width // -(-self.width // most))

    def _is_inside(self, start: int, count: int) -> bool:
        """Whether all columns of the windows of `count` pixels from `start` lie inside the image."""
        stride, reach = int(self.view.strides[1]), (self.columns - 1) * int(self.view.dilations[1])
        left = start * stride - int(self.view.begin[1])
        return bool(left >= 0 and left + (count - 1) * stride + reach < self.kernel.operand(0).shape[3])

    def _write_tile(self, scope: Scope, start: str, count: int, inside: bool) -> None:
        """Combines the windows of `count` pixels from `start`, and stores the results."""
        height, width = self.kernel.operand(0).shape[2:4]
        (down, across), stride = self.view.dilations, self.view.strides[1]
        scope.write("{")
        tile = scope.inner()
        tile.write(f"partita_lanes found[{count}];")
        left = f"{start} * {stride} - {self.view.begin[1]}"
        window = f"{self.rows}, {self.columns}, {down}, {across}, {stride}"
        combination, image = self.combination(self.places[1]), f"image, {height}, {width}, top, {left}"
        tile.write(f"partita_windows({combination}, {count}, {int(inside)}, {image}, {window}, found);")
        tile.write("#pragma GCC unroll 16")
        tile.write(f"for (int64_t p = 0; p < {count}; ++p) {{")
        pixel = tile.inner()
        pixel.write(f"float cell[{self.block}];")
        pixel.write("memcpy(cell, &found[p], sizeof cell);")
        self.store(pixel, self.places | {3: f"({start} + p)"}, "cell")
        tile.write("}")
        scope.write("}")

    @abstractmethod
    def combination(self, block: str) -> str:
        """What partita_windows is told first: is_max, is_weighted and the weights."""


class DepthwiseKernel(WindowKernel):
    """BlockedDepthwiseConv."""

    def combination(self, block: str) -> str:
        w = self.kernel.operand(1)
        size = int(w.shape[1] * w.shape[2]) * self.block
        return f"0, 1, (const partita_lanes *)({self.writer.pointer(w)} + {block} * {size})"


class PoolKernel(WindowKernel):
    """MaxPool and AveragePool."""

    def combination(self, block: str) -> str:
        return f"{int(self.kernel.op_type == 'MaxPool')}, 0, NULL"

    def own_result(self) -> Computation:
        i, total = indices_over(self.kernel.output.shape), Load(self.sum, (), DType.FLOAT32)
        if self.kernel.op_type == "MaxPool":
            return tensor(i, total)
        return tensor(i, total / cast(averaged_count(self.kernel, i[2:]), total.dtype))
