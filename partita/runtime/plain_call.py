"""The short way through a call: models whose inputs and outputs are arrays of numbers, of fixed sizes.

Most of what a call costs is asking arrays where their data lies. NumPy has several answers, and each takes as long as
all the rest; but the address is the first field of an array, which extension modules read by its offset, so that it
stays where it is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from partita.runtime import library as c
from partita.runtime.table import Array

_DATA = object.__basicsize__  # bytes of an array before its own fields
_word = ctypes.c_size_t.from_address
_empty = np.empty
_ndarray = np.ndarray


def _fields_are_known() -> bool:
    """Whether arrays are as described above: in CPython they are."""
    samples = [np.empty(shape, dtype) for shape, dtype in [((3,), "f4"), ((), "i8"), ((2, 0), "u1"), ((5, 7), "?")]]
    return _DATA >= 16 and all(_word(id(array) + _DATA).value == array.ctypes.data for array in samples)


class Place(Protocol):
    """An input or an output: its name, type and shape (None where it varies), and where C reads of it."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None
    tensor: c.Tensor


class PlainCall:
    """Describes the arrays of one call after the other to C. Types and shapes were written down before."""

    def __init__(self, inputs: Iterable[Place], outputs: Iterable[Place]) -> None:
        """Prepares calls with these places, whose shapes are fixed."""
        # Tuples are taken apart faster than attributes are read.
        self._inputs = [(place.name, place.dtype, place.shape, place.tensor) for place in inputs]
        self._outputs = [(place.name, place.dtype, place.shape or (), place.tensor) for place in outputs]
        self._count = len(self._inputs)

    def describe(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Array], list[Array]] | None:
        """Describes the inputs, and memory for the outputs. Gives the outputs by name, and the inputs, which must live
        until the call is over. None if one is missing or not a dense array of the type and shape wanted."""
        if len(inputs) != self._count:
            return None
        arrays: list[Array] = []
        for name, dtype, shape, tensor in self._inputs:
            array = inputs.get(name)
            if (
                array.__class__ is not _ndarray
                or array.dtype is not dtype
                or array.shape != shape
                or not array.flags.c_contiguous
            ):
                return None
            tensor.data = _word(id(array) + _DATA).value
            arrays.append(array)
        results = {}
        for name, dtype, shape, tensor in self._outputs:
            results[name] = result = _empty(shape, dtype)
            tensor.data = _word(id(result) + _DATA).value
        return results, arrays


IS_AVAILABLE = _fields_are_known()
