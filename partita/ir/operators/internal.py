"""Operators of Partita's own, in the domain `partita`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from partita.errors import ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import Known
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, literal
from partita.ir.formula import compute, load, put, select, size
from partita.ir.graph import Node, Value
from partita.ir.registry import computes, infers, operator, propagates
from partita.ir.types import DType, Type

DOMAIN = "partita"


def chosen(elements: Sequence[Dim], place: Expr) -> Expr:
    """The size at a place among a few, as a chain of selections."""
    result = size(elements[-1]) if elements else literal(0, DType.INT64)
    for n in reversed(range(len(elements) - 1)):
        result = select(place < n + 1, size(elements[n]), result)
    return result


@computes("Dims", domain=DOMAIN)
def dims_operator(node: Node, *, dims: Sequence[Dim], rank: int) -> Computation:
    """A 0-D or 1-D int64 tensor of symbolic dimensions."""
    return compute([len(dims)] * rank, lambda *i: chosen(dims, i[0]) if i else size(dims[0]))


# the operand, in memory of its own
computes("Copy", domain=DOMAIN)(lambda node, x: compute(x.shape, lambda *i: load(x, *i)))


@computes("Element", domain=DOMAIN)
def element_at(node: Node, x: Value, place: Value, *, axis: int = 0) -> Computation:
    """What lies at one place of an axis, which is not checked: a loop counts it."""
    return compute(put(x.shape, axis), lambda *i: load(x, *i[:axis], load(place), *i[axis:]))


# nodes that hold their meaning as a graph, whose inputs are the node's operands: what is known inside is known outside
infers("Region", "Fused", "Chain", domain=DOMAIN)(lambda node, *, body: [output.type for output in body.outputs])
propagates("Region", "Fused", domain=DOMAIN)(lambda node, *, body: body.outputs[0].known)


def vector_of(build: Builder, sizes: Sequence[Dim]) -> Value:
    """Sizes as an int64 tensor of rank 1."""
    return build.ints(sizes) if dims.all_static(sizes) else build("Dims", domain=DOMAIN, dims=tuple(sizes), rank=1)


def with_trailing_axes(build: Builder, value: Value, count: int) -> Value:
    """`value` with `count` axes of size 1 after its own."""
    rank = len(value.shape)
    return build("Unsqueeze", value, range(rank, rank + count)) if count > 0 else value


def repeated(build: Builder, vector: Value, count: Dim) -> Value:
    """Each element of a vector `count` times."""
    column = build("Unsqueeze", vector, [1])
    return build("Reshape", build("Expand", column, vector_of(build, [1, count])), [-1])


@infers("Observe", domain=DOMAIN)
def observed_types(node: Node, sizes: Value) -> Type:
    """Sizes that data decides: the elements of an int64 tensor of rank 0 or 1 become the dimensions `symbols`. The
    result is the operand again; whatever is shaped by the symbols reads it, and so comes after. With a second operand,
    a boolean scalar, a run fails with `message` unless it holds."""
    return sizes.type


@propagates("Observe", domain=DOMAIN)
def observed_symbols(node: Node, *, symbols: Sequence[str]) -> Known:
    return np.array([dims.symbol(name) for name in symbols], dtype=object).reshape(node.output.shape)


operator("Observe", DOMAIN).is_view = True


def is_observation(node: Node) -> bool:
    return node.domain == DOMAIN and node.op_type == "Observe"


def observe(build: Builder, sizes: Value, valid: Value | None = None, message: str = "") -> Value:
    """`sizes`, an int64 tensor of known shape, as dimensions of their own."""
    if not dims.all_static(sizes.shape):
        raise ShapeError(f"how many sizes {sizes.name!r} ({sizes.type}) holds must be known when compiling")
    symbols = tuple(f"{sizes.name}[{n}]" for n in range(dims.product(sizes.shape)))
    operands = [sizes] if valid is None else [sizes, valid]
    return build("Observe", *operands, domain=DOMAIN, symbols=symbols, message=message)
