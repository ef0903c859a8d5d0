"""The kernel of StrassenMatMul: sums of the left matrix's quarters, seven products, their combinations in the store."""

from __future__ import annotations

import math
from dataclasses import replace

from partita.backends.cpu import strassen
from partita.backends.cpu.blocked_convolution import COPIES
from partita.backends.cpu.blocked_operators import block_count
from partita.backends.cpu.expressions import Scope
from partita.backends.cpu.kernel import Kernel
from partita.backends.cpu.packed_product import ProductKernel
from partita.backends.cpu.tiles import AHEAD, PRODUCTS, Tile, tile_function, tile_rows, weights_ahead
from partita.ir import dims
from partita.ir.expression import Axis
from partita.ir.graph import Node


def workspace(node: Node) -> int:
    """Bytes of the four sums of quarters, each [M / 2, K / 2]."""
    return int(dims.product(node.operand(0).shape)) * 4


class StrassenKernel(ProductKernel):
    """`[M, K] x [K, N]` by seven products `[M / 2, K / 2] x [K / 2, N / 2]`; sums of quarters are in scratch memory."""

    def _packed_shape(self) -> tuple[int, int, int]:
        depth, panels, block = (int(dim) for dim in self.kernel.operand(1).shape[2:])
        return depth, panels, block

    def write(self) -> Kernel:
        writer = self.writer
        writer.uses_shared = True
        self.half = int(self.rows) // 2
        self._write_quarters()
        pixels = tile_rows(self.half, writer.target.sums // self.panels)
        tile = Axis("tile", block_count(self.half, pixels))
        panel = Axis("panel", self.columns // 2 // self.width)
        scope = writer.open_steps([panel, tile], 7 * pixels * self.width * self.depth / PRODUCTS)
        names = writer.printer.axis_names
        scope.write(f"const int64_t first = {names[tile]} * {pixels};")
        scope.write(f"const int64_t left = {self.half} - first;")
        scope.write(f"const int64_t rows = left < {pixels} ? left : {pixels};")
        self._write_products(scope, pixels, names[panel], names[tile], int(tile.extent))
        self._write_results(scope, pixels, names[panel])
        writer.close_steps()
        return writer.finish()

    def _write_quarters(self) -> None:
        """The phase that computes S1 to S4."""
        writer, depth = self.writer, self.depth
        row = Axis("row", self.half)
        scope = writer.open_steps([row], 4 * depth / COPIES)
        name = writer.printer.axis_names[row]
        scope.write(f"const float *top = {self.left()} + {name} * {2 * depth};")
        scope.write(f"const float *bottom = top + {2 * depth * self.half};")
        scope.write(f"float *quarters = (float *)shared + {name} * {depth};")
        scope.write("#pragma omp simd")
        scope.write(f"for (int64_t k = 0; k < {depth}; ++k) {{")
        inner = scope.inner()
        inner.write(f"const float a11 = top[k], a12 = top[k + {depth}], a21 = bottom[k], a22 = bottom[k + {depth}];")
        for number, text in enumerate(strassen.SUMS):
            inner.write(f"quarters[k + {number * self.half * depth}] = {text};")
        scope.write("}")
        writer.close_steps()

    def _write_products(self, scope: Scope, pixels: int, panel: str, tile: str, tiles: int) -> None:
        """The seven products of a tile, one after the other in `products`."""
        depth, size = self.depth, self.depth * self.width
        step = math.gcd(depth, self.block)
        shape = Tile(pixels, self.panels, step, depth)
        ahead = weights_ahead(shape, self.block, 7 * size, tiles)
        scope.write(f"const partita_window window = {{{depth // step}, {step}, 0, 0, {self.width}, {self.block}}};")
        scope.write(f"const float *weights = {self.writer.pointer(self.kernel.operand(1))} + {panel} * {7 * size};")
        scope.write(f"const float *next = {ahead.start(tile)};")
        scope.write(f"float products[7][{pixels * self.width}] __attribute__((aligned(64)));")
        advance = size if ahead.first == AHEAD else ahead.share // 7
        for number, quarter in enumerate(strassen.LEFT):
            stride = 2 * depth if quarter.sum < 0 else depth
            corner = quarter.row * self.half * 2 * depth + quarter.column * depth
            start = f"{self.left()} + {corner}"
            if quarter.sum >= 0:
                start = f"(const float *)shared + {quarter.sum * self.half * depth}"
            arguments = f"{start} + first * {stride}, weights + {number * size}, next + {number * advance}"

            def call(count: int, stride: int = stride, arguments: str = arguments, number: int = number) -> str:
                name = tile_function(self.writer, replace(shape, pixels=count, stride=stride), ahead)
                return f"{name}(&window, {arguments}, products[{number}]);"

            rest = self.half % pixels
            if rest:
                scope.write(f"if (rows == {rest})")
                scope.write(f"    {call(rest)}")
                scope.write("else")
            scope.write(f"{'    ' if rest else ''}{call(pixels)}")

    def _write_results(self, scope: Scope, pixels: int, panel: str) -> None:
        """Combines the products to four tiles of the result, and stores them."""
        size = pixels * self.width
        scope.write(f"float results[4][{size}] __attribute__((aligned(64)));")
        scope.write("#pragma omp simd")
        scope.write(f"for (int64_t i = 0; i < rows * {self.width}; ++i) {{")
        inner = scope.inner()
        for number in range(7):
            inner.write(f"const float p{number} = products[{number}][i];")
        for number, text in enumerate(strassen.RESULTS):
            inner.write(f"results[{number}][i] = {text};")
        scope.write("}")
        scope.write("for (int64_t quarter = 0; quarter < 4; ++quarter) {")
        part = scope.inner()
        part.write("const float *sums = results[quarter];")
        part.write(f"const int64_t top = first + quarter / 2 * {self.half};")
        self.write_store(part, f"{panel} * {self.width} + quarter % 2 * {self.columns // 2}", "top")
        scope.write("}")
