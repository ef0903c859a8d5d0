"""Kernels of matrix products: register tiles of rows by packed columns, with the epilogue in the store. The columns are
packed when weights are bound (PackedMatMul), or by the kernel itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

from partita.backends.cpu.blocked_convolution import COPIES
from partita.backends.cpu.blocked_operators import block_count, is_packed_product
from partita.backends.cpu.expressions import Scope, matrix_position
from partita.backends.cpu.generic import with_epilogue
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.loops import LoopNest, moved, store_form
from partita.backends.cpu.pack_products import FEW
from partita.backends.cpu.scalars import stored
from partita.backends.cpu.tiles import (
    CACHED_PANEL,
    PRODUCTS,
    Ahead,
    Tile,
    product_tile,
    tile_rows,
    weights_ahead,
    write_sums,
)
from partita.ir import dims
from partita.ir.expression import Axis, Load, replace_indices
from partita.ir.formula import compute
from partita.ir.graph import Node, Value
from partita.ir.types import DType, TensorType

WIDEST = 32  # columns of a panel
LEAST_TOGETHER = 4  # tiles that read a panel in turn, so that there is time to ask for another one
MANY_MATRICES = 8  # enough for any number of threads


def takes_epilogue(kernel: Node, node: Node) -> bool:
    """Whether `node`, pointwise on the product, may be computed in its store: its other operands vary with all columns
    or with none, and with all rows or with none where the loop runs over all rows as one."""
    *rows, columns = kernel.output.shape
    for value in node.operands:
        *lead, last = (1,) * (len(rows) + 1 - len(value.shape)) + tuple(value.shape)
        if not dims.same(last, columns) and not _are_ones([last]):
            return False
        if is_packed_product(kernel) and not dims.same_shape(lead, rows) and not _are_ones(lead):
            return False  # its loop runs over all rows as one
    return True


def _are_ones(extents: list[dims.Dim]) -> bool:
    return all(dims.is_static(dim) and dim == 1 for dim in extents)


class ProductKernel:
    """`[M, K] x [K, N]`, where M stands for all axes of the left operand but the last, and the right one is packed when
    weights are bound."""

    def __init__(self, node: Node, writer: KernelWriter) -> None:
        self.node = node
        self.kernel = members(node)[0]
        self.writer = writer
        self.sum = Value("sum", TensorType(DType.FLOAT32, ()))
        writer.printer.locals[self.sum] = "cell[c]"
        own = compute(self.kernel.output.shape, lambda *i: Load(self.sum, (), DType.FLOAT32))
        self.value, self.result = with_epilogue(node, own)
        self.depth, self.panels, self.block = self._packed_shape()  # K may be known at run time only
        self.deep = writer.size(self.depth)
        self.columns = int(self.kernel.output.shape[-1])
        self.width = self.panels * self.block
        self.batch: Sequence[Axis] = ()
        self.rows = dims.product(self.kernel.output.shape[:-1])
        writer.blocks.add(self.block)

    def _packed_shape(self) -> tuple[dims.Dim, int, int]:
        """Depth K, blocks in a panel, columns in a block."""
        depth, panels, block = (int(dim) for dim in self.kernel.operand(1).shape[1:])
        return depth, panels, block

    def left(self) -> str:
        """Where the left matrix of a step begins."""
        return self.writer.pointer(self.kernel.operand(0))

    def weights(self, panel: str) -> str:
        """Where a panel of the packed right matrix of a step begins."""
        return f"{self.writer.pointer(self.kernel.operand(1))} + {panel} * {self.writer.size(self.depth * self.width)}"

    def write(self) -> Kernel:
        writer = self.writer
        pixels = tile_rows(self.rows, writer.target.sums // self.panels)
        tiles, together = dims.ceil_div(self.rows, pixels), self._tiles_together(pixels)
        groups = Axis("group", dims.ceil_div(tiles, together))
        panel, tile = Axis("panel", block_count(self.columns, self.width)), Axis("tile", together)
        scope = writer.open_steps(
            [*self.batch, groups, panel, tile], pixels * self.width * dims.typical(self.depth) / PRODUCTS
        )
        names = writer.printer.axis_names
        scope.write(f"const int64_t first = ({names[groups]} * {together} + {names[tile]}) * {pixels};")
        if not dims.same(groups.extent * together, tiles):
            scope.write(f"if (first >= {writer.size(self.rows)})")
            scope.write("    continue;")
        self.write_tile(scope, pixels, names[panel], names[tile], together)
        writer.close_steps()
        return writer.finish()

    def write_tile(self, scope: Scope, pixels: int, panel: str, tile: str, together: int) -> None:
        """Sums and stores the rows from `first` on, in one panel of columns; `together` tiles read it in turn."""
        scope.write(f"const int64_t left = {self.writer.size(self.rows)} - first;")
        scope.write(f"const int64_t rows = left < {pixels} ? left : {pixels};")
        scope.write(f"const float *source = {self.left()} + first * {self.deep};")
        scope.write(f"const float *weights = {self.weights(panel)};")
        shape = product_tile(self.writer, scope, pixels, self.panels, self.depth)
        ahead = self.ahead(shape, together)
        scope.write(f"const float *next = {ahead.start(tile)};")
        write_sums(self.writer, scope, shape, ahead, self.rows, self.deep, self.width)
        self.write_store(scope, f"{panel} * {self.width}")

    def _tiles_together(self, pixels: int) -> int:
        """Tiles that go through all panels before the next ones: their rows stay in the cache meanwhile."""
        most = max(CACHED_PANEL // (dims.typical(self.depth) * pixels), LEAST_TOGETHER)
        tiles = dims.ceil_div(self.rows, pixels)
        return -(-int(tiles) // -(-int(tiles) // most)) if dims.is_static(tiles) and tiles else most

    def ahead(self, tile: Tile, together: int) -> Ahead:
        return weights_ahead(tile, self.block, dims.typical(self.depth) * self.width, together)

    def write_store(self, scope: Scope, start: str, first: str = "first") -> None:
        """Stores the tile `sums`, whose top left element is at row `first` and column `start`, row by row."""
        writer, printer, width = self.writer, self.writer.printer, self.width
        form, body = store_form(self.result.axes, self.value.shape), self.result.body
        nest = LoopNest(self.result.axes[len(self.batch) : -1], [body], [form])
        assert len(nest.loops) <= 1, "takes_epilogue lets in only what runs over the rows as one"
        body, form = replace_indices(body, nest.replacement), moved(form, nest.replacement)
        printer.axis_names.update(dict.fromkeys(nest.loops, "row"))
        printer.axis_names[self.result.axes[-1]] = "column"
        printer.count(body)
        whole = self.columns % width == 0
        scope.write(f"const int64_t start = {start};")
        if not whole:
            scope.write(f"const int64_t width = {self.columns} - start < {width} ? {self.columns} - start : {width};")
        scope.write("for (int64_t r = 0; r < rows; ++r) {")
        inner = scope.inner()
        inner.write(f"const float *cell = sums + r * {width};")
        if nest.loops:
            inner.write(f"const int64_t row = {first} + r;")
        inner.write("#pragma omp simd")
        inner.write(f"for (int64_t c = 0; c < {width if whole else 'width'}; ++c) {{")
        cell = inner.inner()
        cell.write("const int64_t column = start + c;")
        text = stored(printer.render(body, cell), self.value.tensor.dtype)
        cell.write(f"{writer.pointers[self.value]}[{printer.affine_text(form)}] = {text};")
        inner.write("}")
        scope.write("}")


def is_product(node: Node) -> bool:
    """Whether a node is a product of matrices that a run makes both, the right one of as many columns as is known."""
    if node.domain or node.op_type != "MatMul" or node.output.tensor.dtype is not DType.FLOAT32:
        return False
    a, b = node.operand(0), node.operand(1)
    if min(len(a.shape), len(b.shape)) < 2 or not dims.is_static(b.shape[-1]):
        return False
    rows = a.shape[-2]
    is_empty = any(dims.same(dims.product(value.shape), 0) for value in (b, node.output))
    return not (dims.is_static(rows) and rows < FEW) and not is_empty


def workspace(node: Node) -> dims.Dim:
    """Bytes of packed right matrices, for the widest panels: of one panel, or of all matrices."""
    *lead, depth, columns = node.operand(1).shape
    if is_by_matrix(node):
        return depth * WIDEST * 4
    return dims.product([*lead, depth, block_count(int(columns), WIDEST) * WIDEST]) * 4


def is_by_matrix(node: Node) -> bool:
    """Whether there are as many right matrices as results, and enough to share out among threads."""
    lead, batch = node.operand(1).shape[:-2], node.output.shape[:-2]
    return dims.same_shape(lead, batch) and math.prod(int(d) for d in lead if dims.is_static(d)) >= MANY_MATRICES


class RunTimeProductKernel(ProductKernel):
    """`[..., M, K] x [..., K, N]`: the right matrices are packed in scratch memory first."""

    def __init__(self, node: Node, writer: KernelWriter) -> None:
        super().__init__(node, writer)
        self.batch = self.result.axes[:-2]
        self.rows = self.kernel.output.shape[-2]
        self.is_by_matrix = is_by_matrix(self.kernel)

    def _packed_shape(self) -> tuple[dims.Dim, int, int]:
        *_, depth, columns = self.kernel.operand(1).shape
        block = self.writer.target.block
        return depth, min(2, block_count(int(columns), block)), block

    def left(self) -> str:
        return super().left() + self._offset(self.kernel.operand(0), 1)

    def weights(self, panel: str) -> str:
        if self.is_by_matrix:
            return "(const float *)workspace"
        columns = self.kernel.operand(1).shape[-1]
        packed = block_count(self.columns, self.width) * self.width
        offset = self._offset(self.kernel.operand(1), columns, packed)
        return f"(const float *)shared{offset} + {panel} * {self.writer.size(self.depth * self.width)}"

    def ahead(self, tile: Tile, together: int) -> Ahead:
        return Ahead()  # they were just packed

    def write(self) -> Kernel:
        if self.is_by_matrix:
            return self._write_by_matrix()
        writer, b = self.writer, self.kernel.operand(1)
        writer.uses_shared = True
        count = block_count(self.columns, self.width)
        matrix, panel = Axis("matrix", dims.product(b.shape[:-2])), Axis("panel", count)
        scope = writer.open_steps([matrix, panel], dims.typical(self.depth) * self.width / COPIES)
        names = writer.printer.axis_names
        step = f"({names[matrix]} * {count} + {names[panel]}) * {writer.size(self.depth * self.width)}"
        scope.write(f"float *packed = (float *)shared + {step};")
        self._write_packing(scope, f" + {names[matrix]} * {writer.size(self.depth * self.columns)}", names[panel])
        writer.close_steps()
        return super().write()

    def _write_by_matrix(self) -> Kernel:
        """Each step computes a matrix, one panel of columns after the other, which it packs first."""
        writer, pixels = self.writer, tile_rows(self.rows, self.writer.target.sums // self.panels)
        writer.uses_workspace = True
        tiles = dims.ceil_div(self.rows, pixels)
        products = dims.typical(self.rows) * self.columns * dims.typical(self.depth)
        scope = writer.open_steps(self.batch, products / PRODUCTS)
        scope.write(f"for (int64_t panel = 0; panel < {block_count(self.columns, self.width)}; ++panel) {{")
        inner = scope.inner()
        inner.write("float *packed = (float *)workspace;")
        self._write_packing(inner, self._offset(self.kernel.operand(1), 1), "panel")
        inner.write(f"for (int64_t tile = 0; tile < {writer.size(tiles)}; ++tile) {{")
        innermost = inner.inner()
        innermost.write(f"const int64_t first = tile * {pixels};")
        self.write_tile(innermost, pixels, "panel", "tile", 1)
        inner.write("}")
        scope.write("}")
        writer.close_steps()
        return writer.finish()

    def _write_packing(self, scope: Scope, matrix: str, panel: str) -> None:
        """Fills `packed` with a panel of the right matrix, with zeros after its last column."""
        columns, width = self.columns, self.width
        scope.write(f"const float *right = {self.writer.pointer(self.kernel.operand(1))}{matrix} + {panel} * {width};")
        if columns % width == 0:
            value = f"right[k * {columns} + c]"
        else:
            scope.write(f"const int64_t packed_width = {columns} - {panel} * {width};")
            value = f"c < packed_width ? right[k * {columns} + c] : 0.0f"
        scope.write(f"for (int64_t k = 0; k < {self.deep}; ++k)")
        scope.write(f"    for (int64_t c = 0; c < {width}; ++c)")
        scope.write(f"        packed[k * {width} + c] = {value};")

    def _offset(self, value: Value, columns: dims.Dim, packed: int = 1) -> str:
        """Where an operand's matrix lies for the current step, its rows holding `packed` elements for `columns`."""
        form = matrix_position(value, self.batch)
        scaled = {axis: dims.simplified(dims.floor_div(step * packed, columns)) for axis, step in form.items()}
        text = self.writer.printer.affine_text(scaled)
        return "" if text == "0" else f" + {text}"
