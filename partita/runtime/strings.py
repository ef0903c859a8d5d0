"""Tensors of strings: NumPy arrays of str on one side, `partita_string` on the other, and the form that tables hold.

A string is UTF-8 in C. Bytes that are none come and go as Python's surrogates, so that nothing is lost.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from partita.errors import InputError
from partita.runtime.table import Array

_RECORD = 16  # bytes of a partita_string: where it lies, and its length


def is_strings(array: Array) -> bool:
    return array.dtype.kind in "OUST"


def packed(array: Array) -> Array:
    """An array as a table holds it. Of strings: uint8; where each string ends, in row-major order, as int64 from
    the start of the text; then the text. Other arrays are as they are."""
    if not is_strings(array):
        return array
    encoded = _encoded(array)
    ends = np.cumsum([len(text) for text in encoded], dtype="<i8") if encoded else np.zeros(0, "<i8")
    return np.frombuffer(ends.tobytes() + b"".join(encoded), np.uint8)


def records(array: Any) -> Array:
    """Strings as C reads them: int64 of shape (*shape, 2). The text lies in the same memory.

    Raises:
        InputError: an element is no string.
    """
    strings = np.asarray(array)
    encoded = _encoded(strings)
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    start = _RECORD * len(encoded)
    memory = np.empty(start + int(lengths.sum()) + 1, np.uint8)  # never empty, for a pointer into it
    memory[start:-1] = np.frombuffer(b"".join(encoded), np.uint8)
    result: Array = memory[:start].view(np.int64).reshape(*strings.shape, 2)
    result[..., 0] = (memory.ctypes.data + start + np.cumsum(lengths) - lengths).reshape(strings.shape)
    result[..., 1] = lengths.reshape(strings.shape)
    return result


def strings_of(given: Array) -> Array:
    """What `records` of C's say, as an array of str."""
    result = np.empty(given.shape[:-1], object)
    found = [ctypes.string_at(place, size) for place, size in given.reshape(-1, 2).tolist()]
    result.reshape(-1)[:] = [text.decode("utf-8", "surrogateescape") for text in found]
    return result


def _encoded(array: Array) -> list[bytes]:
    return [_bytes_of(element) for element in array.reshape(-1).tolist()]


def _bytes_of(element: Any) -> bytes:
    if isinstance(element, bytes):
        return element
    if not isinstance(element, str):
        raise InputError(f"a tensor of strings holds {element!r}, a {type(element).__name__}; give str or bytes")
    try:
        return element.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise InputError(f"the string {element!r} cannot be written as UTF-8: {error.reason}") from error
