"""The short way through a call: models whose inputs and outputs are arrays of numbers, of fixed sizes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from partita.runtime import library as c
from partita.runtime.table import Array

_KINDS = "biufc"  # of element types whose arrays ctypes takes as buffers
_address_of = ctypes.addressof
_from_buffer = ctypes.c_char.from_buffer
_empty = np.empty
_ndarray = np.ndarray


class Place(Protocol):
    """An input or an output: its name, type and shape (None where it varies), and where C reads of it."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None
    tensor: c.Tensor


def is_plain(place: Place) -> bool:
    """Whether the arrays of a place are buffers to ctypes, of a fixed size: empty ones are not."""
    return place.shape is not None and 0 not in place.shape and place.dtype.kind in _KINDS


class PlainCall:
    """Describes the arrays of one call after the other to C. Types and shapes were written down before."""

    def __init__(self, inputs: Iterable[Place], outputs: Iterable[Place]) -> None:
        """Prepares calls with these places, all of them plain."""
        # Tuples are taken apart faster than attributes are read.
        self._inputs = [(place.name, place.dtype, place.shape, place.tensor) for place in inputs]
        self._outputs = [(place.name, place.dtype, place.shape or (), place.tensor) for place in outputs]
        self._count = len(self._inputs)

    def take(self, inputs: Mapping[str, Any]) -> list[Array] | None:
        """Describes the inputs; gives the arrays, which must live until the call is over. None if one is missing or
        not a writable, dense array of the type and shape wanted."""
        if len(inputs) != self._count:
            return None
        arrays: list[Array] = []
        try:
            for name, dtype, shape, tensor in self._inputs:
                array = inputs[name]
                if array.__class__ is not _ndarray or array.dtype is not dtype or array.shape != shape:
                    return None
                tensor.data = _address_of(_from_buffer(array))  # type: ignore[arg-type]
                arrays.append(array)
        except (KeyError, TypeError, ValueError):
            return None
        return arrays

    def give(self) -> dict[str, Array]:
        """Memory for the outputs, described to C."""
        results = {}
        for name, dtype, shape, tensor in self._outputs:
            results[name] = result = _empty(shape, dtype)
            tensor.data = _address_of(_from_buffer(result))  # type: ignore[arg-type]
        return results
