"""Prints a Program as C: `model.c`, the constant description and the exported entry points, and `<symbol>.h`.

Names that a model brought appear in string literals only, escaped by `c_string`; nothing of a model's is ever
printed into a comment or an identifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from partita.runtime.program import Buffer, Program, Region, Value
from partita.runtime.table import Entry, Layout

Item = TypeVar("Item")

# Before every name of ours, so that no region's symbol can be the same.
_OURS = "partita_model_"

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _.,:;()[]{}<>+-=!&|^~@#$")

# Name after the model's symbol, result, parameters, arguments; what partita.h documents under "partita_".
_WRAPPERS = (
    (
        "open",
        "partita_status",
        "const partita_options *options, partita_instance **instance, char *message, size_t message_bytes",
        f"&{_OURS}description, options, instance, message, message_bytes",
    ),
    ("close", "void", "partita_instance *instance", "instance"),
    (
        "run",
        "partita_status",
        "partita_instance *instance, const partita_tensor *inputs, partita_tensor *outputs",
        "instance, inputs, outputs",
    ),
    ("lookup", "partita_status", "partita_instance *instance, int32_t region", "instance, region"),
    (
        "run_region",
        "partita_status",
        "partita_instance *instance, int32_t region, partita_tensor *arguments",
        "instance, region, arguments",
    ),
    (
        "profile",
        "partita_status",
        "partita_instance *instance, int32_t region, int64_t *nanoseconds, int32_t count",
        "instance, region, nanoseconds, count",
    ),
    ("error", "const char *", "const partita_instance *instance", "instance"),
    ("arena_bytes", "int64_t", "const partita_instance *instance", "instance"),
    ("threads", "int32_t", "const partita_instance *instance", "instance"),
)


def c_string(text: str) -> str:
    """A C string literal, for C and C++: everything that could mean something is an octal escape.

    Three digits each, so that a digit that follows is not drawn in.
    """
    data = text.encode("utf-8", "surrogatepass")
    return '"' + "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03o}" for byte in data) + '"'


def print_model(program: Program, layout: Layout) -> str:
    """The C file that describes a program and exports its entry points under the program's symbol."""
    indices = {entry.name: index for index, entry in enumerate(layout.entries)}
    parts = [
        '#include "partita.h"\n#include "partita_size.h"\n',
        *(_region_prototypes(region) for region in program.regions if not region.interpreted),
        *(_shape("value", index, value.shape) for index, value in enumerate(program.values)),
        *(_shape("constant", index, entry.shape) for index, entry in enumerate(layout.entries)),
        *(_region_arrays(index, region, indices) for index, region in enumerate(program.regions)),
        _table("partita_value", f"{_OURS}values", program.values, _value),
        _table("partita_buffer", f"{_OURS}buffers", program.buffers, lambda _, buffer: _buffer(buffer)),
        _table("partita_constant", f"{_OURS}constants", layout.entries, _constant),
        _table("partita_region", f"{_OURS}regions", program.regions, _region),
        _table("int32_t", f"{_OURS}inputs", program.inputs, lambda _, index: str(index)),
        _table("int32_t", f"{_OURS}outputs", program.outputs, lambda _, index: str(index)),
        _table("char *const", f"{_OURS}symbols", program.symbols, lambda _, symbol: c_string(symbol.name)),
        _table("int32_t", f"{_OURS}data_dependent", program.symbols, lambda _, symbol: str(int(symbol.data_dependent))),
        _derive(program),
        _description(program, layout),
        _exports(program.symbol),
    ]
    return "\n".join(part for part in parts if part)


def print_header(symbol: str) -> str:
    """`<symbol>.h`: the prototypes of what an artifact exports."""
    guard = f"{symbol.upper()}_H"
    lines = [
        f"/* {symbol}.h: the entry points of one compiled model; partita.h describes them under partita_. */",
        f"#ifndef {guard}\n#define {guard}\n",
        '#include "partita.h"\n',
        '#ifdef __cplusplus\nextern "C" {\n#endif\n',
        f"const partita_model *{symbol}_model(void);",
        *(_prototype(symbol, name, result, parameters) + ";" for name, result, parameters, _ in _WRAPPERS),
        "\n#ifdef __cplusplus\n}\n#endif\n#endif\n",
    ]
    return "\n".join(lines)


def _prototype(symbol: str, name: str, result: str, parameters: str) -> str:
    return f"{result}{'' if result.endswith('*') else ' '}{symbol}_{name}({parameters})"


def _table(c_type: str, name: str, items: Sequence[Item], print_item: Callable[[int, Item], str]) -> str:
    # C has no empty arrays; the count beside says that the one element is none.
    rows = [print_item(index, item) for index, item in enumerate(items)] or ["0"]
    return f"static const {c_type} {name}[] = {{\n    " + ",\n    ".join(rows) + ",\n};"


def _numbers(c_type: str, name: str, numbers: Iterable[int]) -> str:
    return f"static const {c_type} {name}[] = {{{', '.join(map(_number, numbers)) or '0'}}};"


def _number(value: int) -> str:
    return str(value) if -(2**31) < value < 2**31 else f"INT64_C({value})"


def _shape(kind: str, index: int, shape: tuple[int, ...]) -> str:
    return _numbers("int64_t", f"{_OURS}shape_of_{kind}_{index}", shape) if shape else ""


def _shape_name(kind: str, index: int, shape: tuple[int, ...]) -> str:
    return f"{_OURS}shape_of_{kind}_{index}" if shape else "NULL"


def _region_prototypes(region: Region) -> str:
    symbol = region.symbol
    lines = [f"partita_status {symbol}(const partita_call *call);"]
    if region.needs_init:
        lines += [
            f"extern const int64_t {symbol}_state_bytes;",
            f"partita_status {symbol}_init(const partita_call *call, void *state, const void *const *constants);",
        ]
    if region.has_free:
        lines += [f"void {symbol}_free(void *state);"]
    return "\n".join(lines) + "\n"


def _region_arrays(index: int, region: Region, indices: dict[str, int]) -> str:
    constants = _numbers("int32_t", f"{_OURS}constants_of_{index}", (indices[name] for name in region.constants))
    values = _numbers("int32_t", f"{_OURS}values_of_{index}", (*region.inputs, *region.outputs))
    return f"{constants}\n{values}"


def _value(index: int, value: Value) -> str:
    shape = _shape_name("value", index, value.shape)
    return (
        f"{{{c_string(value.name)}, {value.data_type}, {len(value.shape)}, {shape}, {value.buffer}, {int(value.kind)}}}"
    )


def _buffer(buffer: Buffer) -> str:
    numbers = (buffer.first, buffer.last, buffer.index, buffer.bytes, buffer.offset)
    return f"{{PARTITA_{buffer.storage.name}, {', '.join(map(_number, numbers))}}}"


def _constant(index: int, entry: Entry) -> str:
    shape = _shape_name("constant", index, entry.shape)
    place = f"{_number(entry.offset)}, {_number(entry.bytes)}"
    return f"{{{c_string(entry.name)}, {entry.data_type}, {len(entry.shape)}, {shape}, {place}}}"


def _region(index: int, region: Region) -> str:
    symbol = region.symbol
    fields = (
        c_string(symbol),
        c_string(region.backend),
        "NULL" if region.interpreted else symbol,
        f"{symbol}_init" if region.needs_init else "NULL",
        f"{symbol}_free" if region.has_free else "NULL",
        f"&{symbol}_state_bytes" if region.needs_init else "NULL",
        f"{len(region.constants)}, {_OURS}constants_of_{index}",
        f"{len(region.inputs)}, {len(region.outputs)}, {_OURS}values_of_{index}",
        str(int(region.sets_extents)),
    )
    return "{" + ", ".join(fields) + "}"


def _derive(program: Program) -> str:
    if not program.derived:
        return ""
    first = len(program.symbols)
    lines = [f"    extents[{first + index}] = {text};" for index, text in enumerate(program.derived)]
    return f"static void {_OURS}derive(int64_t *extents) {{\n" + "\n".join(lines) + "\n}\n"


def _description(program: Program, layout: Layout) -> str:
    extents = len(program.symbols) + len(program.derived)
    fields = {
        "abi_version": "PARTITA_ABI_VERSION",
        "symbol": c_string(program.symbol),
        "value_count": f"{len(program.values)}",
        "values": f"{_OURS}values",
        "input_count": f"{len(program.inputs)}",
        "output_count": f"{len(program.outputs)}",
        "inputs": f"{_OURS}inputs",
        "outputs": f"{_OURS}outputs",
        "buffer_count": f"{len(program.buffers)}",
        "buffers": f"{_OURS}buffers",
        "constant_count": f"{len(layout.entries)}",
        "constants": f"{_OURS}constants",
        "constant_bytes": _number(layout.data_bytes),
        "table_digest": f"UINT64_C({layout.digest:#018x})",
        "region_count": f"{len(program.regions)}",
        "regions": f"{_OURS}regions",
        "symbol_count": f"{len(program.symbols)}",
        "extent_count": f"{extents}",
        "symbols": f"{_OURS}symbols",
        "data_dependent": f"{_OURS}data_dependent",
        "derive": f"{_OURS}derive" if program.derived else "NULL",
        "arena_bytes": _number(program.arena_bytes),
    }
    rows = "".join(f"    .{name} = {value},\n" for name, value in fields.items())
    return f"static const partita_model {_OURS}description = {{\n{rows}}};\n"


def _exports(symbol: str) -> str:
    functions = [
        f"EXPORT {_prototype(symbol, name, result, parameters)};\n"
        f"{_prototype(symbol, name, result, parameters)} {{\n"
        f"    {'' if result == 'void' else 'return '}partita_{name}({arguments});\n}}\n"
        for name, result, parameters, arguments in _WRAPPERS
    ]
    model = (
        f"EXPORT const partita_model *{symbol}_model(void);\n"
        f"const partita_model *{symbol}_model(void) {{\n    return &{_OURS}description;\n}}\n"
    )
    return "\n".join(['#define EXPORT __attribute__((visibility("default")))\n', model, *functions])
