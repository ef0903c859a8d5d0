"""What is known of small tensors: expressions computed on dimensions, before any number is."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from partita.ir import dims
from partita.ir.contents import Known, known
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Call, Cast, Computation, Expr, Index, Literal, Load, Reduce, Size, loads
from partita.ir.types import DIMENSION_TYPES, DType


class Undecided(Exception):
    """Which element it is, or what it is, hangs on symbols or data."""


def content(computation: Computation) -> Known | None:
    """A small tensor whose expression loads from known tensors alone, as dimensions."""
    values = dict.fromkeys(load.value for load in loads(computation.body))
    if any(value.tensor.dtype not in DIMENSION_TYPES for value in values):
        return None
    if any(value.known is None and value.parameter is None for value in values):
        return None  # before a parameter is looked at
    if any(known(value) is None for value in values):
        return None
    result = np.empty(computation.shape, dtype=object)
    try:
        for place in np.ndindex(result.shape):
            result[place] = _element(computation.body, dict(zip(computation.axes, place, strict=True)))
    except Undecided:
        return None
    return result


def _element(expression: Expr, at: Mapping[Axis, int]) -> Dim:
    match expression:
        case Literal(value=number):
            return number
        case Size(dim=dim):
            return dim
        case Index(axis=axis):
            return at[axis]
        case Load(value=value, indices=indices) if (array := known(value)) is not None:
            return array[tuple(_element(index, at) for index in indices)]
        case Cast(argument=argument, dtype=DType.INT64 | DType.INT32) if argument.dtype is not DType.BOOL:
            return _element(argument, at)
        case Call(function="select", arguments=(condition, first, second)):
            return _element(first if _element(condition, at) else second, at)
        case Call(function=function, arguments=arguments) if function in ARITHMETIC:
            return ARITHMETIC[function](*(_element(argument, at) for argument in arguments))
        case Reduce(combine="sum" | "prod" | "max" | "min" as combine, axes=axes, body=body, initial=initial):
            total = _element(initial, at)
            for place in itertools.product(*(range(axis.extent) for axis in axes)):
                term = _element(body, {**at, **dict(zip(axes, place, strict=True))})
                total = ARITHMETIC[{"sum": "add", "prod": "mul"}.get(combine, combine)](total, term)
            return total
    raise Undecided


def _divide(a: Dim, b: Dim) -> Dim:
    if dims.is_static(b) and b == 0:
        raise Undecided
    if dims.all_static([a, b]):
        return int(a / b) if abs(a) < 2**52 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return dims.floor_div(a, b)


def _modulo(a: Dim, b: Dim) -> Dim:
    if dims.is_static(b) and b == 0:
        raise Undecided
    return a % b


def _equal(a: Dim, b: Dim) -> bool:
    """Known only where it holds, or fails, for every value of the symbols. A dynamic size is never negative."""
    if dims.same(a, b):
        return True
    difference = dims.simplified(a - b)
    if dims.is_static(difference) or difference.is_nonzero or difference.is_positive or difference.is_negative:
        return False
    raise Undecided


def _place(index: Dim, length: Dim) -> int:
    """An index from data, counted from the front."""
    if not dims.all_static([index, length]):
        raise Undecided
    if not -length <= index < length:
        raise IndexError(f"index {index} is outside of {length} elements")
    return int(index % length)


def _compared(compare: Callable[[Dim, Dim], Any]) -> Callable[[Dim, Dim], bool]:
    def decided(a: Dim, b: Dim) -> bool:
        relation = compare(a, b)
        if relation not in (True, False):
            raise Undecided
        return bool(relation)

    return decided


ARITHMETIC: dict[str, Callable[..., Dim]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "neg": operator.neg, "div": _divide,
    "mod": _modulo, "floordiv": dims.floor_div, "max": dims.maximum, "min": dims.minimum, "eq": _equal,
    "lt": _compared(operator.lt), "le": _compared(operator.le), "gt": _compared(operator.gt),
    "ge": _compared(operator.ge), "logical_and": operator.and_, "checked_index": _place,
}  # fmt: skip
