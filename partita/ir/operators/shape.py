"""Shapes as data: operators whose results are dimensions, and operators that make a tensor of a given shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from partita.ir import dims
from partita.ir.expression import Computation, Expr, cast, compute, literal, load, select, size
from partita.ir.graph import Node
from partita.ir.operators.registry import Known, computes, ints, known, operator, propagates, required
from partita.ir.types import DIMENSION_TYPES, DType


def _content(elements: list[Any], shape: tuple[int, ...]) -> Known:
    result = np.empty(len(elements), dtype=object)
    result[:] = elements
    return result.reshape(shape)


def _table(elements: list[Any]) -> Callable[..., Expr]:
    """The i-th of a few sizes, as a chain of selections."""

    def body(*i: Expr) -> Expr:
        result = size(elements[-1]) if elements else literal(0, DType.INT64)
        for place in reversed(range(len(elements) - 1)):
            result = select(i[0] < place + 1, size(elements[place]), result)
        return result

    return body


def _shape_slice(node: Node) -> list[Any]:
    shape = node.operand(0).shape
    return list(shape[node.attributes.get("start", 0) : node.attributes.get("end", len(shape))])


@computes("Shape")
def shape_operator(node: Node) -> Computation:
    elements = _shape_slice(node)
    return compute([len(elements)], _table(elements))


@propagates("Shape")
def known_shape(node: Node) -> Known:
    elements = _shape_slice(node)
    return _content(elements, (len(elements),))


@computes("Size")
def size_operator(node: Node) -> Computation:
    return compute([], lambda: size(dims.product(node.operand(0).shape)))


@propagates("Size")
def known_size(node: Node) -> Known:
    return _content([dims.product(node.operand(0).shape)], ())


@computes("ConstantOfShape")
def constant_of_shape(node: Node) -> Computation:
    shape = ints(required(node, 0))
    value = node.attributes.get("value", np.zeros(1, dtype=np.float32))
    content = literal(value.reshape(-1)[0].item(), DType.of(value.dtype))
    return compute(shape, lambda *i: content)


@propagates("ConstantOfShape")
def known_constant_of_shape(node: Node) -> Known:
    value = node.attributes.get("value", np.zeros(1, dtype=np.float32)).reshape(-1)[0].item()
    return np.full(node.output.shape, value, dtype=object)


@computes("Range")
def range_operator(node: Node) -> Computation:
    start, limit, delta = (required(node, n).item() for n in range(3))
    dtype = node.operand(0).tensor.dtype
    if dtype.is_float:
        count: Any = max(int(np.ceil((limit - start) / delta)), 0)
    else:
        count = (
            dims.ceil_div(limit - start, delta)
            if dims.is_static(delta) and delta > 0
            else max(-(-(limit - start) // delta), 0)
        )
        count = max(count, 0) if dims.is_static(count) else count
    first, step = (load(node.operand(n)) for n in (0, 2))
    return compute([count], lambda i: first + cast(i, dtype) * step)


@propagates("Range")
def known_range(node: Node) -> Known | None:
    start, _, delta = (known(node.operand(n)) for n in range(3))
    if start is None or delta is None:
        return None
    return _content([start.item() + n * delta.item() for n in range(node.output.shape[0])], node.output.shape)


# ---------------------------------------------------------------------- arithmetic on dimensions


def _arithmetic(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers an elementwise function on known contents (object arrays of dimensions)."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def propagate(node: Node) -> Known | None:
            if any(value.tensor.dtype not in DIMENSION_TYPES for value in node.operands):
                return None
            contents = [known(value) for value in node.operands]
            if any(content is None for content in contents):
                return None
            joined = np.broadcast_arrays(*[c for c in contents if c is not None])
            shape = joined[0].shape
            rows = zip(*(array.reshape(-1) for array in joined), strict=True)
            elements = [function(*row) for row in rows]
            return None if any(element is None for element in elements) else _content(elements, shape)

        for name in names:
            operator(name).propagate = propagate
        return function

    return register


_arithmetic("Add")(lambda a, b: a + b)
_arithmetic("Sub")(lambda a, b: a - b)
_arithmetic("Mul")(lambda a, b: a * b)
_arithmetic("Neg")(lambda a: -a)
_arithmetic("Max")(lambda *values: _fold(dims.maximum, values))
_arithmetic("Min")(lambda *values: _fold(dims.minimum, values))


def _fold(function: Callable[[Any, Any], Any], values: tuple[Any, ...]) -> Any:
    result = values[0]
    for value in values[1:]:
        result = function(result, value)
    return result


@_arithmetic("Div")
def _divide(a: Any, b: Any) -> Any:
    if dims.is_static(b) and b == 0:
        return None
    if dims.all_static([a, b]):
        return int(a / b) if abs(a) < 2**52 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    return dims.floor_div(a, b)


@_arithmetic("Mod")
def _modulo(a: Any, b: Any) -> Any:
    return None if dims.is_static(b) and b == 0 else a % b


@_arithmetic("Equal")
def _equal(a: Any, b: Any) -> Any:
    """Known only where it holds, or fails, for every value of the symbols. A dynamic size is never negative."""
    if dims.same(a, b):
        return True
    difference = dims.simplified(a - b)
    if dims.is_static(difference) or difference.is_nonzero or difference.is_positive or difference.is_negative:
        return False
    return None


@propagates("Where")
def known_where(node: Node) -> Known | None:
    condition, first, second = (known(node.operand(n)) for n in range(3))
    if condition is None or first is None or second is None:
        return None
    return np.where(condition.astype(bool), first, second)


@propagates("Cast")
def known_cast(node: Node) -> Known | None:
    content = known(node.operand(0))
    integers = (DType.INT64, DType.INT32)
    if content is None or node.output.tensor.dtype not in integers or node.operand(0).tensor.dtype not in integers:
        return None
    return content
