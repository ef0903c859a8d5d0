"""Whether a caller's inputs fit a model: every problem in one error, with what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from partita.errors import InputError, ParameterError
from partita.runtime.data_types import fits, type_name
from partita.runtime.program import Kind, Program, Value
from partita.runtime.table import Array

LARGEST_RANK = 16  # PARTITA_MAX_RANK


def as_array(given: Any) -> Array:
    """What the caller gave as a NumPy array. A tensor of another library is read where it lies, by DLPack.

    Raises:
        ValueError: its library does not hand it out: it lies on a device, say, or asks for gradients.
    """
    if isinstance(given, np.ndarray) or not hasattr(given, "__dlpack__"):
        return np.asarray(given)
    try:
        return np.from_dlpack(given)
    except (BufferError, RuntimeError, TypeError) as refused:
        try:
            return np.asarray(given)  # types that DLPack lacks in NumPy
        except (RuntimeError, TypeError, ValueError):
            raise ValueError(str(refused)) from refused


def as_given(array: Any, dtype: np.dtype[np.generic]) -> Array:
    """The array as C reads it: a NumPy array, dense, in the machine's byte order; copied only if it was not.

    A type other than `dtype`, byte order apart, is left as it is.
    """
    given = as_array(array)
    if given.dtype != dtype and given.dtype.newbyteorder("=") == dtype:
        given = given.astype(dtype)
    return given if given.flags.c_contiguous else given.copy(order="C")


def check_inputs(program: Program, inputs: Mapping[str, Any]) -> None:
    """Checks names, types, ranks, sizes, and symbolic sizes against each other.

    Raises:
        InputError: with every problem.
    """
    problems = [f"input {name!r} is not one of the model's" for name in inputs if name not in program.input_names]
    bound: dict[int, tuple[int, str]] = {}
    for index in program.inputs:
        value = program.values[index]
        if value.kind is not Kind.TENSOR and value.name in inputs:
            problems += sequence_problems(value, inputs[value.name])
            continue
        if value.name not in inputs:
            problems.append(f"input {value.name!r} is missing: expected {_expected(program, value)}")
            continue
        problems += _array_problems(program, value, inputs[value.name], bound)
    if problems:
        raise InputError(f"the inputs do not fit {program.symbol}:\n  " + "\n  ".join(problems))


def _expected(program: Program, value: Value) -> str:
    if value.kind is not Kind.TENSOR:
        return described(value)
    return f"{type_name(value.data_type)}{program.shape_text(value)}"


def _array_problems(program: Program, value: Value, given: Any, bound: dict[int, tuple[int, str]]) -> Iterable[str]:
    try:
        array = as_array(given)
        is_of_type = fits(array.dtype, value.data_type)
    except (ParameterError, ValueError, TypeError) as error:
        reason = f" ({error})" if hasattr(given, "__dlpack__") else ""
        yield f"input {value.name!r} is a {type(given).__name__}{reason}, expected {_expected(program, value)}"
        return
    if not is_of_type or array.ndim != len(value.shape):
        yield f"input {value.name!r} is {array.dtype}{array.shape}, expected {_expected(program, value)}"
        return
    for axis, (size, extent) in enumerate(zip(array.shape, value.shape, strict=True)):
        if extent >= 0:
            if size != extent:
                yield f"input {value.name!r}: axis {axis} has size {size}, expected {extent}"
        elif -extent - 1 < len(program.symbols):
            where = f"axis {axis} of input {value.name!r}"
            first_size, first = bound.setdefault(-extent - 1, (size, where))
            if first_size != size:
                name = program.symbols[-extent - 1].name
                yield f"input {value.name!r}: axis {axis} has size {size}, but {name!r} is {first_size} by {first}"


def sequence_problems(value: Value, given: Any) -> Iterable[str]:
    """Why `given` cannot be the sequence or optional value `value`, in words."""
    where = f"input {value.name!r}"
    if given is None:
        if not value.kind.is_optional:
            yield f"{where} is None, expected {described(value)}"
    elif not value.kind.is_sequence:
        yield from _element_problems(where, value, given)
    elif not isinstance(given, list | tuple):
        yield f"{where} is a {type(given).__name__}, expected {described(value)}"
    else:
        for place, element in enumerate(given):
            yield from _element_problems(f"element {place} of {where}", value, element)


def described(value: Value) -> str:
    """What a value is, for messages."""
    element = type_name(value.data_type)
    what = f"a list of {element} arrays" if value.kind.is_sequence else f"an array of {element}"
    return f"{what}, or None" if value.kind.is_optional else what


def _element_problems(where: str, value: Value, given: Any) -> Iterable[str]:
    try:
        array = as_array(given)
        is_of_type = fits(array.dtype, value.data_type)
    except (ParameterError, ValueError, TypeError):
        yield f"{where} is a {type(given).__name__}, expected an array of {type_name(value.data_type)}"
        return
    if not is_of_type or array.ndim > LARGEST_RANK:
        yield f"{where} is {array.dtype}{array.shape}, expected elements of {type_name(value.data_type)}"
