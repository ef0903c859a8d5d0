"""Operators whose results are dimensions, or are of a given shape."""

from __future__ import annotations

import numpy as np

from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Computation, literal
from partita.ir.formula import cast, compute, load, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import Known, required, required_ints
from partita.ir.operators.internal import chosen
from partita.ir.operators.registry import computes
from partita.ir.types import DType

ZERO = np.zeros(1, dtype=np.float32)


@computes("Shape")
def shape_operator(node: Node, x: Value, *, start: int = 0, end: int | None = None) -> Computation:
    elements = x.shape[start:end]
    return compute([len(elements)], lambda i: chosen(elements, i))


@computes("Size")
def size_operator(node: Node, x: Value) -> Computation:
    return compute([], lambda: size(dims.product(x.shape)))


@computes("ConstantOfShape")
def constant_of_shape(node: Node, *, value: Known = ZERO) -> Computation:
    content = literal(value.item(), DType.of(value.dtype))
    return compute(required_ints(node, 0), lambda *i: content)


@computes("Range")
def range_operator(node: Node, first: Value, _: Value, step: Value) -> Computation:
    start, limit, delta = (required(node, n).item() for n in range(3))
    dtype, span = first.tensor.dtype, limit - start
    if dtype.is_float:
        count: Dim = int(np.ceil(span / delta))
    else:
        count = dims.ceil_div(span, delta) if delta > 0 else dims.ceil_div(-span, -delta)
    count = max(count, 0) if dims.is_static(count) else count
    return compute([count], lambda i: load(first) + cast(i, dtype) * load(step))
