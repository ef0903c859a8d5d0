"""Kernels of convolutions on blocked tensors: direct (any window, stride, group), planar input, depthwise.

Each computes a line of output pixels at a time, for a few blocks of output channels: register tiles fill a small array of
sums, and one loop over it stores the results with the epilogue. A window that overhangs reads a padded copy of the image
in scratch memory, so that the tiles have no conditions.
"""

from __future__ import annotations

from collections.abc import Mapping

from partita.backends.cpu.blocked_operators import block_window
from partita.backends.cpu.expressions import Scope
from partita.backends.cpu.generic import composed
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.loops import LoopNest, moved, store_form
from partita.backends.cpu.pack_weights import SUMS
from partita.ir import dims
from partita.ir.expression import Computation, Load, compute, load, replace_indices, substitute
from partita.ir.graph import Node, Value
from partita.ir.types import DType, TensorType

STRIP = 64  # pixels, about: what is summed before it is stored


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
        self.value, self.result = self._epilogue()
        writer.blocks.add(self.block)

    def _epilogue(self) -> tuple[Value, Computation]:
        """The group's output as an expression of the accumulated sum, the bias included."""
        bias = self.kernel.operand(2)
        own = compute(
            self.kernel.output.shape,
            lambda n, block, oh, ow, lane: Load(self.sum, (), DType.FLOAT32) + load(bias, block, lane),
        )
        later = members(self.node)[1:]
        if not later:
            return self.kernel.output, own
        result = composed(self.node, kept=frozenset([self.kernel.output]))[later[-1].output]
        return later[-1].output, Computation(result.axes, substitute(result.body, {self.kernel.output: own}))

    @property
    def padded_size(self) -> tuple[int, int]:
        """Rows and columns that the windows of all outputs cover."""
        return _covered(self.kernel)

    @property
    def is_padded(self) -> bool:
        return needs_padding(self.kernel)

    def open_images(self, scope: Scope, planes: int, lanes: int) -> tuple[Scope, str]:
        """Opens the loop over the batch; gives its scope and the name of the image (padded where it must be)."""
        writer, x = self.writer, self.kernel.operand(0)
        height, width = x.shape[2], x.shape[3]
        inner = writer.printer.open_loops([self.result.axes[0]], scope)
        batch = writer.printer.axis_names[self.result.axes[0]]
        size = planes * height * width * lanes
        inner.write(f"const float *image = {writer.pointer(x)} + {batch} * {size};")
        if not self.is_padded:
            return inner, "image"
        writer.uses_workspace = True
        rows, columns = self.padded_size
        top, left = self.view.begin
        inner.write("float *padded = (float *)workspace;")
        inner.write(
            f"partita_pad(image, {planes}, {height}, {width}, {lanes}, {top}, {left}, {rows}, {columns}, padded);"
        )
        return inner, "padded"

    def close_images(self, scope: Scope) -> None:
        self.writer.printer.close_loops([self.result.axes[0]], scope)

    def tile_function(self, pixels: int, panels: int, depth: int, stride: int) -> str:
        """The name of the register tile of this shape; its function is shared by all kernels of a file."""
        name = f"tile_{pixels}x{panels}_{depth}_{stride}"
        self.writer.helpers[name] = (
            f"static __attribute__((noinline)) void {name}(const partita_window *window, const float *x,\n"
            f"    const float *weights, float *out) {{\n"
            f"    partita_tile({pixels}, {panels}, {depth}, {stride}, window, x, weights, out);\n}}\n"
        )
        return name

    def store(self, scope: Scope, places: Mapping[int, str], cell: str) -> None:
        """Writes the store of one vector: `places` gives the C text of the output's axes 1 to 3 (where axes 2 and 3
        are one, of axis 3 alone); `cell` is the vector's first element."""
        printer = self.writer.printer
        axes = self.result.axes
        form = store_form(axes, self.value.shape)
        body = self.result.body
        if 2 not in places:
            nest = LoopNest(axes[2:4], [body], [form])
            assert len(nest.loops) <= 1, "takes_epilogue lets in only what runs over the image as one"
            body, form = replace_indices(body, nest.replacement), moved(form, nest.replacement)
            printer.axis_names.update({axis: places[3] for axis in nest.loops})
        for place, text in places.items():
            printer.axis_names[axes[place]] = text
        printer.axis_names[axes[4]] = "lane"
        printer.locals[self.sum] = f"{cell}[lane]"
        printer.count(body)
        scope.write("#pragma omp simd")
        scope.write(f"for (int64_t lane = 0; lane < {self.block}; ++lane) {{")
        self.writer.store(self.value, form, body, scope.inner())
        scope.write("}")


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


def workspace(kernel: Node) -> int:
    """Bytes of the padded image."""
    if not needs_padding(kernel):
        return 0
    x = kernel.operand(0)
    rows, columns = _covered(kernel)
    if kernel.op_type == "PlanarConv":
        planes, lanes = x.shape[1], 1
    else:
        planes, lanes = (1 if kernel.op_type == "BlockedDepthwiseConv" else x.shape[1]), x.shape[4]
    return int(planes * rows * columns * lanes * 4)


class DirectKernel(BlockedKernel):
    """BlockedConv and PlanarConv."""

    def write(self) -> Kernel:
        kernel, writer = self.kernel, self.writer
        x, w = kernel.operand(0), kernel.operand(1)
        is_planar = kernel.op_type == "PlanarConv"
        lanes = 1 if is_planar else self.block
        panels = int(w.shape[4] if is_planar else w.shape[5])
        groups = int(kernel.attributes.get("group", 1))
        planes = int(x.shape[1])
        rows, columns = self.padded_size if self.is_padded else (x.shape[2], x.shape[3])
        (sh, sw), (dh, dw) = self.view.strides, self.view.dilations
        panel_size = int(dims.product(w.shape[1:]))
        scope = writer.scope()
        taps = f"{self.view.kernel[0]}, {self.view.kernel[1]}"
        scope.write(
            f"const partita_window window = {{{planes // groups}, {rows * columns * lanes}, {taps}, "
            f"{dh * columns * lanes}, {dw * lanes}, {panels * self.block}, {self.block}}};"
        )
        images, source = self.open_images(scope, planes, lanes)
        images.write(f"for (int64_t panel = 0; panel < {w.shape[0]}; ++panel) {{")
        inner = images.inner()
        inner.write(f"const float *weights = {writer.pointer(w)} + panel * {panel_size};")
        if groups > 1:
            step = planes // groups * rows * columns * lanes
            inner.write(f"const float *channels = {source} + panel / {w.shape[0] // groups} * {step};")
            source = "channels"
        is_flat = (rows, columns) == (self.height, self.width) and self.view.kernel == (1, 1)
        line = inner
        if not is_flat:
            inner.write(f"for (int64_t line = 0; line < {self.height}; ++line) {{")
            line = inner.inner()
            source = f"{source} + line * {sh * columns * lanes}"
        length = self.height * self.width if is_flat else self.width
        self._write_line(line, length, panels, source, sw * lanes, 1 if is_planar else self.block, is_flat)
        if not is_flat:
            inner.write("}")
        images.write("}")
        self.close_images(scope)
        return writer.finish()

    def _write_line(
        self, scope: Scope, length: int, panels: int, source: str, stride: int, depth: int, is_flat: bool
    ) -> None:
        """The tiles and stores of one line of `length` output pixels."""
        count = -(-length // (SUMS // panels))
        pixels = -(-length // count)
        strip = min(length, pixels * max(1, STRIP // pixels))
        rest = length % pixels
        sums = "sums"
        whole = strip == length
        scope.write(f"float {sums}[{strip * panels * self.block}] __attribute__((aligned(64)));")
        inner = scope
        if not whole:
            scope.write(f"for (int64_t start = 0; start < {length}; start += {strip}) {{")
            inner = scope.inner()
            inner.write(f"const int64_t width = {length} - start < {strip} ? {length} - start : {strip};")
        start, width = ("0", str(strip)) if whole else ("start", "width")
        inner.write("int64_t done = 0;")
        self._tile_loop(inner, pixels, panels, depth, stride, f"{source} + ({start} + done) * {stride}", width)
        if rest:
            tile = self.tile_function(rest, panels, depth, stride)
            inner.write("if (done < " + width + ")")
            inner.write(f"    {tile}(&window, {source} + ({start} + done) * {stride}, weights, sums + done * {panels * self.block});")
        inner.write(f"for (int64_t v = 0; v < {panels}; ++v) {{")
        inner.write(f"    for (int64_t p = 0; p < {width}; ++p) {{")
        inner.inner().inner().write(f"const float *cell = sums + (p * {panels} + v) * {self.block};")
        places = {1: f"(panel * {panels} + v)", 3: "p" if whole else "(start + p)"}
        if not is_flat:
            places[2] = "line"
        self.store(inner.inner().inner(), places, "cell")
        inner.write("    }")
        inner.write("}")
        if not whole:
            scope.write("}")

    def _tile_loop(
        self, scope: Scope, pixels: int, panels: int, depth: int, stride: int, source: str, width: str
    ) -> None:
        tile = self.tile_function(pixels, panels, depth, stride)
        scope.write(f"for (; done + {pixels} <= {width}; done += {pixels})")
        scope.write(f"    {tile}(&window, {source}, weights, sums + done * {panels * self.block});")


class DepthwiseKernel(BlockedKernel):
    """BlockedDepthwiseConv: each block of channels alone, a line of pixels at a time."""

    def write(self) -> Kernel:
        kernel, writer = self.kernel, self.writer
        x, w = kernel.operand(0), kernel.operand(1)
        height, width = x.shape[2], x.shape[3]
        rows, columns = self.padded_size if self.is_padded else (height, width)
        (sh, sw), (dh, dw) = self.view.strides, self.view.dilations
        kh, kw = self.view.kernel
        scope = writer.scope()
        blocks = self.result.axes[1]
        inner = writer.printer.open_loops(self.result.axes[:2], scope)
        batch, block = (writer.printer.axis_names[axis] for axis in self.result.axes[:2])
        plane = height * width * self.block
        inner.write(f"const float *plane = {writer.pointer(x)} + ({batch} * {blocks.extent} + {block}) * {plane};")
        if self.is_padded:
            writer.uses_workspace = True
            top, left = self.view.begin
            inner.write("float *padded = (float *)workspace;")
            inner.write(
                f"partita_pad(plane, 1, {height}, {width}, {self.block}, {top}, {left}, {rows}, {columns}, padded);"
            )
        source = "padded" if self.is_padded else "plane"
        inner.write(f"const partita_lanes *pixels = (const partita_lanes *){source};")
        weights = f"{writer.pointer(w)} + {block} * {kh * kw * self.block}"
        inner.write(f"const partita_lanes *weights = (const partita_lanes *)({weights});")
        inner.write(f"float sums[{self.width * self.block}] __attribute__((aligned(64)));")
        inner.write(f"for (int64_t line = 0; line < {self.height}; ++line) {{")
        line = inner.inner()
        line.write(f"for (int64_t p = 0; p < {self.width}; ++p) {{")
        pixel = line.inner()
        pixel.write("partita_lanes sum = {0};")
        pixel.write(f"#pragma GCC unroll {kh}")
        pixel.write(f"for (int row = 0; row < {kh}; ++row) {{")
        pixel.write(f"#pragma GCC unroll {kw}")
        pixel.write(f"    for (int column = 0; column < {kw}; ++column)")
        place = f"(line * {sh} + row * {dh}) * {columns} + p * {sw} + column * {dw}"
        pixel.write(f"        sum += pixels[{place}] * weights[row * {kw} + column];")
        pixel.write("}")
        pixel.write(f"*(partita_lanes *)(sums + p * {self.block}) = sum;")
        line.write("}")
        line.write(f"for (int64_t p = 0; p < {self.width}; ++p) {{")
        line.inner().write(f"const float *cell = sums + p * {self.block};")
        self.store(line.inner(), {1: block, 2: "line", 3: "p"}, "cell")
        line.write("}")
        inner.write("}")
        writer.printer.close_loops(self.result.axes[:2], scope)
        return writer.finish()


