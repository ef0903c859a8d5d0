"""Prints a region: the chain of primitives that its init builds, around the functions of `c/region.h`.

The file has four parts: what all regions share (as much of it as is called), the table of tensors, init, and run.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from partita.backends.dnnl.steps import RegionPrinter
from partita.backends.source import comment
from partita.ir.region import Region
from partita.passes.plan_memory import MemoryPlan

# Functions that a region's file has where it calls them, callees first.
_OPTIONAL = (
    "view",
    "then_eltwise",
    "then_add",
    "add_weighted",
    "convolution",
    "matmul",
    "pooling",
    "eltwise",
    "binary",
    "softmax",
    "lrn",
    "batch_normalization",
    "concat",
)


def print_region(region: Region, plan: MemoryPlan) -> tuple[str, tuple[str, ...]]:
    """The C of a lowered region, and the table entries that its init wants."""
    printer = RegionPrinter(region)
    body = "\n".join(printer.print_nodes())
    parts = [
        f"/* {comment(region.symbol)}: a region of oneDNN primitives. */",
        '#include "partita.h"\n\n#include <math.h>\n',
        _bounds(printer),
        _text("region"),
        *(_text(name) for name in _OPTIONAL if name in printer.called),
        _values(printer),
        _functions(region.symbol, printer, body),
    ]
    return "\n".join(parts), printer.constants


@cache
def _text(name: str) -> str:
    return (resources.files("partita.backends.dnnl.c") / f"{name}.h").read_text("utf-8")


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
    builder made;
    builder *b = &made;
    memset(b, 0, sizeof *b);
    b->region = (region *)state;
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
