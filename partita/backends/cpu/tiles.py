"""Register tiles: what products and convolutions are made of, in C and in the choice of what they ask for ahead."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from partita.backends.cpu.expressions import Scope
from partita.backends.cpu.kernel import KernelWriter
from partita.ir import dims
from partita.ir.dims import Dim

PRODUCTS = 50  # a nanosecond, on one thread
LINE = 16  # elements of a cache line
AHEAD = 128 * LINE  # elements between a weight and the one that is asked for meanwhile
MANY_TILES = 20  # that read the same weights
CACHED_PANEL = 100_000  # weights that stay in a cache until the next tile reads them


@dataclass(frozen=True, slots=True)
class Tile:
    """The constants of a register tile: `pixels` neighbours of `panels` blocks of output channels, `depth` channels of
    a block of the input, `stride` elements between the windows of neighbours, and the window's rows and columns. Of
    one row and column, the stride may be None: the `row_stride` of the window then, which no row needs."""

    pixels: int
    panels: int
    depth: int
    stride: int | None
    rows: int = 1
    columns: int = 1


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a tile asks for before it is used: `lines` of the cache in each step of its sums, from `first` elements
    after the start of its weights on, and `share` elements further for each tile of the panel before it."""

    lines: int = 0
    first: int = 0
    share: int = 0

    def start(self, tile: str) -> str:
        """The C text of what the tile of this number asks for first."""
        terms = ["weights"]
        terms += [str(self.first)] if self.first else []
        terms += [f"{tile} * {self.share}"] if self.share else []
        return " + ".join(terms)


def weights_ahead(tile: Tile, block: int, panel: int, tiles: int) -> Ahead:
    """What the `tiles` that read the same panel of `panel` weights ask for. Weights come from far, since all of a model
    are read before one is read again. A tile that is alone, or whose panel is too large for the cache, asks for what it
    will read itself; others for a share of the panel after the next, since the next one could still be on its way when
    its first tile begins; where they are many, the first one waits."""
    step = min(tile.depth, 4) * tile.panels * block
    if tiles == 1 or panel > CACHED_PANEL:
        return Ahead(-(-step // LINE), AHEAD)
    if tiles > MANY_TILES:
        return Ahead()
    lines = -(-step // (LINE * tiles))
    return Ahead(lines, 2 * panel, panel * lines * LINE // step)


def tile_function(
    writer: KernelWriter, tile: Tile, ahead: Ahead, *, is_short: bool = False, gathers: bool = False
) -> str:
    """The name of a register tile; its function is shared by all kernels of a file. One whose sums `is_short` becomes a
    part of its kernel, so that they need not go through memory. One that `gathers` takes, as its last argument, where
    the blocks of input channels begin."""
    stride = "window->row_stride" if tile.stride is None else tile.stride
    constants = [tile.pixels, tile.panels, tile.depth, stride, tile.rows, tile.columns, ahead.lines, int(is_short)]
    name = (
        f"tile_{tile.pixels}x{tile.panels}_{tile.depth}_{tile.stride or 'n'}_{tile.rows}x{tile.columns}_{ahead.lines}"
    )
    name += "_short" * is_short + "_gathered" * gathers
    storage = "inline __attribute__((always_inline))" if is_short else "__attribute__((noinline))"
    places = ", const int64_t *places" if gathers else ""
    writer.helpers[name] = (
        f"static {storage} void {name}(const partita_window *window, const float *x,\n"
        f"    const float *weights, const float *next, float *out{places}) {{\n"
        f"    partita_tile({', '.join(map(str, constants))},\n"
        f"                 window, {'places' if gathers else 'NULL'}, x, weights, next, out);\n}}\n"
    )
    return name


def product_tile(writer: KernelWriter, scope: Scope, pixels: int, panels: int, depth: Dim) -> Tile:
    """Writes the `window` and the `sums` of a product's tile, `pixels` rows of `depth` elements, known or not, by
    `panels` vectors of columns. Gives the tile."""
    block, size = writer.target.block, writer.size
    is_known = dims.is_static(depth)
    step = math.gcd(int(depth), block) if is_known else 1
    fields = [size(dims.floor_div(depth, step)), step, 0 if is_known else size(depth), 0, panels * block, block]
    scope.write(f"const partita_window window = {{{', '.join(map(str, fields))}}};")
    scope.write(f"float sums[{pixels * panels * block}] __attribute__((aligned(64)));")
    return Tile(pixels, panels, step, int(depth) if is_known else None)


def tile_rows(rows: Dim, most: int) -> int:
    """Rows of a tile: the most there may be, or fewer that share out the rows evenly."""
    if not dims.is_static(rows):
        return most
    count = max(int(rows), 1)
    return -(-count // -(-count // most))


def write_sums(
    writer: KernelWriter, scope: Scope, tile: Tile, ahead: Ahead, total: Dim, depth: str, width: int
) -> None:
    """Calls the register tiles that sum `rows` rows of `depth` elements from `source` on, of `total` rows, with
    `weights` into `sums`, whose rows have `width` elements: one tile, or several of sizes that together make any
    number."""

    def call(count: int, done: str = "") -> str:
        function = tile_function(writer, replace(tile, pixels=count), ahead)
        source, sums = (f" + {done} * {depth}", f" + {done} * {width}") if done else ("", "")
        return f"{function}(&window, source{source}, weights, next, sums{sums});"

    scope.write(f"if (rows == {tile.pixels})")
    scope.write(f"    {call(tile.pixels)}")
    if dims.is_static(total):
        rest = int(total) % tile.pixels
        if rest:
            scope.write("else")
            scope.write(f"    {call(rest)}")
        return
    scope.write("else {")
    inner = scope.inner()
    inner.write("int64_t done = 0;")
    for power in (16, 8, 4, 2, 1):
        if power < tile.pixels:
            inner.write(f"if (rows & {power}) {{")
            inner.write(f"    {call(power, 'done')}")
            inner.write(f"    done += {power};")
            inner.write("}")
    scope.write("}")
