"""The parameter table: its layout, and the safetensors file that holds it.

Every entry starts at a multiple of 64 bytes of the data, and the data at a multiple of 64 bytes of the file,
so that C maps the entries and uses them where they lie. The gaps are named "partita.padding.N", because the
format allows none. An entry's key is its name, unless the format or the padding reserves that.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from partita.errors import ParameterError
from partita.runtime.data_types import data_type_of, element_bytes, numpy_dtype, safetensors_name

ALIGNMENT = 64
_CHUNK = 1 << 20
Array = np.ndarray[Any, np.dtype[Any]]


class Sink(Protocol):
    """Something that bytes can be written to."""

    def write(self, data: bytes | memoryview, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the table. `shape` in elements; `offset` from the start of the data and `bytes`, in bytes."""

    name: str
    data_type: int
    shape: tuple[int, ...]
    offset: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where every entry lies. `data_bytes` is the size of the data; `header` is the file's part before it."""

    entries: tuple[Entry, ...]
    data_bytes: int
    header: bytes

    @property
    def file_bytes(self) -> int:
        """Size of the whole safetensors file."""
        return len(self.header) + self.data_bytes

    @property
    def digest(self) -> int:
        """FNV-1a, 64 bits, of the header without its length: names, types, shapes and offsets, not values."""
        digest = 0xCBF29CE484222325
        for byte in self.header[8:]:
            digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
        return digest


def lay_out(specs: Iterable[tuple[str, int, tuple[int, ...]]]) -> Layout:
    """Places entries given by name, element type and shape, in their order."""
    entries: list[Entry] = []
    header: dict[str, dict[str, object]] = {}
    end = 0
    for index, (name, data_type, shape) in enumerate(specs):
        size = element_bytes(data_type) * math.prod(shape)
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        if offset > end:
            header[f"partita.padding.{index}"] = _described("U8", (offset - end,), end, offset)
        end = offset + size
        key = f"partita.entry.{index}" if name == "__metadata__" or name.startswith("partita.") else name
        stored = safetensors_name(data_type)
        if stored is None:
            # Two numbers for a complex one, or one byte: the type itself is in the manifest.
            header[key] = _described("U8", (*shape, element_bytes(data_type)), offset, end)
        else:
            header[key] = _described(stored, shape, offset, end)
        entries.append(Entry(name, data_type, shape, offset, size))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    return Layout(tuple(entries), end, len(text).to_bytes(8, "little") + text)


def lay_out_arrays(parameters: Mapping[str, Array]) -> Layout:
    """The layout of a table with these arrays.

    Raises:
        ParameterError: an array is of a type that ONNX lacks.
    """
    return lay_out((name, data_type_of(array.dtype), array.shape) for name, array in parameters.items())


def write_table(sink: Sink, layout: Layout, parameters: Mapping[str, Array]) -> str:
    """Streams a table's file, a megabyte at a time; contiguous arrays are not copied.

    Returns:
        The file's sha256, in hexadecimal.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor(1) as beside:  # hashing takes as long as writing

        def put(data: bytes | memoryview) -> None:
            hashed = beside.submit(digest.update, data)
            sink.write(data)
            hashed.result()

        put(layout.header)
        end = 0
        for entry in layout.entries:
            put(bytes(entry.offset - end))
            end = entry.offset + entry.bytes
            data = _bytes_of(parameters[entry.name], entry)
            for start in range(0, entry.bytes, _CHUNK):
                put(data[start : start + _CHUNK])
    return digest.hexdigest()


def aligned(array: Array) -> Array:
    """The array as generated code reads it: little endian, dense, 64 byte aligned; a copy only if it is not."""
    native = array.dtype.newbyteorder("<") if array.dtype.byteorder == ">" else array.dtype
    if array.flags.c_contiguous and native == array.dtype and array.ctypes.data % ALIGNMENT == 0:
        return array
    size = array.size * native.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + size].view(native).reshape(array.shape)
    copy[...] = array
    return copy


def view_table(data: Array, entries: Iterable[Entry]) -> dict[str, Array]:
    """The entries as read-only views.

    Args:
        data: the table's data as bytes, of shape (bytes,).
    """
    views: dict[str, Array] = {}
    for entry in entries:
        view = data[entry.offset : entry.offset + entry.bytes].view(numpy_dtype(entry.data_type)).reshape(entry.shape)
        view.flags.writeable = False
        views[entry.name] = view
    return views


def _described(stored: str, shape: tuple[int, ...], begin: int, end: int) -> dict[str, object]:
    return {"dtype": stored, "shape": list(shape), "data_offsets": [begin, end]}


def _bytes_of(array: Array, entry: Entry) -> memoryview:
    dtype = numpy_dtype(entry.data_type)
    if array.shape != entry.shape or array.dtype.newbyteorder("=") != dtype:
        raise ParameterError(
            f"parameter {entry.name!r} is {array.dtype}{list(array.shape)}, expected {dtype}{list(entry.shape)}"
        )
    dense = np.ascontiguousarray(array, dtype=dtype).reshape(-1)
    return dense.view(np.uint8).data
