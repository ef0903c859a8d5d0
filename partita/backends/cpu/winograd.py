"""Winograd convolution F(m x m, 3 x 3): fewer products for 3x3 windows of stride 1.

Tiles of m + 2 inputs a side, overlapping by 2, are transformed into (m + 2)^2 planes; on each plane the convolution is a
plain product over channels, by the same register tiles as a 1x1 convolution; the planes of the results are transformed
back into m x m outputs, with the epilogue in the store. Groups of tiles small enough for the cache go through all three
steps together.
"""

from __future__ import annotations

from fractions import Fraction

from partita.backends.cpu import winograd_matrices
from partita.backends.cpu.blocked_convolution import BlockedKernel
from partita.backends.cpu.expressions import Scope
from partita.backends.cpu.kernel import Kernel
from partita.backends.cpu.pack_weights import SUMS
from partita.ir.graph import Node

LARGE = 48  # outputs a side from which tiles go in groups, for the cache's sake
GROUP = 28  # tiles in a group then
PLANE_PADDING = 16  # elements between planes, so that they do not share cache sets


def tile_counts(kernel: Node) -> tuple[int, int]:
    """Tiles down and across."""
    tile = int(kernel.attributes["tile"])
    height, width = (int(dim) for dim in kernel.output.shape[2:4])
    return -(-height // tile), -(-width // tile)


def group_size(kernel: Node) -> int:
    """Tiles that go through the three steps together."""
    down, across = tile_counts(kernel)
    large = min(int(dim) for dim in kernel.output.shape[2:4]) >= LARGE
    return min(down * across, GROUP) if large else down * across


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
        writer.uses_workspace = True
        self.tile = int(kernel.attributes["tile"])
        self.side = self.tile + 2
        self.inputs, self.outputs = int(kernel.operand(0).shape[1]), int(kernel.output.shape[1])
        down, across = tile_counts(kernel)
        count, group = down * across, group_size(kernel)
        x = kernel.operand(0)
        input_plane, output_plane = plane_size(kernel, x), plane_size(kernel, kernel.output)
        scope = writer.scope()
        scope.write("float *points = (float *)workspace;")
        scope.write(f"float *products = points + {self.side**2 * input_plane};")
        batch = self.result.axes[0]
        inner = writer.printer.open_loops([batch], scope)
        size = self.inputs * x.shape[2] * x.shape[3] * self.block
        inner.write(f"const float *image = {writer.pointer(x)} + {writer.printer.axis_names[batch]} * {size};")
        body = inner
        if group < count:
            inner.write(f"for (int64_t first = 0; first < {count}; first += {group}) {{")
            body = inner.inner()
            body.write(f"const int64_t tiles = {count} - first < {group} ? {count} - first : {group};")
        else:
            body.write("const int64_t first = 0;")
            body.write(f"const int64_t tiles = {count};")
        self._write_inputs(body, across, group, input_plane)
        self._write_products(body, {group, count % group} - {0}, group, input_plane, output_plane)
        self._write_outputs(body, across, group, output_plane)
        if group < count:
            inner.write("}")
        writer.printer.close_loops([batch], scope)
        return writer.finish()

    # ------------------------------------------------------------------ the three steps

    def _write_inputs(self, scope: Scope, across: int, group: int, plane: int) -> None:
        """Transforms the inputs of every tile, by blocks of channels."""
        _, _, height, width, block = self.kernel.operand(0).shape
        top, left = self.view.begin
        side = self.side
        transform = self._transform("winograd_input", winograd_matrices.input_matrix(self.tile))
        scope.write(f"for (int64_t block = 0; block < {self.inputs}; ++block) {{")
        scope.write("    for (int64_t t = 0; t < tiles; ++t) {")
        inner = scope.inner().inner()
        inner.write(f"const int64_t row = (first + t) / {across} * {self.tile} - {top};")
        inner.write(f"const int64_t column = (first + t) % {across} * {self.tile} - {left};")
        inner.write(f"const float *source = image + ((block * {height} + row) * {width} + column) * {block};")
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
        inner.write(f"{transform}(source, step, {block}, points + (block * {group} + t) * {block}, {side * plane}, {plane});")
        scope.write("    }")
        scope.write("}")

    def _write_products(self, scope: Scope, counts: set[int], group: int, plane: int, output_plane: int) -> None:
        """One product over channels a plane."""
        w = self.kernel.operand(1)
        panels, block = int(w.shape[4]), self.block
        panel_size = self.inputs * block * panels * block
        scope.write(
            f"const partita_window window = {{{self.inputs}, {group * block}, 1, 1, 0, 0, {block}, {group * block}}};"
        )
        scope.write(f"for (int64_t plane = 0; plane < {self.side**2}; ++plane) {{")
        scope.write(f"    for (int64_t panel = 0; panel < {w.shape[1]}; ++panel) {{")
        inner = scope.inner().inner()
        inner.write(f"const float *source = points + plane * {plane};")
        inner.write(f"const float *weights = {self.writer.pointer(w)} + (plane * {w.shape[1]} + panel) * {panel_size};")
        inner.write(f"float *target = products + plane * {output_plane} + panel * {panels * group * block};")
        largest = max(counts)
        pixels = -(-largest // -(-largest // (SUMS // panels)))
        inner.write("int64_t done = 0;")
        tile = self.tile_function(pixels, panels, block, block)
        inner.write(f"for (; done + {pixels} <= tiles; done += {pixels})")
        inner.write(f"    {tile}(&window, source + done * {block}, weights, target + done * {block});")
        for rest in sorted({count % pixels for count in counts} - {0}):
            tile = self.tile_function(rest, panels, block, block)
            inner.write(f"if (tiles - done == {rest})")
            inner.write(f"    {tile}(&window, source + done * {block}, weights, target + done * {block});")
        scope.write("    }")
        scope.write("}")

    def _write_outputs(self, scope: Scope, across: int, group: int, plane: int) -> None:
        """Transforms the products back, and stores them."""
        block, tile = self.block, self.tile
        transform = self._transform("winograd_output", winograd_matrices.output_matrix(tile))
        scope.write(f"for (int64_t block = 0; block < {self.outputs}; ++block) {{")
        scope.write("    for (int64_t t = 0; t < tiles; ++t) {")
        inner = scope.inner().inner()
        inner.write(f"const int64_t row = (first + t) / {across} * {tile};")
        inner.write(f"const int64_t column = (first + t) % {across} * {tile};")
        inner.write(f"float sums[{tile * tile * block}] __attribute__((aligned(64)));")
        source = f"products + (block * {group} + t) * {block}"
        inner.write(f"{transform}({source}, {self.side * plane}, {plane}, sums, {tile * block}, {block});")
        inner.write(f"for (int64_t r = 0; r < {tile} && row + r < {self.height}; ++r) {{")
        inner.write(f"    for (int64_t c = 0; c < {tile} && column + c < {self.width}; ++c) {{")
        cell = inner.inner().inner()
        cell.write(f"const float *cell = sums + (r * {tile} + c) * {block};")
        self.store(cell, {1: "block", 2: "(row + r)", 3: "(column + c)"}, "cell")
        inner.write("    }")
        inner.write("}")
        scope.write("    }")
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
            lines.append(f"        const partita_lanes {text} = *(const partita_lanes *)(d + {k} * row_step + c * column_step);")
        lines += [f"        {line}" for line in _linear(matrix, loaded, [f"half[{r}][c]" for r in range(rows)])]
        lines += ["    }", f"#pragma GCC unroll {rows}", f"    for (int r = 0; r < {rows}; ++r) {{"]
        for k, text in enumerate(loaded):
            lines.append(f"        const partita_lanes {text} = half[r][{k}];")
        targets = [f"*(partita_lanes *)(y + r * y_row_step + {c} * y_column_step)" for c in range(rows)]
        lines += [f"        {line}" for line in _linear(matrix, loaded, targets)]
        self.writer.helpers[name] = "\n".join([*lines, "    }", "}", ""])
        return name


def _linear(matrix: winograd_matrices.Matrix, inputs: list[str], targets: list[str]) -> list[str]:
    """Statements for targets = matrix * inputs. Rows that are e + o and e - o (a point and its negative) share e and o."""
    lines: list[str] = []
    done: set[int] = set()
    for first, row in enumerate(matrix):
        if first in done:
            continue
        partner = next((s for s in range(first + 1, len(matrix)) if s not in done and _are_paired(row, matrix[s])), None)
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
