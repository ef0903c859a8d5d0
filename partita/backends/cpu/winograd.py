"""Winograd convolution F(m x m, 3 x 3): fewer products for 3x3 windows of stride 1.

Tiles of m + 2 inputs a side, overlapping by 2, are transformed into (m + 2)^2 planes; on each plane the convolution is
a plain product over channels, by the same register tiles as a 1x1 convolution; the planes of the results are
transformed back into m x m outputs, with the epilogue in the store. Groups of tiles small enough for the cache go
through all three steps together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from partita.backends.cpu import winograd_matrices
from partita.backends.cpu.blocked_convolution import BlockedKernel
from partita.backends.cpu.expressions import Scope
from partita.backends.cpu.kernel import Kernel
from partita.backends.cpu.tiles import PRODUCTS, Tile, tile_function, weights_ahead
from partita.ir import dims
from partita.ir.expression import Axis
from partita.ir.graph import Node

GROUP = 28  # tiles in a group, at most
WEIGHTS = 5  # times what a group's tiles take, at most: more weights are better read once than by each group
SHARED_GROUPS = 4  # their number is a multiple of this, so that threads get as many each
TRANSFORMED = 1  # nanosecond, for a vector of a transformed tile
PLANE_PADDING = 16  # elements between planes, so that they do not share cache sets


def tile_counts(kernel: Node) -> tuple[int, int]:
    """Tiles down and across."""
    tile = int(kernel.attributes["tile"])
    height, width = (int(dim) for dim in kernel.output.shape[2:4])
    return -(-height // tile), -(-width // tile)


def total(kernel: Node) -> int:
    """Tiles of all images or, where a run tells how many these are, of one."""
    down, across = tile_counts(kernel)
    images = kernel.output.shape[0]
    return down * across * (int(images) if dims.is_static(images) else 1)


def group_size(kernel: Node) -> int:
    """Tiles that go through the three steps together, in a thread's cache: all of them, each step shared out among
    threads, where they are few or where groups would read too many weights again."""
    tiles = total(kernel)
    inputs, outputs = (int(value.shape[1] * value.shape[4]) for value in (kernel.operand(0), kernel.output))
    if tiles < 2 * GROUP or inputs * outputs > WEIGHTS * GROUP * (inputs + outputs):
        return tiles
    groups = -(-tiles // (GROUP * SHARED_GROUPS)) * SHARED_GROUPS
    return -(-tiles // groups)


def workspace(kernel: Node) -> int:
    """Bytes of the transformed inputs and of the products."""
    planes = (int(kernel.attributes["tile"]) + 2) ** 2
    return sum(4 * planes * plane_size(kernel, value) for value in (kernel.operand(0), kernel.output))


def plane_size(kernel: Node, value: object) -> int:
    """Elements from one plane of a transformed tensor to the next."""
    blocks, block = value.shape[1], value.shape[4]  # type: ignore[attr-defined]
    return int(blocks) * group_size(kernel) * int(block) + PLANE_PADDING


class WinogradKernel(BlockedKernel):
    """WinogradConv."""

    def write(self) -> Kernel:
        kernel, writer = self.kernel, self.writer
        self.tile = int(kernel.attributes["tile"])
        self.side = self.tile + 2
        self.inputs, self.outputs = int(kernel.operand(0).shape[1]), int(kernel.output.shape[1])
        self.group = group_size(kernel)
        self.input_plane = plane_size(kernel, kernel.operand(0))
        self.output_plane = plane_size(kernel, kernel.output)
        self.products = self.side**2 * self.group * self.inputs * self.outputs * self.block**2
        self.is_by_image = not dims.is_static(kernel.output.shape[0])
        if self.group < total(kernel) or self.is_by_image:
            self._write_grouped(total(kernel))
        else:
            self._write_stepwise()
        return writer.finish()

    def _write_grouped(self, count: int) -> None:
        """Groups of tiles, each in the memory of the thread that has it; of each image, if a run tells their number."""
        writer = self.writer
        writer.uses_workspace = True
        group = Axis("group", -(-count // self.group))
        images = self.result.axes[:1] if self.is_by_image else ()
        scope = writer.open_steps([*images, group], self.products / PRODUCTS)
        scope.write(f"const int64_t first = {writer.printer.axis_names[group]} * {self.group};")
        scope.write(f"const int64_t tiles = {count} - first < {self.group} ? {count} - first : {self.group};")
        self._write_planes(scope, "workspace")
        rest = count % self.group
        for name, extent, write in (
            ("block", self.inputs, self._write_input),
            ("plane", self.side**2, lambda inner: self._write_products(inner, {self.group, rest} - {0})),
            ("block", self.outputs, self._write_output),
        ):
            scope.write(f"for (int64_t {name} = 0; {name} < {extent}; ++{name}) {{")
            write(scope.inner())
            scope.write("}")
        writer.close_steps()

    def _write_stepwise(self) -> None:
        """All tiles through one step after the other, in memory that the threads share."""
        self.writer.uses_shared = True
        planes, transform = self.side**2, TRANSFORMED * self.side**2 * self.group
        product = self.products / planes / PRODUCTS
        self._write_phase("block", self.inputs, transform, self._write_input)
        self._write_phase("plane", planes, product, lambda inner: self._write_products(inner, {self.group}))
        self._write_phase("block", self.outputs, transform, self._write_output)

    def _write_phase(self, name: str, extent: int, cost: float, write: Callable[[Scope], None]) -> None:
        writer = self.writer
        axis = Axis(name, extent)
        scope = writer.open_steps([axis], cost)
        if writer.printer.axis_names[axis] != name:
            scope.write(f"const int64_t {name} = {writer.printer.axis_names[axis]};")
        inner = Scope([], scope.indent, scope.names)
        write(inner)
        self._write_planes(scope, "shared", " ".join(inner.lines))
        if "first" in " ".join(inner.lines):
            scope.write("const int64_t first = 0;")
        scope.write(f"const int64_t tiles = {self.group};")
        scope.lines += inner.lines
        writer.close_steps()

    def _write_planes(self, scope: Scope, memory: str, text: str = "points products") -> None:
        """Declares the planes that `text` mentions: of the transformed inputs, and of the products."""
        if "points" in text:
            scope.write(f"float *points = (float *){memory};")
        if "products" in text:
            scope.write(f"float *products = (float *){memory} + {self.side**2 * self.input_plane};")

    def _write_place(self, scope: Scope, top: int, left: int) -> None:
        """Which image tile `first + t` lies in, and the row and column where it starts."""
        down, across = tile_counts(self.kernel)
        image = (
            self.writer.printer.axis_names[self.result.axes[0]]
            if self.is_by_image
            else f"(first + t) / {down * across}"
        )
        scope.write(f"const int64_t image = {image};")
        scope.write(f"const int64_t row = (first + t) / {across} % {down} * {self.tile} - {top};")
        scope.write(f"const int64_t column = (first + t) % {across} * {self.tile} - {left};")

    # ------------------------------------------------------------------ the three steps

    def _write_input(self, scope: Scope) -> None:
        """Transforms one block of input channels of every tile."""
        x = self.kernel.operand(0)
        _, _, height, width, block = x.shape
        side = self.side
        transform = self._transform("winograd_input", winograd_matrices.input_matrix(self.tile))
        scope.write("for (int64_t t = 0; t < tiles; ++t) {")
        inner = scope.inner()
        self._write_place(inner, *map(int, self.view.begin))
        place = f"((image * {self.inputs} + block) * {height} + row) * {width} + column"
        inner.write(f"const float *source = {self.writer.pointer(x)} + ({place}) * {block};")
        inner.write(f"int64_t step = {width * block};")
        inner.write(f"float edge[{side * side * block}] __attribute__((aligned(64)));")
        inside = f"row >= 0 && column >= 0 && row + {side} <= {height} && column + {side} <= {width}"
        inner.write(f"if (!({inside})) {{")
        inner.write(f"    for (int64_t r = 0; r < {side}; ++r) {{")
        inner.write(f"        for (int64_t c = 0; c < {side}; ++c) {{")
        inner.write(f"            float *target = edge + (r * {side} + c) * {block};")
        test = f"row + r >= 0 && row + r < {height} && column + c >= 0 && column + c < {width}"
        inner.write(f"            if ({test})")
        inner.write(f"                memcpy(target, source + r * step + c * {block}, {4 * block});")
        inner.write("            else")
        inner.write(f"                memset(target, 0, {4 * block});")
        inner.write("        }")
        inner.write("    }")
        inner.write("    source = edge;")
        inner.write(f"    step = {side * block};")
        inner.write("}")
        target = f"points + (block * {self.group} + t) * {block}"
        inner.write(f"{transform}(source, step, {block}, {target}, {side * self.input_plane}, {self.input_plane});")
        scope.write("}")

    def _write_products(self, scope: Scope, counts: set[int]) -> None:
        """The product over channels on one plane. `counts` are the numbers of tiles that a group may have."""
        w = self.kernel.operand(1)
        panels, block, group = int(w.shape[4]), self.block, self.group
        size = self.inputs * block * panels * block
        fields = f"{self.inputs}, {group * block}, 0, 0, {block}, {group * block}"
        scope.write(f"const partita_window window = {{{fields}}};")
        scope.write(f"for (int64_t panel = 0; panel < {w.shape[1]}; ++panel) {{")
        inner = scope.inner()
        inner.write(f"const float *source = points + plane * {self.input_plane};")
        inner.write(f"const float *weights = {self.writer.pointer(w)} + (plane * {w.shape[1]} + panel) * {size};")
        inner.write(f"float *target = products + plane * {self.output_plane} + panel * {panels * group * block};")
        largest = max(counts)
        pixels = -(-largest // -(-largest // (self.writer.target.sums // panels)))
        tile = Tile(pixels, panels, block, block)
        ahead = weights_ahead(tile, block, size, -(-largest // pixels))
        next_weights = ahead.start(f"(done / {pixels})")
        arguments = f"(&window, source + done * {block}, weights, {next_weights}, target + done * {block})"
        inner.write("int64_t done = 0;")
        inner.write(f"for (; done + {pixels} <= tiles; done += {pixels})")
        inner.write(f"    {tile_function(self.writer, tile, ahead)}{arguments};")
        for rest in sorted({count % pixels for count in counts} - {0}):
            inner.write(f"if (tiles - done == {rest})")
            inner.write(f"    {tile_function(self.writer, replace(tile, pixels=rest), ahead)}{arguments};")
        scope.write("}")

    def _write_output(self, scope: Scope) -> None:
        """Transforms one block of output channels of every tile back, and stores it."""
        block, tile = self.block, self.tile
        transform = self._transform("winograd_output", winograd_matrices.output_matrix(tile))
        scope.write("for (int64_t t = 0; t < tiles; ++t) {")
        inner = scope.inner()
        self._write_place(inner, 0, 0)
        inner.write(f"float sums[{tile * tile * block}] __attribute__((aligned(64)));")
        source = f"products + (block * {self.group} + t) * {block}"
        steps = f"{self.side * self.output_plane}, {self.output_plane}"
        inner.write(f"{transform}({source}, {steps}, sums, {tile * block}, {block});")
        inner.write(f"for (int64_t r = 0; r < {tile} && row + r < {self.height}; ++r) {{")
        inner.write(f"    for (int64_t c = 0; c < {tile} && column + c < {self.width}; ++c) {{")
        cell = inner.inner().inner()
        cell.write(f"const float *cell = sums + (r * {tile} + c) * {block};")
        self.store(cell, {0: "image", 1: "block", 2: "(row + r)", 3: "(column + c)"}, "cell")
        inner.write("    }")
        inner.write("}")
        scope.write("}")

    # ------------------------------------------------------------------ transforms

    def _transform(self, stem: str, matrix: winograd_matrices.Matrix) -> str:
        """The function that computes M d M^T for square d; elements are vectors, at a row and a column step."""
        name = f"{stem}_{self.tile}"
        rows, columns = len(matrix), len(matrix[0])
        lines = [
            f"static inline void {name}(const float *d, int64_t row_step, int64_t column_step, float *y,",
            "    int64_t y_row_step, int64_t y_column_step) {",
            f"    partita_lanes half[{rows}][{columns}];",
            f"#pragma GCC unroll {columns}",
            f"    for (int c = 0; c < {columns}; ++c) {{",
        ]
        loaded = [f"d{k}" for k in range(columns)]
        for k, text in enumerate(loaded):
            lines.append(
                f"        const partita_lanes {text} = *(const partita_lanes *)(d + {k} * row_step + c * column_step);"
            )
        lines += [f"        {line}" for line in _linear(matrix, loaded, [f"half[{r}][c]" for r in range(rows)])]
        lines += ["    }", f"#pragma GCC unroll {rows}", f"    for (int r = 0; r < {rows}; ++r) {{"]
        for k, text in enumerate(loaded):
            lines.append(f"        const partita_lanes {text} = half[r][{k}];")
        targets = [f"*(partita_lanes *)(y + r * y_row_step + {c} * y_column_step)" for c in range(rows)]
        lines += [f"        {line}" for line in _linear(matrix, loaded, targets)]
        self.writer.helpers[name] = "\n".join([*lines, "    }", "}", ""])
        return name


def _linear(matrix: winograd_matrices.Matrix, inputs: list[str], targets: list[str]) -> list[str]:
    """Statements for targets = matrix * inputs. Rows e + o and e - o (a point and its negative) share e and o."""
    lines: list[str] = []
    done: set[int] = set()
    for first, row in enumerate(matrix):
        if first in done:
            continue
        partner = next(
            (s for s in range(first + 1, len(matrix)) if s not in done and _are_paired(row, matrix[s])), None
        )
        if partner is None:
            lines.append(f"{targets[first]} = {_sum(row, inputs)};")
            continue
        done.add(partner)
        even = [(a + b) / 2 for a, b in zip(row, matrix[partner], strict=True)]
        odd = [(a - b) / 2 for a, b in zip(row, matrix[partner], strict=True)]
        lines.append(f"const partita_lanes even{first} = {_sum(even, inputs)}, odd{first} = {_sum(odd, inputs)};")
        lines.append(f"{targets[first]} = even{first} + odd{first};")
        lines.append(f"{targets[partner]} = even{first} - odd{first};")
    return lines


def _are_paired(first: list[Fraction], second: list[Fraction]) -> bool:
    """Whether the rows differ in the signs of some entries, and not of all."""
    same = [a == b for a, b in zip(first, second, strict=True) if a or b]
    return all(abs(a) == abs(b) for a, b in zip(first, second, strict=True)) and any(same) and not all(same)


def _sum(row: list[Fraction], inputs: list[str]) -> str:
    terms: list[str] = []
    for factor, text in zip(row, inputs, strict=True):
        if not factor:
            continue
        product = text if abs(factor) == 1 else f"{float(abs(factor))!r}f * {text}"
        sign = "-" if factor < 0 else "+" if terms else ""
        terms.append(f"{sign} {product}" if terms else f"{sign}{product}")
    return " ".join(terms)
