"""How far what is computed reads, so that a run can compare that with the sizes there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Call, Computation, Expr, Index, Load, Reduce, affine, children
from partita.ir.graph import Value
from partita.ir.procedure import Loops, Procedure, Store


@dataclass(frozen=True, slots=True)
class Reach:
    """Element `last` of an axis of `value` is read, unless one of the loops around has no steps."""

    value: Value
    axis: int
    last: Dim
    steps: tuple[Dim, ...]


def reaches(computation: Computation | Procedure) -> Iterator[Reach]:
    """Where only a run can tell whether elements lie inside of a tensor. Of places that data decides nothing is said,
    nor of those that a condition on the same indices guards."""
    if isinstance(computation, Computation):
        yield from _reads(computation.body, computation.axes, frozenset())
    else:
        for nest in computation.nests:
            yield from _steps(nest, computation.rows, frozenset())


def _steps(step: Store | Loops, around: tuple[Axis, ...], guarded: frozenset[Axis]) -> Iterator[Reach]:
    if step.when is not None:
        inside = (*around, *step.axes) if isinstance(step, Store) else around
        yield from _reads(step.when, inside, guarded)
        axes = _own_axes(step.when)
        if axes is None:
            return
        guarded |= axes
    around = (*around, *step.axes)
    if isinstance(step, Store):
        yield from _reads(Load(step.value, step.indices, step.body.dtype), around, guarded)
        yield from _reads(step.body, around, guarded)
        return
    if step.until is not None:
        guarded |= frozenset(step.axes[-1:])  # it may end before
        yield from _reads(step.until, around, guarded)
    for inner in step.steps:
        yield from _steps(inner, around, guarded)


def _reads(expression: Expr, around: tuple[Axis, ...], guarded: frozenset[Axis]) -> Iterator[Reach]:
    if isinstance(expression, Load):
        for place, index in enumerate(expression.indices):
            yield from _read(expression.value, place, index, around, guarded)
    if isinstance(expression, Reduce):
        around = (*around, *expression.axes)
    inner = children(expression)
    if isinstance(expression, Call) and expression.function in ("select", "logical_and", "logical_or"):
        yield from _reads(inner[0], around, guarded)
        axes = _own_axes(inner[0])
        if axes is None:
            return
        inner, guarded = inner[1:], guarded | axes
    for child in inner:
        yield from _reads(child, around, guarded)


def _own_axes(condition: Expr) -> frozenset[Axis] | None:
    """The indices that a condition limits; None where it is about sizes, which decide for all indices at once."""
    if isinstance(condition, Index):
        return frozenset([condition.axis])
    if isinstance(condition, Load):
        return frozenset()
    found = [_own_axes(child) for child in children(condition)]
    axes = [each for each in found if each is not None]
    return frozenset().union(*axes) if axes else None


def _read(value: Value, place: int, index: Expr, around: tuple[Axis, ...], guarded: frozenset[Axis]) -> Iterator[Reach]:
    terms = affine(index)
    if terms is None or not guarded.isdisjoint(axis for axis in terms if axis is not None):
        return
    last = terms[None]
    for axis, factor in terms.items():
        if axis is not None and not (dims.is_static(factor) and factor < 0):
            last = last + factor * (axis.extent - 1)
    rest = dims.simplified(value.shape[place] - 1 - last)
    if not dims.is_static(rest) or rest < 0:
        yield Reach(value, place, dims.simplified(last), tuple(axis.extent for axis in around))
