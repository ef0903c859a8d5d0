"""What computing an expression costs, and whether a compiler makes vectors of a loop over it."""

from __future__ import annotations

from collections.abc import Sequence

from partita.backends.cpu.scalars import LIBM, VECTORIZED
from partita.ir import dims
from partita.ir.expression import Axis, Call, Expr, Load, Reduce, walk
from partita.ir.types import DType

# What an element takes, in nanoseconds, when it is read or stored, computed, or computed by a library's function.
MOVED, COMPUTED, CALLED = 0.15, 0.05, 2.5


def element_cost(expression: Expr) -> float:
    """Nanoseconds, roughly, for one element on one thread."""
    total = MOVED
    for part in walk(expression):
        if isinstance(part, Reduce):
            total += element_cost(part.body) * typical_product(part.axes)
        elif isinstance(part, Load):
            total += MOVED
        elif isinstance(part, Call) and part.dtype is not DType.INT64:
            total += COMPUTED if is_vectorizable(part) else CALLED
    return total


def typical_product(axes: Sequence[Axis]) -> int:
    return dims.typical(dims.product(axis.extent for axis in axes))


def is_vectorizable(expression: Expr) -> bool:
    """Whether a loop over the expression is worth a vectorization hint: no loops or library calls inside."""
    slow = LIBM - {"sqrt", "floor", "ceil", "rint"} | {"pow", "fmod", "mod", "checked_index"}

    def is_slow(e: Expr) -> bool:
        if e.dtype is DType.STRING:
            return True
        if not isinstance(e, Call):
            return isinstance(e, Reduce)
        vectorized = e.function in VECTORIZED and e.dtype is not DType.FLOAT64
        return e.function in slow and e.dtype is not DType.INT64 and not vectorized

    return not any(map(is_slow, walk(expression)))
