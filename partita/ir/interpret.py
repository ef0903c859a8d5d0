"""Expressions, computed with NumPy: what an operator's definition says, without a compiler. For tests and oracles: all
elements of all loops are in memory at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from partita.ir import dims
from partita.ir.expression import Axis, Call, Cast, Computation, Expr, Index, Literal, Load, Reduce, Size, walk
from partita.ir.graph import Value

Array = np.ndarray[Any, Any]


def interpret(computation: Computation, values: Mapping[Value, Array], sizes: Mapping[str, int] | None = None) -> Array:
    """The tensor of a computation, for the tensors it loads from and the sizes of its symbols."""
    interpreter = _Interpreter(computation, values, sizes or {})
    shape = tuple(interpreter.extent(axis) for axis in computation.axes)
    with np.errstate(all="ignore"):
        result = interpreter.value(computation.body)
    trailing = result.ndim - len(shape)
    space = np.broadcast_to(result, (*shape, *result.shape[len(shape) :]))
    assert space.shape[len(shape) :] == (1,) * trailing
    return space.reshape(shape)


class _Interpreter:
    """Every axis is a dimension of all arrays: the computation's own first, then those of its reductions."""

    def __init__(self, computation: Computation, values: Mapping[Value, Array], sizes: Mapping[str, int]) -> None:
        self.values = values
        self.sizes = sizes
        axes = list(computation.axes)
        for expression in walk(computation.body):
            if isinstance(expression, Reduce):
                axes += expression.axes
        self.place = {axis: n for n, axis in enumerate(dict.fromkeys(axes))}
        self.done: dict[Expr, Array] = {}

    def extent(self, axis: Axis) -> int:
        return dims.evaluate(axis.extent, self.sizes)

    def value(self, expression: Expr) -> Array:
        if expression not in self.done:
            self.done[expression] = self._value(expression)
        return self.done[expression]

    def _value(self, expression: Expr) -> Array:
        match expression:
            case Literal(value=number, dtype=dtype):
                return self._scalar(np.asarray(number).astype(dtype.numpy))
            case Size(dim=dim):
                return self._scalar(np.asarray(dims.evaluate(dim, self.sizes), dtype=np.int64))
            case Index(axis=axis):
                shape = [1] * len(self.place)
                shape[self.place[axis]] = self.extent(axis)
                return np.arange(self.extent(axis), dtype=np.int64).reshape(shape)
            case Load(value=value, indices=indices):
                return self._load(self.values[value], [self.value(index) for index in indices])
            case Call(function=function, arguments=arguments, dtype=dtype):
                result = FUNCTIONS[function](*(self.value(argument) for argument in arguments))
                return np.asarray(result).astype(dtype.numpy)
            case Cast(argument=argument, dtype=dtype):
                return _cast(self.value(argument), dtype.numpy)
            case Reduce():
                return self._reduce(expression)
        raise TypeError(type(expression).__name__)

    def _scalar(self, number: Array) -> Array:
        return number.reshape((1,) * len(self.place))

    def _load(self, array: Array, indices: list[Array]) -> Array:
        """Elements at indices; those outside belong to branches that are not taken, and are anything."""
        if not indices:
            return self._scalar(array.reshape(()))
        shape = np.broadcast_shapes(*(index.shape for index in indices))
        if array.size == 0:
            return np.zeros(shape, array.dtype)
        held = [np.clip(index, 0, size - 1) for index, size in zip(indices, array.shape, strict=True)]
        result: Array = array[tuple(held)]
        return result

    def _reduce(self, reduction: Reduce) -> Array:
        body = self.value(reduction.body)
        shape = list(np.broadcast_shapes(body.shape, (1,) * len(self.place)))
        places = [self.place[axis] for axis in reduction.axes]
        for axis, place in zip(reduction.axes, places, strict=True):
            shape[place] = self.extent(axis)
        body = np.broadcast_to(body, shape)
        if reduction.combine.startswith("arg"):
            return _extreme(reduction.combine, body, places[0])
        initial = self.value(reduction.initial).astype(body.dtype)
        function = COMBINATIONS[reduction.combine]
        result: Array = function(function.reduce(body, axis=tuple(places), keepdims=True, **_start(initial)), initial)
        return result.astype(reduction.dtype.numpy)


def _start(initial: Array) -> dict[str, Any]:
    return {"initial": initial.reshape(-1)[0]}


def _extreme(kind: str, body: Array, axis: int) -> Array:
    function = np.argmax if kind.startswith("argmax") else np.argmin
    if not kind.endswith("_last"):
        return np.asarray(function(body, axis=axis, keepdims=True), dtype=np.int64)
    flipped = np.asarray(function(np.flip(body, axis), axis=axis, keepdims=True), dtype=np.int64)
    return np.asarray(body.shape[axis] - 1 - flipped)


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    if array.dtype.kind == "f" and dtype.kind in "iu":
        array = np.trunc(array)
    result: Array = array.astype(dtype)
    return result


def _divide(a: Array, b: Array) -> Array:
    """Integers round toward zero, and x / 0 is 0."""
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    quotient = np.where(b == 0, 0, np.floor_divide(a, np.where(b == 0, 1, b)))
    inexact = (b != 0) & (quotient * b != a) & ((a < 0) != (b < 0))
    return np.asarray(quotient + inexact)


def _whole(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """An integer function that is 0 where the divisor is."""

    def guarded(a: Array, b: Array) -> Array:
        if a.dtype.kind not in "iu":
            return function(a, b)
        return np.where(b == 0, 0, function(a, np.where(b == 0, 1, b)))

    return guarded


def _shift(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    return lambda a, b: np.where(b < 8 * a.dtype.itemsize, function(a, b), 0)


_erf = np.vectorize(math.erf, otypes=[np.float64])
_normal_cdf = np.vectorize(lambda x: math.erfc(-x * math.sqrt(0.5)) / 2, otypes=[np.float64])

COMBINATIONS: dict[str, np.ufunc] = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": _divide, "pow": np.power, "ipow": np.power,
    "mod": _whole(np.mod), "fmod": _whole(np.fmod), "floordiv": _whole(np.floor_divide), "max": np.maximum,
    "min": np.minimum, "neg": np.negative, "abs": np.abs, "sign": np.sign, "floor": np.floor, "ceil": np.ceil,
    "rint": np.rint, "sqrt": np.sqrt, "exp": np.exp, "exp_below": np.exp, "expm1": np.expm1,
    "log": np.log, "log1p": np.log1p,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "erf": _erf, "normal_cdf": _normal_cdf,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "isnan": np.isnan, "isinf": np.isinf, "logical_and": np.logical_and,
    "logical_or": np.logical_or, "logical_xor": np.logical_xor, "logical_not": np.logical_not,
    "bit_and": np.bitwise_and, "bit_or": np.bitwise_or, "bit_xor": np.bitwise_xor, "bit_not": np.invert,
    "shift_left": _shift(np.left_shift), "shift_right": _shift(np.right_shift), "select": np.where,
    "checked_index": lambda index, size: np.where(index < 0, index + size, index),
}  # fmt: skip
