"""Values between Python and C: arrays for tensors, lists of arrays for sequences, None for what is absent."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from partita.errors import InputError
from partita.runtime import library as c
from partita.runtime.data_types import STRING, data_type_of, numpy_dtype
from partita.runtime.inputs import as_array, as_given, sequence_problems
from partita.runtime.program import Value
from partita.runtime.strings import is_strings, records, strings_of
from partita.runtime.table import Array

_from_buffer = ctypes.c_char.from_buffer
_address_of = ctypes.addressof


def address(array: Array) -> int:
    """Where an array's data lies. Several times as fast as `array.ctypes.data`, where it can be."""
    try:
        return _address_of(_from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # read-only, empty, or of a type without a buffer format
        return int(array.ctypes.data)


def describe(tensor: c.Tensor, array: Array, wanted: int) -> Array:
    """Tells C of an array that should be of an element type; gives what must live as long as C reads it."""
    if wanted == STRING and is_strings(array):
        dense, tensor.data_type = records(array), STRING
    else:
        dense = as_given(array, array.dtype if wanted == STRING else numpy_dtype(wanted))
        tensor.data_type = data_type_of(dense.dtype)
    tensor.data = address(dense)
    tensor.rank = array.ndim
    tensor.shape[: array.ndim] = array.shape
    return dense


def pass_in(tensor: c.Tensor, value: Value, given: Any) -> list[Any]:
    """Tells C of a sequence or an optional value. Gives what must live until the call is over.

    Raises:
        InputError: it is not one.
    """
    found = list(sequence_problems(value, given))
    if found:
        raise InputError("\n".join(found))
    if given is None:
        tensor.data, tensor.data_type = None, c.ABSENT
        return []
    if not value.kind.is_sequence:
        return [describe(tensor, as_array(given), value.data_type)]
    elements = (c.Tensor * max(1, len(given)))()
    kept = [
        describe(element, as_array(array), value.data_type) for element, array in zip(elements, given, strict=False)
    ]
    tensor.data, tensor.data_type, tensor.rank = ctypes.addressof(elements), c.SEQUENCE, 1
    tensor.shape[0] = len(given)
    return [elements, *kept]


def copied(tensor: c.Tensor) -> Array:
    """A tensor of C's as an array in memory of its own."""
    shape = tuple(tensor.shape[: tensor.rank])
    is_string = tensor.data_type == STRING
    result = np.empty((*shape, 2), np.int64) if is_string else np.empty(shape, numpy_dtype(tensor.data_type))
    if result.nbytes:
        ctypes.memmove(result.ctypes.data, tensor.data, result.nbytes)
    return strings_of(result) if is_string else result


def taken_out(tensor: c.Tensor) -> Any:
    """What C gave for any value, in memory of its own: an array, a list of them, or None."""
    if tensor.data_type == c.ABSENT:
        return None
    if tensor.data_type != c.SEQUENCE:
        return copied(tensor)
    elements = ctypes.cast(tensor.data or 0, ctypes.POINTER(c.Tensor))
    return [copied(elements[place]) for place in range(tensor.shape[0])]
