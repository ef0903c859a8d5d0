"""Prints a region: the calls by which its init builds a chain of primitives, with the functions of `c/*.h`."""

from __future__ import annotations

from importlib import resources

from partita.backends.dnnl.steps import RegionPrinter
from partita.backends.source import comment
from partita.ir.region import Region
from partita.runtime import Unit

HEADERS = ("dnnl_region", "dnnl_primitives")


def headers() -> tuple[Unit, ...]:
    """What the files of all regions include."""
    folder = resources.files("partita.backends.dnnl.c")
    return tuple(Unit(name, (folder / f"{name}.h").read_text("utf-8")) for name in HEADERS)


def print_region(region: Region) -> tuple[str, tuple[str, ...]]:
    """The C of a lowered region, and the table entries that its init wants."""
    printer = RegionPrinter(region)
    body = "\n".join(printer.print_nodes())
    parts = [
        f"/* {comment(region.symbol)}: a region of oneDNN primitives. */",
        _bounds(printer),
        *(f'#include "{name}.h"' for name in HEADERS),
        "",
        _values(printer),
        _functions(region.symbol, printer, body),
    ]
    return "\n".join(parts), printer.constants


def _bounds(printer: RegionPrinter) -> str:
    """How much of everything there is at most: every operand of a node may take a copy, every primitive scratchpad."""
    nodes, operands, borders = printer.node_count, printer.operand_count, len(printer.borders)
    steps = 2 * operands + 3 * nodes
    rows = {
        "MOST_OPERANDS": printer.most_operands,
        "PLACES": borders + 2 * steps + 2 * operands + 2 * nodes,
        "BLOCKS": 1 + steps,
        "STEPS": steps,
        "OPERANDS": 3 * steps + operands + 4 * nodes,
    }
    tensors = "".join(f"    {entry.name},\n" for entry in printer.entries)
    limits = "".join(f"    {name} = {number},\n" for name, number in rows.items())
    return f"enum {{\n{tensors}    VALUES\n}};\n\nenum {{\n{limits}}};\n"


def _values(printer: RegionPrinter) -> str:
    rows = []
    for entry in printer.entries:
        shape = ", ".join(map(str, entry.shape))
        argument = "NONE" if entry.argument is None else str(entry.argument)
        fields = f"{len(entry.shape)}, {{{shape}}}, {entry.last}, {argument}, {int(entry.is_transposed)}"
        rows.append(f"    {{{fields}}}, /* {entry.name} */\n")
    return f"static const region_value values[VALUES] = {{\n{''.join(rows)}}};\n"


def _functions(symbol: str, printer: RegionPrinter, body: str) -> str:
    borders = "\n".join(f"    {line}" for line in printer.borders)
    return f"""const int64_t {symbol}_state_bytes = sizeof(region);

partita_status {symbol}_init(const partita_call *call, void *state, const void *const *constants) {{
    builder building;
    builder *b = &building;
    memset(b, 0, sizeof *b);
    b->made = (region *)state;
    b->call = call;
    b->values = values;
    b->symbol = "{symbol}";
    const int threads = set_threads(call->services->threads);
    open_region(b);
{borders}

{body}
    set_threads(threads);
    return close_region(b);
}}

void {symbol}_free(void *state) {{ free_region((region *)state); }}

partita_status {symbol}(const partita_call *call) {{
    return run_region(call, (const region *)call->state, "{symbol}");
}}
"""
