"""The kernel of PackedMatMul: register tiles of rows by packed columns, with the epilogue in the store."""

from __future__ import annotations

import math

from partita.backends.cpu.blocked_convolution import PRODUCTS, STRIP, tile_function
from partita.backends.cpu.expressions import Scope, stored
from partita.backends.cpu.generic import composed
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.loops import LoopNest, moved, store_form
from partita.ir import dims
from partita.ir.expression import Axis, Computation, Load, compute, replace_indices, substitute
from partita.ir.graph import Node, Value
from partita.ir.types import DType, TensorType


def takes_epilogue(kernel: Node, node: Node) -> bool:
    """Whether `node`, pointwise on the product, may be computed in its store: its other operands vary with all rows or
    with none, and with all columns or with none."""
    *rows, columns = kernel.output.shape
    for value in node.operands:
        *lead, last = (1,) * (len(rows) + 1 - len(value.shape)) + tuple(value.shape)
        if not (dims.same_shape(lead, rows) or _are_ones(lead)) or not (dims.same(last, columns) or _are_ones([last])):
            return False
    return True


def _are_ones(extents: list[dims.Dim]) -> bool:
    return all(dims.is_static(dim) and dim == 1 for dim in extents)


class ProductKernel:
    """`[M, K] x [K, N]`, where M stands for all axes of the left operand but the last."""

    def __init__(self, node: Node, writer: KernelWriter) -> None:
        self.node = node
        self.kernel = members(node)[0]
        self.writer = writer
        w = self.kernel.operand(1)
        self.depth, self.panels, self.block = (int(dim) for dim in w.shape[1:])
        self.rows = dims.product(self.kernel.output.shape[:-1])
        self.columns = int(self.kernel.attributes["columns"])
        self.sum = Value("sum", TensorType(DType.FLOAT32, ()))
        writer.printer.locals[self.sum] = "cell[c]"
        writer.blocks.add(self.block)

    def write(self) -> Kernel:
        writer, size = self.writer, self.writer.size
        pixels = self._tile_rows()
        strip = pixels * max(1, STRIP // pixels)
        if dims.is_static(self.rows):
            strip = min(strip, -(-int(self.rows) // pixels) * pixels)
        width = self.panels * self.block
        panel = Axis("panel", self.kernel.operand(1).shape[0])
        strips = Axis("strip", dims.ceil_div(self.rows, strip))
        scope = writer.open_steps([panel, strips], strip * width * self.depth / PRODUCTS)
        names = writer.printer.axis_names
        step = math.gcd(self.depth, self.block)
        scope.write(f"const int64_t first = {names[strips]} * {strip};")
        scope.write(f"const int64_t left = {size(self.rows)} - first;")
        scope.write(f"const int64_t rows = left < {strip} ? left : {strip};")
        scope.write(f"const float *source = {writer.pointer(self.kernel.operand(0))} + first * {self.depth};")
        weights = writer.pointer(self.kernel.operand(1))
        scope.write(f"const float *weights = {weights} + {names[panel]} * {self.depth * width};")
        scope.write(f"const partita_window window = {{{self.depth // step}, {step}, 0, 0, {width}, {self.block}}};")
        scope.write(f"float sums[{strip * width}] __attribute__((aligned(64)));")
        scope.write("int64_t done = 0;")
        for rows in self._tile_sizes(pixels):
            tile = tile_function(writer, rows, self.panels, step, self.depth)
            loop = (
                f"for (; done + {rows} <= rows; done += {rows})" if rows == pixels else f"if (done + {rows} <= rows) {{"
            )
            scope.write(loop)
            scope.write(f"    {tile}(&window, source + done * {self.depth}, weights, sums + done * {width});")
            if rows != pixels:
                scope.write(f"    done += {rows};")
                scope.write("}")
        self._write_store(scope, names[panel], width)
        writer.close_steps()
        return writer.finish()

    def _tile_rows(self) -> int:
        """Rows of a tile: as many as fill the registers with sums, or fewer that share out the rows evenly."""
        most = self.writer.target.sums // self.panels
        if not dims.is_static(self.rows):
            return most
        rows = max(int(self.rows), 1)
        return -(-rows // -(-rows // most))

    def _tile_sizes(self, pixels: int) -> list[int]:
        """The tiles that together make any number of rows that occurs: whole ones, then the rest."""
        if dims.is_static(self.rows):
            rest = int(self.rows) % pixels
            return [pixels, rest] if rest else [pixels]
        powers = [16, 8, 4, 2, 1]
        return [pixels, *(power for power in powers if power < pixels)]

    def _write_store(self, scope: Scope, panel: str, width: int) -> None:
        """Stores the strip, row by row."""
        writer, printer = self.writer, self.writer.printer
        value, result = self._epilogue()
        form = store_form(result.axes, value.shape)
        nest = LoopNest(result.axes[:-1], [result.body], [form])
        assert len(nest.loops) <= 1, "takes_epilogue lets in only what runs over the rows as one"
        body, form = replace_indices(result.body, nest.replacement), moved(form, nest.replacement)
        printer.axis_names.update(dict.fromkeys(nest.loops, "row"))
        printer.axis_names[result.axes[-1]] = "column"
        printer.count(body)
        whole = self.columns % width == 0
        scope.write(f"const int64_t start = {panel} * {width};")
        if not whole:
            scope.write(f"const int64_t width = {self.columns} - start < {width} ? {self.columns} - start : {width};")
        scope.write("for (int64_t r = 0; r < rows; ++r) {")
        inner = scope.inner()
        inner.write(f"const float *cell = sums + r * {width};")
        if nest.loops:
            inner.write("const int64_t row = first + r;")
        inner.write("#pragma omp simd")
        inner.write(f"for (int64_t c = 0; c < {width if whole else 'width'}; ++c) {{")
        cell = inner.inner()
        cell.write("const int64_t column = start + c;")
        text = stored(printer.render(body, cell), value.tensor.dtype)
        cell.write(f"{writer.pointers[value]}[{printer.affine_text(form)}] = {text};")
        inner.write("}")
        scope.write("}")

    def _epilogue(self) -> tuple[Value, Computation]:
        """The group's output as an expression of the sum."""
        own = compute(self.kernel.output.shape, lambda *i: Load(self.sum, (), DType.FLOAT32))
        later = members(self.node)[1:]
        if not later:
            return self.kernel.output, own
        result = composed(self.node, kept=frozenset([self.kernel.output]))[later[-1].output]
        return later[-1].output, Computation(result.axes, substitute(result.body, {self.kernel.output: own}))
