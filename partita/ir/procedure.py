"""What an operator does, step by step, where no element of its result can be said on its own: scatters, recurrences,
selections. Loops run in order, one step after the other, and may read what earlier steps stored.

A procedure is made of expressions, so that any backend that prints these can print it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from partita.ir.dims import Dim
from partita.ir.expression import Axis, Expr, Index, Load, Operand, literal
from partita.ir.formula import indices_over
from partita.ir.graph import Value
from partita.ir.types import DType, TensorType


@dataclass(frozen=True, eq=False, slots=True)
class Store:
    """`value[indices] = body` for all `axes`, in order; only where `when` holds, if there is one."""

    axes: tuple[Axis, ...]
    value: Value
    indices: tuple[Expr, ...]
    body: Expr
    when: Expr | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Loops:
    """`steps`, one after the other, in each step of the loops over `axes`. Nothing runs unless `when` holds at first,
    and the innermost loop ends as soon as `until` holds before a step."""

    axes: tuple[Axis, ...]
    steps: tuple[Store | Loops, ...]
    when: Expr | None = None
    until: Expr | None = None


Step = Store | Loops


@dataclass(frozen=True, eq=False, slots=True)
class Procedure:
    """Loop nests, run in order, for each step of the loops over `rows`: these touch different elements of the outputs
    and read none that others store, so that they may run side by side. `temporaries` live as long as a row does, and
    hold anything at first."""

    nests: tuple[Loops, ...]
    temporaries: tuple[Value, ...] = ()
    rows: tuple[Axis, ...] = ()


def temporary(name: str, dtype: DType, shape: Sequence[Dim]) -> Value:
    return Value(name, TensorType(dtype, tuple(shape)))


def store(value: Value, indices: Sequence[Expr | int], body: Operand, when: Expr | None = None) -> Store:
    """One element, in each step of the loops around it."""
    return Store((), value, tuple(literal(i, DType.INT64) for i in indices), literal(body, value.tensor.dtype), when)


def fill(value: Value, body: Callable[..., Expr]) -> Store:
    """All elements of `value`: the one at indices (i, j, ...) becomes `body(i, j, ...)`."""
    indices = indices_over(value.shape, "j")
    return Store(tuple(index.axis for index in indices), value, tuple(indices), body(*indices))


def each(indices: Sequence[Index], *steps: Step, when: Expr | None = None, until: Expr | None = None) -> Loops:
    """Steps in each step of the loops over these indices; see `Loops`."""
    return Loops(tuple(index.axis for index in indices), steps, when, until)


def once(*steps: Step, when: Expr | None = None) -> Loops:
    """Steps outside of any loop."""
    return Loops((), steps, when)


def current(value: Value, indices: Sequence[Expr | int] = ()) -> Expr:
    """What `value` holds now."""
    return Load(value, tuple(literal(i, DType.INT64) for i in indices), value.tensor.dtype)


def procedure(*nests: Step, rows: Sequence[Index] = ()) -> Procedure:
    """These nests, for each step of the loops over `rows`; temporaries are what they store into that no node gives."""
    loops = tuple(nest if isinstance(nest, Loops) else once(nest) for nest in nests)
    stored = dict.fromkeys(value for nest in loops for value in _stored(nest))
    temporaries = tuple(value for value in stored if value.producer is None)
    return Procedure(loops, temporaries, tuple(index.axis for index in rows))


def _stored(step: Step) -> list[Value]:
    """The values that a step stores into."""
    return [step.value] if isinstance(step, Store) else [value for inner in step.steps for value in _stored(inner)]
