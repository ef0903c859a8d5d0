"""The schedule of a compiled model: values, buffers and regions, as `partita.h` describes them to C.

The compiler builds a Program; `model_source` prints it as C; the manifest carries it as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from partita.errors import ParameterError

Extent = int
"""A size: >= 0 is the size itself, < 0 stands for `extents[-size - 1]`: symbols first, then what is derived."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_RANK = 16
# What every artifact exports, each prefixed with the model's symbol and "_".
ENTRY_POINTS = ("model", "open", "close", "run", "lookup", "run_region", "profile", "error", "arena_bytes", "threads")


class Storage(IntEnum):
    """Where a buffer lives."""

    ARENA = 0
    ARGUMENT = 1
    CONSTANT = 2
    HEAP = 3
    SEQUENCE = 4


class Kind(IntEnum):
    """What a value is: partita_kind."""

    TENSOR = 0
    SEQUENCE = 1
    OPTIONAL_TENSOR = 2
    OPTIONAL_SEQUENCE = 3

    @property
    def is_optional(self) -> bool:
        return self in (Kind.OPTIONAL_TENSOR, Kind.OPTIONAL_SEQUENCE)

    @property
    def is_sequence(self) -> bool:
        """Whether it holds a list of tensors, if anything."""
        return self in (Kind.SEQUENCE, Kind.OPTIONAL_SEQUENCE)


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that lives from schedule step `first` to step `last`, both included.

    Attributes:
        index: ARGUMENT: of the input, or number of inputs + of the output; CONSTANT: of the table's entry; SEQUENCE: of
            the input or output, if it is one; else -1.
        bytes: its size in bytes.
        offset: in the arena, in bytes; -1 where it is planned at run time, and for other storages.
    """

    storage: Storage
    first: int
    last: int
    index: int = -1
    bytes: Extent = 0
    offset: int = -1


@dataclass(frozen=True, slots=True)
class Value:
    """A value that the executor knows: a model input or output, or one passed between regions.

    Attributes:
        data_type: a TensorProto.DataType; of the elements, where it is no tensor.
        shape: in elements; () where it is no tensor.
        buffer: index into the program's buffers.
    """

    name: str
    data_type: int
    shape: tuple[Extent, ...]
    buffer: int
    kind: Kind = Kind.TENSOR


@dataclass(frozen=True, slots=True)
class Region:
    """One step of the schedule.

    A C region's file defines the function `<symbol>`; with constants or `has_state` also
    `const int64_t <symbol>_state_bytes` and `<symbol>_init`; with `has_free` also `<symbol>_free`.

    Attributes:
        constants: names of table entries, in the order that `<symbol>_init` wants them.
        inputs, outputs: indices into the program's values.
        interpreted: run by an engine instead of by C.
        has_state: it wants an init although it may have no constants.
        sets_extents: it writes the symbols that depend on data.
    """

    symbol: str
    backend: str
    constants: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    interpreted: bool = False
    has_state: bool = False
    has_free: bool = False
    sets_extents: bool = False

    @property
    def needs_init(self) -> bool:
        """Whether `<symbol>_init` and `<symbol>_state_bytes` exist."""
        return not self.interpreted and (self.has_state or bool(self.constants))


@dataclass(frozen=True, slots=True)
class Symbol:
    """A symbolic dimension. Where it depends on data a region sets it, else an input's shape does."""

    name: str
    data_dependent: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """The whole schedule; regions run in their order.

    Attributes:
        symbol: prefix of everything the artifact exports; a C identifier.
        inputs, outputs: indices into `values`.
        derived: C expressions of the int64_t array `extents`, in order: expression i gives
            extents[len(symbols) + i] and may read those before it. Print them with the functions of
            partita_size.h (partita_multiply, ...), which catch overflow.
        arena_bytes: -1 where it depends on symbolic dimensions.
        baked: parameter name and digest (`value_digest`) of values that the compiler looked at.
        maps: of what Python has dicts for: names of inputs (`x`, for the inputs `x.keys` and `x.values`) with None, and
            names of outputs, [rows, keys], with the keys.
    """

    symbol: str
    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    buffers: tuple[Buffer, ...]
    regions: tuple[Region, ...]
    symbols: tuple[Symbol, ...] = ()
    derived: tuple[str, ...] = ()
    arena_bytes: int = 0
    baked: tuple[tuple[str, str], ...] = ()
    maps: tuple[tuple[str, tuple[int | str, ...] | None], ...] = ()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the model's inputs, in order."""
        return tuple(self.values[index].name for index in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs, in order."""
        return tuple(self.values[index].name for index in self.outputs)

    def shape_text(self, value: Value) -> str:
        """A value's shape for messages: "(N, 3, 224, 224)"; "?" stands for a derived size."""

        def size(extent: Extent) -> str:
            if extent >= 0:
                return str(extent)
            index = -extent - 1
            return self.symbols[index].name if index < len(self.symbols) else "?"

        return "(" + ", ".join(map(size, value.shape)) + ("," if len(value.shape) == 1 else "") + ")"

    def to_json(self) -> dict[str, Any]:
        """The program as plain lists and dicts."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Program:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: the data is not a program's.
        """
        return Program(
            symbol=str(data["symbol"]),
            values=tuple(
                Value(**{**value, "shape": tuple(value["shape"]), "kind": Kind(value["kind"])})
                for value in data["values"]
            ),
            inputs=tuple(data["inputs"]),
            outputs=tuple(data["outputs"]),
            buffers=tuple(Buffer(**{**item, "storage": Storage(item["storage"])}) for item in data["buffers"]),
            regions=tuple(
                Region(**{**region, **{key: tuple(region[key]) for key in ("constants", "inputs", "outputs")}})
                for region in data["regions"]
            ),
            symbols=tuple(Symbol(**symbol) for symbol in data["symbols"]),
            derived=tuple(data["derived"]),
            arena_bytes=int(data["arena_bytes"]),
            baked=tuple((name, digest) for name, digest in data["baked"]),
            maps=tuple((name, None if keys is None else tuple(keys)) for name, keys in data["maps"]),
        )


def check_program(program: Program, table: Iterable[str]) -> None:
    """Checks that a program holds together and that the table has every constant.

    Args:
        table: names of the parameter table's entries.

    Raises:
        ParameterError: with all problems found, a line each.
    """
    names = list(table)
    problems = [*_symbol_problems(program), *_value_problems(program, len(names)), *_missing(program, names)]
    if problems:
        raise ParameterError(f"program {program.symbol!r} does not hold together:\n  " + "\n  ".join(problems))


def _symbol_problems(program: Program) -> Iterable[str]:
    defined = {f"{program.symbol}_{entry}": "the model's entry points" for entry in ENTRY_POINTS}
    if not _IDENTIFIER.fullmatch(program.symbol):
        yield f"symbol {program.symbol!r} is not a C identifier"
    for symbol in (program.symbol, *(region.symbol for region in program.regions)):
        if f"{symbol}_".startswith("partita_"):
            yield f"symbol {symbol!r} is the runtime's own: what begins with partita is"
    for region in program.regions:
        if not _IDENTIFIER.fullmatch(region.symbol):
            yield f"region symbol {region.symbol!r} is not a C identifier"
        suffixes = ["", *(["_init", "_state_bytes"] if region.needs_init else []), *(["_free"] * region.has_free)]
        for symbol in (region.symbol + suffix for suffix in suffixes):
            if symbol in defined:
                yield f"symbol {symbol!r} of region {region.symbol!r} is taken by {defined[symbol]}"
            defined[symbol] = f"region {region.symbol!r}"


def _value_problems(program: Program, constants: int) -> Iterable[str]:
    extents = len(program.symbols) + len(program.derived)
    arguments = len(program.inputs) + len(program.outputs)
    limits = {Storage.ARGUMENT: arguments, Storage.CONSTANT: constants}
    for value in program.values:
        if len(value.shape) > MAX_RANK:
            yield f"value {value.name!r} has rank {len(value.shape)}; the limit is {MAX_RANK}"
        if any(extent < -extents for extent in value.shape):
            yield f"value {value.name!r} has a size that no symbol stands for"
        if not 0 <= value.buffer < len(program.buffers):
            yield f"value {value.name!r} lies in buffer {value.buffer}, which does not exist"
            continue
        if value.kind is not Kind.TENSOR and program.buffers[value.buffer].storage is not Storage.SEQUENCE:
            yield f"value {value.name!r} is no tensor, but lies where a tensor does"
    for number, buffer in enumerate(program.buffers):
        if not 0 <= buffer.index < limits.get(buffer.storage, 1) and buffer.storage in limits:
            yield f"buffer {number} stands for {buffer.storage.name.lower()} {buffer.index}, which does not exist"
        if buffer.storage is Storage.ARENA and program.arena_bytes >= 0 and not _fits(buffer, program.arena_bytes):
            yield f"buffer {number} lies outside the arena of {program.arena_bytes} bytes"
        if buffer.bytes < -extents:
            yield f"buffer {number} has a size that no symbol stands for"
    used = [*program.inputs, *program.outputs]
    used += [index for region in program.regions for index in (*region.inputs, *region.outputs)]
    if any(not 0 <= index < len(program.values) for index in used):
        yield "an input, an output or a region uses a value that does not exist"
        return
    for position, index in enumerate(program.inputs):
        buffer = program.buffers[program.values[index].buffer]
        storage = Storage.ARGUMENT if program.values[index].kind is Kind.TENSOR else Storage.SEQUENCE
        if buffer.storage is not storage or buffer.index != position:
            yield f"input {program.values[index].name!r} does not lie in the caller's memory of input {position}"


def _fits(buffer: Buffer, arena_bytes: int) -> bool:
    return buffer.bytes >= 0 and buffer.offset >= 0 and buffer.offset + buffer.bytes <= arena_bytes


def _missing(program: Program, names: list[str]) -> Iterable[str]:
    known = set(names)
    for region in program.regions:
        for name in region.constants:
            if name not in known:
                yield f"region {region.symbol!r} wants constant {name!r}, which the parameter table lacks"
