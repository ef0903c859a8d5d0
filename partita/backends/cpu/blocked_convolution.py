"""Kernels of convolutions on blocked tensors: direct (any window, stride, group) and on planar input.

Each computes some neighbouring output pixels at a time, for a few blocks of output channels: a register tile leaves its
sums in a small array, which stays in the nearest cache, and a loop over it stores the results with the epilogue; short
sums never leave the registers. A window that overhangs reads a padded copy of the image in scratch memory, so that the
tiles have no conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise

from partita.backends.cpu.blocked_operators import block_window
from partita.backends.cpu.expressions import Scope
from partita.backends.cpu.generic import with_epilogue
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.loops import Form, LoopNest, moved, store_form
from partita.backends.cpu.tiles import PRODUCTS, Ahead, Tile, tile_function, weights_ahead
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Computation, Expr, Load, replace_indices, walk
from partita.ir.formula import compute, load
from partita.ir.graph import Node, Value
from partita.ir.types import DType, TensorType

COPIES = 4  # elements a nanosecond
BAND = 1 << 15  # elements of an image that stay in a core's cache, with weights beside them
BANDS = 4  # of an image, at least, so that threads have parts of it to themselves
SHORT = 256  # products of a sum, at most PARTITA_CHUNK of partita_blocked.h: beyond, a store is little beside it


class BlockedKernel:
    """What all kernels on blocked tensors share: padding, tiles, and the store with its epilogue."""

    def __init__(self, node: Node, writer: KernelWriter) -> None:
        self.node = node
        self.kernel = members(node)[0]
        self.writer = writer
        self.view = block_window(self.kernel)
        self.block = int(self.kernel.output.shape[4])
        self.height, self.width = (int(dim) for dim in self.kernel.output.shape[2:4])
        self.sum = Value("sum", TensorType(DType.FLOAT32, ()))
        self.value, self.result = with_epilogue(node, self.own_result())
        writer.blocks.add(self.block)

    def own_result(self) -> Computation:
        """The kernel's output as an expression of the accumulated sum: with the bias."""
        bias = self.kernel.operand(2)
        return compute(
            self.kernel.output.shape,
            lambda n, block, oh, ow, lane: Load(self.sum, (), DType.FLOAT32) + load(bias, block, lane),
        )

    @property
    def padded_size(self) -> tuple[int, int]:
        """Rows and columns that the windows of all outputs cover."""
        return _covered(self.kernel)

    @property
    def is_padded(self) -> bool:
        return needs_padding(self.kernel)

    def write_padding(self, planes: int, lanes: int) -> str:
        """The phase that copies the images into padded ones; gives the C text of where the windows read."""
        writer, x = self.writer, self.kernel.operand(0)
        if not self.is_padded:
            return writer.pointer(x)
        writer.uses_shared = True
        height, width = x.shape[2], x.shape[3]
        rows, columns = self.padded_size
        top, left = self.view.begin
        image = Axis("plane", x.shape[0] * planes)
        scope = writer.open_steps([image], rows * columns * lanes / COPIES)
        name = writer.printer.axis_names[image]
        scope.write(f"const float *plane_of_x = {writer.pointer(x)} + {name} * {height * width * lanes};")
        scope.write(f"float *padded = (float *)shared + {name} * {rows * columns * lanes};")
        sizes = f"{height}, {width}, {lanes}, {top}, {left}, {rows}, {columns}"
        scope.write(f"partita_pad(plane_of_x, {sizes}, padded);")
        writer.close_steps()
        return "(const float *)shared"

    def open_bands(self, inner: Axis, lines: int, together: int, cost: float) -> tuple[Scope, str, str]:
        """Opens steps that go through all of `inner` with `together` lines of each image before the next lines, so that
        these stay in a cache, and threads have parts of the image to themselves. Gives the scope, the line's name, and
        that of its place in the band."""
        writer, names = self.writer, self.writer.printer.axis_names
        batch, band, line = self.result.axes[0], Axis("band", -(-lines // together)), Axis("line", together)
        axes = [batch, band, inner, line] if together < lines else [batch, inner, line]
        scope = writer.open_steps(axes, cost)
        if together == lines:
            return scope, names[line], names[line]
        place = writer.names.fresh("place")
        scope.write(f"const int64_t {place} = {names[band]} * {together} + {names[line]};")
        if lines % together:
            scope.write(f"if ({place} >= {lines})")
            scope.write("    continue;")
        return scope, place, names[line]

    def store(self, scope: Scope, places: Mapping[int, str], cell: str) -> None:
        """Writes the store of one vector: `places` gives the C text of the output's axes 1 to 3 (where axes 2 and 3
        are one, of axis 3 alone); `cell` is the vector's first element."""
        form, body = self._placed(places, "lane")
        self.writer.printer.locals[self.sum] = f"{cell}[lane]"
        self.writer.printer.count(body)
        scope.write("#pragma omp simd")
        scope.write(f"for (int64_t lane = 0; lane < {self.block}; ++lane) {{")
        self.writer.store(self.value, form, body, scope.inner())
        scope.write("}")

    def prefetch(self, scope: Scope, places: Mapping[int, str]) -> None:
        """Asks for the vectors that a store at `places` will read from tensors of the output's size, and write."""
        form, body = self._placed(places, "0")
        writer, image = self.writer, dims.product(self.kernel.output.shape)
        scope.write(f"__builtin_prefetch(&{writer.pointers[self.value]}[{writer.printer.affine_text(form)}], 1);")
        for part in dict.fromkeys(walk(body)):
            if (
                isinstance(part, Load)
                and part.value is not self.sum
                and dims.same(dims.product(part.value.shape), image)
            ):
                place = writer.printer.position(part, scope)
                scope.write(f"__builtin_prefetch(&{writer.pointer(part.value)}[{place}]);")

    def _placed(self, places: Mapping[int, str], lane: str) -> tuple[Form, Expr]:
        """The position and the value of an element of the output, with its axes named."""
        printer, axes = self.writer.printer, self.result.axes
        form, body = store_form(axes, self.value.shape), self.result.body
        if 2 not in places:
            nest = LoopNest(axes[2:4], [body], [form])
            assert len(nest.loops) <= 1, "takes_epilogue lets in only what runs over the image as one"
            body, form = replace_indices(body, nest.replacement), moved(form, nest.replacement)
            printer.axis_names.update(dict.fromkeys(nest.loops, places[3]))
        for place, text in places.items():
            printer.axis_names[axes[place]] = text
        printer.axis_names[axes[4]] = lane
        return form, body


def _covered(kernel: Node) -> tuple[int, int]:
    view = block_window(kernel)
    rows, columns = (
        (out - 1) * stride + (size - 1) * dilation + 1
        for out, stride, size, dilation in zip(view.output, view.strides, view.kernel, view.dilations, strict=True)
    )
    return int(rows), int(columns)


def needs_padding(kernel: Node) -> bool:
    """Whether some window reaches beyond the image."""
    view, x = block_window(kernel), kernel.operand(0)
    overhangs = [c > dim for c, dim in zip(_covered(kernel), x.shape[2:4], strict=True)]
    return any(view.begin) or any(overhangs)


def workspace(kernel: Node) -> Dim:
    """Bytes of the padded images, of the kernels that pad: windows of single channels read the image itself."""
    if kernel.op_type not in ("BlockedConv", "PlanarConv", "GatheredConv") or not needs_padding(kernel):
        return 0
    x = kernel.operand(0)
    rows, columns = _covered(kernel)
    planes = x.shape[0] * x.shape[1]
    lanes = 1 if kernel.op_type == "PlanarConv" else x.shape[4]
    return planes * rows * columns * lanes * 4


class DirectKernel(BlockedKernel):
    """BlockedConv and PlanarConv."""

    def write(self) -> Kernel:
        kernel, writer = self.kernel, self.writer
        x, w = kernel.operand(0), kernel.operand(1)
        self.lanes = 1 if kernel.op_type == "PlanarConv" else self.block
        self.panels = self.panel_blocks()
        planes = int(x.shape[1])
        images = self.write_padding(planes, self.lanes)
        rows, columns = self.padded_size if self.is_padded else (x.shape[2], x.shape[3])
        self.is_flat = (rows, columns) == (self.height, self.width) and self.view.kernel == (1, 1)
        length = self.height * self.width if self.is_flat else self.width
        count = -(-length // (writer.target.sums // self.panels))
        self.pixels = -(-length // count)
        lines = count if self.is_flat else self.height
        together = self._lines_together(lines, planes * rows * columns * self.lanes)
        panels = int(kernel.output.shape[1]) // self.panels
        panel, tiles = Axis("panel", panels), 1 if self.is_flat else count
        pixels = self.pixels if self.is_flat else length
        cost = pixels * int(dims.product(w.shape)) // panels / PRODUCTS
        scope, line, place = self.open_bands(panel, lines, together, cost)
        names = writer.printer.axis_names
        self.write_window(scope, planes, rows, columns, names[panel])
        self.write_ahead(scope, tiles * together, f"{place} * {tiles}")
        source = f"{images} + {names[self.result.axes[0]]} * {planes * rows * columns * self.lanes}"
        groups = int(kernel.attributes.get("group", 1))
        if groups > 1:
            step = planes // groups * rows * columns * self.lanes
            source += f" + {names[panel]} / {panels // groups} * {step}"
        if not self.is_flat:
            source += f" + {line} * {self.view.strides[0] * columns * self.lanes}"
        scope.write(f"const float *source = {source};")
        if self.is_flat:
            scope.write(f"const int64_t start = {line} * {self.pixels};")
            self._write_tile(scope, length, names[panel], None)
        else:
            scope.write(f"for (int64_t start = 0; start < {length}; start += {self.pixels}) {{")
            self._write_tile(scope.inner(), length, names[panel], line)
            scope.write("}")
        writer.close_steps()
        return writer.finish()

    def _lines_together(self, lines: int, image: int) -> int:
        """All lines, where the weights are more than an image's elements and would be fetched again for each band."""
        if int(dims.product(self.kernel.operand(1).shape)) > image:
            return lines
        return -(-lines // max(-(-image // BAND), BANDS))

    def panel_blocks(self) -> int:
        """Blocks of output channels in a panel of the weights."""
        return int(self.kernel.operand(1).shape[4 if self.kernel.op_type == "PlanarConv" else 5])

    def write_window(self, scope: Scope, planes: int, rows: int, columns: int, panel: str) -> None:
        """Declares `window` and the `weights` of a step, for images of `planes`, `rows` and `columns`."""
        w = self.kernel.operand(1)
        blocks = planes // int(self.kernel.attributes.get("group", 1))
        self.write_strides(scope, str(blocks), rows, columns)
        scope.write(f"const float *weights = {self.writer.pointer(w)} + {panel} * {int(dims.product(w.shape[1:]))};")

    def write_strides(self, scope: Scope, blocks: str, rows: int, columns: int) -> None:
        dh, dw = self.view.dilations
        fields = [rows * columns * self.lanes, dh * columns * self.lanes, dw * self.lanes]
        fields += [self.panels * self.block, self.block]
        scope.write(f"const partita_window window = {{{blocks}, {', '.join(map(str, fields))}}};")

    def write_ahead(self, scope: Scope, tiles: int, tile: str) -> None:
        """Declares `next`, the weights that a step's first tile asks for: `tile` of the panel's `tiles`."""
        panel_size = int(dims.product(self.kernel.operand(1).shape[1:]))
        self.ahead = weights_ahead(self._shape(self.pixels), self.block, panel_size, tiles)
        scope.write(f"const float *next = {self.ahead.start(tile)};")

    def tile(self, pixels: int) -> str:
        """The call of the register tile that sums so many pixels."""
        name = tile_function(self.writer, self._shape(pixels), self.ahead, is_short=self.is_short())
        source = f"source + start * {self.view.strides[1] * self.lanes}"
        return f"{name}(&window, {source}, weights, next, (float *)sums)"

    def _write_tile(self, scope: Scope, length: int, panel: str, line: str | None) -> None:
        """Sums and stores the pixels from `start` on: a whole tile's, or what is left of the `length` there are."""
        rest = length % self.pixels
        width = "width" if rest else str(self.pixels)
        if rest:
            scope.write(f"const int64_t width = start + {self.pixels} <= {length} ? {self.pixels} : {rest};")
        places = {1: f"({panel} * {self.panels} + v)", 3: "(start + p)"} | ({} if line is None else {2: line})
        scope.write("partita_lanes sums[PARTITA_SUMS] __attribute__((aligned(64)));")
        self._write_pixels(scope, width, lambda cell: self.prefetch(cell, places))

        def store(cell: Scope) -> None:
            cell.write(f"float cell[{self.block}];")
            cell.write(f"memcpy(cell, &sums[p * {self.panels} + v], sizeof cell);")
            self.store(cell, places, "cell")

        for pixels in (rest, self.pixels) if rest else (self.pixels,):
            scope.write("{" if not rest else f"if (width == {rest}) {{" if pixels == rest else "else {")
            scope.write(f"    {self.tile(pixels)};")
            if self.is_short():
                self._write_pixels(scope.inner(), str(pixels), store, unrolled=True)
            scope.write("}")
        if not self.is_short():
            self._write_pixels(scope, width, store)

    def is_short(self) -> bool:
        """Whether a tile's sums are stored from its registers: finished when it is done, and few."""
        rows, columns = self.view.kernel
        depth = self.kernel.operand(0).shape[1] * self.lanes // int(self.kernel.attributes.get("group", 1))
        return bool(depth * rows * columns <= SHORT)

    def _shape(self, pixels: int) -> Tile:
        depth = 1 if self.lanes == 1 else self.block
        rows, columns = map(int, self.view.kernel)
        return Tile(pixels, self.panels, depth, self.view.strides[1] * self.lanes, rows, columns)

    def _write_pixels(
        self, scope: Scope, width: str, write: Callable[[Scope], None], *, unrolled: bool = False
    ) -> None:
        """A loop over the tile's blocks of channels `v` and pixels `p`."""
        for depth, (place, count) in enumerate((("v", str(self.panels)), ("p", width))):
            if unrolled:
                scope.write("#pragma GCC unroll 32")
            scope.write(f"{'    ' * depth}for (int64_t {place} = 0; {place} < {count}; ++{place}) {{")
        write(scope.inner().inner())
        scope.write("    }")
        scope.write("}")


class GatheredKernel(DirectKernel):
    """GatheredConv."""

    def panel_blocks(self) -> int:
        return 1

    def write_window(self, scope: Scope, planes: int, rows: int, columns: int, panel: str) -> None:
        starts, places = (self.kernel.attributes[key] for key in ("starts", "places"))
        offsets = [place // self.block * rows * columns * self.block + place % self.block for place in places]
        for name, numbers in (("starts", starts), ("offsets", offsets)):
            scope.write(f"static const int64_t {name}[] = {{")
            for first in range(0, len(numbers), 12):
                scope.write(f"    {', '.join(map(str, numbers[first : first + 12]))},")
            scope.write("};")
        w = self.kernel.operand(1)
        scope.write(f"const int64_t *places = offsets + starts[{panel}];")
        self.write_strides(scope, f"starts[{panel} + 1] - starts[{panel}]", rows, columns)
        size = int(dims.product(w.shape[1:]))
        scope.write(f"const float *weights = {self.writer.pointer(w)} + starts[{panel}] * {size};")

    def write_ahead(self, scope: Scope, tiles: int, tile: str) -> None:
        """Nothing: a block's weights are few."""

    def tile(self, pixels: int) -> str:
        shape = replace(self._shape(pixels), depth=1)
        name = tile_function(self.writer, shape, Ahead(), is_short=self.is_short(), gathers=True)
        return f"{name}(&window, source + start * {shape.stride}, weights, weights, (float *)sums, places)"

    def is_short(self) -> bool:
        rows, columns = self.view.kernel
        longest = max(end - start for start, end in pairwise(self.kernel.attributes["starts"]))
        return bool(longest * rows * columns <= SHORT)
