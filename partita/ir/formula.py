"""How definitions write what operators compute: loads, choices and reductions in few words."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from partita.ir.dims import Dim, is_one, is_static
from partita.ir.expression import (
    Axis,
    Call,
    Cast,
    Computation,
    Expr,
    Index,
    Literal,
    Load,
    Operand,
    Reduce,
    Size,
    call,
    check_strings,
    literal,
)
from partita.ir.graph import Value
from partita.ir.types import DType

FEW = 16  # terms that are written out


def over(name: str, extent: Dim) -> Index:
    """The index of a loop of its own, over [0, extent)."""
    return Index(Axis(name, extent))


def indices_over(shape: Sequence[Dim], name: str = "i") -> list[Index]:
    """Indices of loops over all elements of a shape."""
    return [over(f"{name}{n}", dim) for n, dim in enumerate(shape)]


def size(dim: Dim) -> Expr:
    """A dimension as an int64 scalar."""
    return Literal(int(dim), DType.INT64) if is_static(dim) else Size(dim)


def select(condition: Expr, if_true: Operand, if_false: Operand) -> Expr:
    """`if_true` where `condition` holds, else `if_false`; the branch not taken is not evaluated."""
    peer = if_true if isinstance(if_true, Expr) else if_false
    assert isinstance(peer, Expr)
    return Call("select", (condition, literal(if_true, peer.dtype), literal(if_false, peer.dtype)), peer.dtype)


def all_within(places: Iterable[tuple[Expr, Dim]]) -> Expr | None:
    """Whether every place lies on its axis, of a size each; None where there is no place."""
    conditions = [(place >= 0) & (place < size(dim)) for place, dim in places]
    return functools.reduce(lambda a, b: a & b, conditions) if conditions else None


def cast(expression: Expr, dtype: DType) -> Expr:
    return expression if expression.dtype is dtype else Cast(expression, dtype)


def wide(x: Expr) -> Expr:
    """A term as it is summed: what is narrower than float32 is rounded once, when the sum is complete."""
    return cast(x, DType.FLOAT32) if x.dtype.is_float and x.dtype is not DType.FLOAT64 else x


def load(value: Value, *indices: Expr | int) -> Expr:
    return Load(value, tuple(literal(i, DType.INT64) for i in indices), value.tensor.dtype)


def only(value: Value) -> Expr:
    """The element of a tensor that has one."""
    return load(value, *[0] * len(value.shape))


def put(items: Sequence[Any], place: int, *new: Any) -> tuple[Any, ...]:
    """Indices, or a shape, with `new` items in the place of the one at `place`, which counts from the front."""
    return (*items[:place], *new, *items[place + 1 :])


def aligned(indices: Sequence[Expr], shape: Sequence[Dim]) -> list[Expr | int]:
    """Where a tensor of `shape`, which broadcasts to `indices`, is read: at 0 along axes of size 1."""
    tail = indices[len(indices) - len(shape) :]
    return [0 if is_one(dim) else index for index, dim in zip(tail, shape, strict=True)]


def broadcast_load(value: Value, indices: Sequence[Expr]) -> Expr:
    """The element of `value` that broadcasts to `indices`."""
    return load(value, *aligned(indices, value.shape))


def reduce(combine: str, indices: Iterable[Index], body: Expr) -> Expr:
    """`body` combined over all `indices`, from what changes nothing on; or where its extreme is, as `Reduce` says."""
    check_strings(combine, body.dtype)
    kind = DType.INT64 if combine.startswith("arg") else body.dtype
    return Reduce(combine, tuple(index.axis for index in indices), body, literal(neutral(combine, kind), kind), kind)


def tensor(indices: Sequence[Index], body: Expr) -> Computation:
    """The tensor whose element at `indices` (of `indices_over` its shape) is `body`."""
    return Computation(tuple(index.axis for index in indices), body)


def compute(shape: Sequence[Dim], body: Callable[..., Expr]) -> Computation:
    """As `tensor`, of a shape and of a `body` that takes the indices."""
    indices = indices_over(shape)
    return tensor(indices, body(*indices))


def reduction(combine: str, extents: Sequence[Dim], body: Callable[..., Expr]) -> Expr:
    """`body(k0, k1, ...)` combined over the given extents."""
    indices = indices_over(extents, "k")
    return reduce(combine, indices, body(*indices))


def combination(combine: str, extents: Sequence[int], body: Callable[..., Expr]) -> Expr:
    """As `reduction`, but written out where the terms are few."""
    if math.prod(extents) > FEW:
        return reduction(combine, extents, body)
    terms = itertools.starmap(body, itertools.product(*map(range, extents)))
    return functools.reduce(functools.partial(call, "add" if combine == "sum" else combine), terms)


def neutral(combine: str, dtype: DType) -> float | int:
    """What changes nothing when it is combined with anything."""
    return {"prod": 1, "max": lowest(dtype), "min": highest(dtype)}.get(combine, 0)


def lowest(dtype: DType) -> float | int:
    """The value below all others: what a maximum starts from."""
    if dtype.is_float or dtype is DType.BOOL:
        return -math.inf if dtype.is_float else False
    return -(1 << (dtype.bits - 1)) if dtype.is_signed else 0


def highest(dtype: DType) -> float | int:
    """The value above all others: what a minimum starts from."""
    if dtype.is_float or dtype is DType.BOOL:
        return math.inf if dtype.is_float else True
    return (1 << (dtype.bits - 1)) - 1 if dtype.is_signed else (1 << dtype.bits) - 1
