"""Kernels of matrix products and convolutions: packed columns, register tiles, the epilogue in the store.

Both are one product `[rows, depth] x [depth, columns]`. The columns are packed, as many at a time as a register tile
has, into scratch memory: a block of the right matrix, or the windows of a convolution (im2col). The left matrix is read
where it is: the rows of the weights for a convolution. Sums are float.

A step is one tile of rows and one block of columns; a block is packed by each thread that meets it.
"""

from __future__ import annotations

from collections.abc import Sequence

from partita.backends.cpu.expressions import Scope, matrix_position
from partita.backends.cpu.generic import with_epilogue
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.loops import LoopNest, moved, store_form
from partita.backends.cpu.packed_product import WIDEST
from partita.backends.cpu.scalars import stored
from partita.backends.cpu.tiles import PRODUCTS, Ahead, product_tile, tile_rows, write_sums
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Computation, Expr, Load, replace_indices
from partita.ir.formula import broadcast_load, compute, indices_over, load, over, tensor
from partita.ir.graph import Node, Value
from partita.ir.types import DType, TensorType
from partita.ir.window import Window, window

PANELS = 2  # vectors of columns in a tile
SMALL = 4  # rows: below this, packing costs more than it saves


def is_kernel(node: Node) -> bool:
    """Whether a kernel of this file runs `node`."""
    if node.domain or node.op_type not in ("Conv", "Gemm", "MatMul") or node.output.tensor.dtype is not DType.FLOAT32:
        return False
    if dims.same(_depth(node), 0):
        return False  # nothing to pack
    if node.op_type == "Conv":
        return convolution_rows(node) >= SMALL
    if node.op_type == "Gemm":
        rows = node.output.shape[0]
        few = dims.is_static(rows) and rows < SMALL
        return not (node.attributes.get("transA", 0) or node.attributes.get("transB", 0) or few)
    a, b = node.operand(0), node.operand(1)
    rows = a.shape[-2] if len(a.shape) > 1 else 1
    return min(len(a.shape), len(b.shape)) > 1 and not (dims.is_static(rows) and rows < SMALL)


def convolution_rows(node: Node) -> int:
    """Output channels of one group."""
    rows = node.operand(1).shape[0]
    return int(rows) // int(node.attributes.get("group", 1)) if dims.is_static(rows) else 0


def takes_epilogue(kernel: Node, node: Node) -> bool:
    """Whether `node`, pointwise on the kernel's result, can be computed in its store: its other operands vary with all
    columns of the tile, or with none."""
    shape = kernel.output.shape
    columns = shape[2:] if kernel.op_type == "Conv" else shape[-1:]
    for value in node.operands:
        own = value.shape[max(len(value.shape) - len(columns), 0) :]
        padded = (1,) * (len(columns) - len(own)) + tuple(own)
        same = dims.same_shape(padded, columns)
        if not same and not all(dims.is_static(dim) and dim == 1 for dim in padded):
            return False
    return True


def workspace(node: Node) -> Dim:
    """Bytes of packed columns."""
    return _depth(members(node)[0]) * WIDEST * 4


def _depth(kernel: Node) -> Dim:
    """Products in each sum."""
    return dims.product(kernel.operand(1).shape[1:]) if kernel.op_type == "Conv" else kernel.operand(0).shape[-1]


def contraction_kernel(node: Node, writer: KernelWriter) -> Kernel:
    """The kernel of a node, or of a fused group that starts with it."""
    writer.uses_workspace = True
    kernel = members(node)[0]
    if kernel.op_type == "Conv":
        _Convolution(node, kernel, writer).write()
    else:
        _Product(node, kernel, writer).write()
    return writer.finish()


class _Tiles:
    """What both kernels share: the loops over tiles, and the store with its epilogue."""

    def __init__(self, node: Node, kernel: Node, writer: KernelWriter) -> None:
        self.node = node
        self.kernel = kernel
        self.writer = writer
        self.accumulator = Value("sum", TensorType(DType.FLOAT32, ()))
        self.block = writer.target.block
        self.width = PANELS * self.block
        writer.blocks.add(self.block)
        writer.printer.locals[self.accumulator] = f"sums[r * {self.width} + c]"

    def sum_at(self) -> Expr:
        return Load(self.accumulator, (), DType.FLOAT32)

    def open_tiles(self, outer: Sequence[Axis], rows: Dim, depth: Dim, columns: Dim) -> Scope:
        """Opens the loop over tiles: the tiles of rows, for each block of columns, for each element of `outer`. In its
        scope are `start` and `width` (of the block's columns), `first` and `rows`."""
        writer, size, width = self.writer, self.writer.size, self.width
        self.total, self.depth = rows, depth
        self.pixels = tile_rows(rows, writer.target.sums // PANELS)
        tiles, blocks = Axis("row_tile", dims.ceil_div(rows, self.pixels)), Axis("block", dims.ceil_div(columns, width))
        scope = writer.open_steps([*outer, blocks, tiles], self.pixels * width * dims.typical(depth) / PRODUCTS)
        names = writer.printer.axis_names
        scope.write(f"const int64_t start = {names[blocks]} * {width};")
        scope.write(f"const int64_t left_columns = {size(columns)} - start;")
        scope.write(f"const int64_t width = left_columns < {width} ? left_columns : {width};")
        scope.write(f"const int64_t first = {names[tiles]} * {self.pixels};")
        scope.write(f"const int64_t left_rows = {size(rows)} - first;")
        scope.write(f"const int64_t rows = left_rows < {self.pixels} ? left_rows : {self.pixels};")
        return scope

    def open_packing(self, scope: Scope) -> Scope:
        """Opens what packs a block's columns where the step before was another's."""
        scope.write("if (step == begin || first == 0) {")
        return scope.inner()

    def write_tile(self, scope: Scope, left: str) -> None:
        """Computes the tile."""
        size = self.writer.size
        scope.write(f"const float *source = {left} + first * {size(self.depth)}, *weights = columns, *next = columns;")
        tile = product_tile(self.writer, scope, self.pixels, PANELS, self.depth)
        write_sums(self.writer, scope, tile, Ahead(), self.total, size(self.depth), self.width)

    def write_store(
        self, scope: Scope, value: Value, computation: Computation, columns: Sequence[Axis], row: Axis, row_text: str
    ) -> None:
        """Writes the loops that store one tile. `columns` are the axes that the tile's columns run over, as one."""
        printer, writer = self.writer.printer, self.writer
        form = store_form(computation.axes, value.shape)
        nest = LoopNest(columns, [computation.body], [form])
        assert len(nest.loops) <= 1, "takes_epilogue lets in only what runs over the columns as one"
        body = replace_indices(computation.body, nest.replacement)
        form = moved(form, nest.replacement)
        printer.axis_names[row] = row_text
        for axis in nest.loops:
            printer.axis_names[axis] = "start + c"
        printer.count(body)
        scope.write("for (int64_t r = 0; r < rows; ++r) {")
        rows = scope.inner()
        rows.write("#pragma omp simd")
        rows.write("for (int64_t c = 0; c < width; ++c) {")
        cell = rows.inner()
        text = stored(printer.render(body, cell), value.tensor.dtype)
        place = printer.affine_text(form).replace("start + c * ", "(start + c) * ")
        cell.write(f"{writer.pointers[value]}[{place}] = {text};")
        rows.write("}")
        scope.write("}")


class _Product(_Tiles):
    """MatMul `[..., M, K] @ [..., K, N]` and Gemm without transposed operands."""

    def write(self) -> None:
        writer, size, kernel = self.writer, self.writer.size, self.kernel
        a, b = kernel.operand(0), kernel.operand(1)
        depth, columns = b.shape[-2], b.shape[-1]
        own = self._own()
        value, result = with_epilogue(self.node, own)
        batch, (row, column) = result.axes[:-2], result.axes[-2:]
        tile = self.open_tiles(batch, a.shape[-2], depth, columns)
        tile.write("float *columns = (float *)workspace;")
        tile.write(f"const float *left = {writer.pointer(a)}{self._batch_offset(a, batch)};")
        tile.write(f"const float *right = {writer.pointer(b)}{self._batch_offset(b, batch)};")
        packing = self.open_packing(tile)
        packing.write(f"for (int64_t k = 0; k < {size(depth)}; ++k)")
        packing.write(f"    for (int64_t c = 0; c < {self.width}; ++c)")
        element = f"right[k * {size(columns)} + start + c]"
        packing.write(f"        columns[k * {self.width} + c] = c < width ? {element} : 0.0f;")
        tile.write("}")
        self.write_tile(tile, "left")
        self.write_store(tile, value, result, [column], row, "(first + r)")
        writer.close_steps()

    def _own(self) -> Computation:
        """The kernel's result in terms of the sum: Gemm scales it and adds C."""
        shape = self.kernel.output.shape
        if self.kernel.op_type == "MatMul":
            return compute(shape, lambda *i: self.sum_at())
        alpha, beta = (float(self.kernel.attributes.get(key, 1.0)) for key in ("alpha", "beta"))
        i = over("m", shape[0]), over("n", shape[1])
        total: Expr = self.sum_at()
        if alpha != 1.0:
            total = total * alpha
        addend = self.kernel.input(2)
        if addend is not None:
            term = broadcast_load(addend, i)
            total = total + (term if beta == 1.0 else term * beta)
        return tensor(i, total)

    def _batch_offset(self, value: Value, batch: Sequence[Axis]) -> str:
        """Where an operand's matrix lies for the current indices of the leading axes."""
        text = self.writer.printer.affine_text(matrix_position(value, batch))
        return "" if text == "0" else f" + {text}"


class _Convolution(_Tiles):
    """Conv on `[N, C, *spatial]`, any number of spatial axes, groups, strides and dilations."""

    def write(self) -> None:
        writer, size, kernel = self.writer, self.writer.size, self.kernel
        x, w = kernel.operand(0), kernel.operand(1)
        groups = int(kernel.attributes.get("group", 1))
        rows = convolution_rows(kernel)
        depth = dims.product(w.shape[1:])
        view = window(kernel, x.shape[2:], w.shape[2:])
        value, result = with_epilogue(self.node, self._own())
        batch, channel, spatial = result.axes[0], result.axes[1], result.axes[2:]
        group = Axis("group", groups)
        tile = self.open_tiles([batch, group], rows, depth, dims.product(view.output))
        n, g = writer.printer.axis_names[batch], writer.printer.axis_names[group]
        plane = size(dims.product(x.shape[2:]))
        tile.write("float *columns = (float *)workspace;")
        tile.write(f"const float *image = {writer.pointer(x)} + ({n} * {groups} + {g}) * {w.shape[1]} * {plane};")
        tile.write(f"const float *left = {writer.pointer(w)} + {g} * {rows} * {size(depth)};")
        packing = self.open_packing(tile)
        self._write_packing(packing, view, w.shape[1], x.shape[2:])
        tile.write("}")
        self.write_tile(tile, "left")
        self.write_store(tile, value, result, spatial, channel, f"({g} * {rows} + first + r)")
        writer.close_steps()

    def _own(self) -> Computation:
        """The sum with the bias, over the output's axes."""
        bias, i = self.kernel.input(2), indices_over(self.kernel.output.shape)
        return tensor(i, self.sum_at() if bias is None else self.sum_at() + load(bias, i[1]))

    def _write_packing(self, scope: Scope, view: Window, channels: Dim, spatial: Sequence[Dim]) -> None:
        """Copies the windows of a block of output positions: `columns[(channel, kernel position)][output position]`."""
        size = self.writer.size
        plane = size(dims.product(spatial))
        simple = all(k == 1 and s == 1 for k, s in zip(view.kernel, view.strides, strict=True)) and not view.is_padded
        if simple:
            scope.write(f"for (int64_t k = 0; k < {size(channels)}; ++k)")
            scope.write(f"    for (int64_t c = 0; c < {self.width}; ++c)")
            element = f"image[k * {plane} + start + c]"
            scope.write(f"        columns[k * {self.width} + c] = c < width ? {element} : 0.0f;")
            return
        rank = len(spatial)
        scope.write(f"int64_t origin[{rank}][{self.width}]; /* of each window, per axis */")
        scope.write(f"for (int64_t c = 0; c < {self.width}; ++c) {{")
        inner = scope.inner()
        inner.write("int64_t rest = start + c;")
        for axis in reversed(range(rank)):
            out = size(view.output[axis])
            inner.write(f"origin[{axis}][c] = rest % {out} * {view.strides[axis]} - {size(view.begin[axis])};")
            if axis:
                inner.write(f"rest /= {out};")
        scope.write("}")
        scope.write("float *target = columns;")
        scope.write(f"for (int64_t k = 0; k < {size(channels)}; ++k) {{")
        scope.write(f"    const float *source = image + k * {plane};")
        kernel_axes = [Axis(f"k{axis}", extent) for axis, extent in enumerate(view.kernel)]
        body = self.writer.printer.open_loops(kernel_axes, scope.inner())
        body.write(f"for (int64_t c = 0; c < {self.width}; ++c) {{")
        cell = body.inner()
        names = [self.writer.printer.axis_names[axis] for axis in kernel_axes]
        tests = ["c < width"]
        place = ""
        for axis in range(rank):
            cell.write(f"const int64_t p{axis} = origin[{axis}][c] + {names[axis]} * {view.dilations[axis]};")
            if view.is_padded or view.begin[axis] != 0 or view.end[axis] != 0:
                tests.append(f"p{axis} >= 0 && p{axis} < {size(spatial[axis])}")
            place = f"p{axis}" if not place else f"({place}) * {size(spatial[axis])} + p{axis}"
        cell.write(f"target[c] = {' && '.join(tests)} ? source[{place}] : 0.0f;")
        body.write("}")
        body.write(f"target += {self.width};")
        self.writer.printer.close_loops(kernel_axes, scope.inner())
        scope.write("}")
