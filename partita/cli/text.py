"""What the subcommands print: columns, sizes, JSON. Names come from models: nothing in them reaches a terminal raw."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from partita.runtime import Kind, Program, Value
from partita.runtime.data_types import type_name
from partita.runtime.table import Array


def printable(text: str) -> str:
    """The text with control characters, line ends apart, as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def columns(rows: Iterable[Sequence[object]], indent: str = "  ") -> str:
    """Rows as lines of aligned columns; the last column is not padded."""
    texts = [[printable(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    if not texts:
        return f"{indent}none"
    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in texts), strict=True)]
    lines = []
    for row in texts:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        lines.append((indent + "  ".join([*cells, row[-1]])).rstrip())
    return "\n".join(lines)


def size(count: int) -> str:
    """Bytes as people say them: "512 B", "1.46 MiB"."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{count} B" if unit == "B" else f"{amount:.2f} {unit}"


def duration(seconds: float) -> str:
    """Seconds as people say them: "13.2 ms", "2.41 s"."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 region", "3 regions"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


_KINDS = {
    Kind.SEQUENCE: "list of ",
    Kind.OPTIONAL_TENSOR: "optional ",
    Kind.OPTIONAL_SEQUENCE: "optional list of ",
}


def typed(program: Program, value: Value) -> str:
    """A value's type: "float32(N, 3, 224, 224)", or "list of float32"."""
    if value.kind is not Kind.TENSOR:
        return _KINDS[value.kind] + type_name(value.data_type)
    return type_name(value.data_type) + program.shape_text(value)


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    json.dump(data, sys.stdout, indent=1)
    print()


@contextmanager
def progress(doing: str) -> Iterator[None]:
    """Shows what is being done for how long; on a terminal, on stderr, and gone when it is done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    parts = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*parts, console=Console(stderr=True), transient=True) as shown:
        shown.add_task(printable(doing), total=None)
        yield


def tensors(values: dict[str, Any]) -> Iterator[tuple[str, Array]]:
    """The arrays of all values, by name: "y"; "y.0", "y.1" of a sequence; [rows, keys] of a list of maps."""
    for name, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            yield name, np.array([list(row.values()) for row in value], np.float32)
        elif isinstance(value, list):
            yield from ((f"{name}.{place}", element) for place, element in enumerate(value))
        elif value is not None:
            yield name, value
