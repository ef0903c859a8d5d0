"""What stays the same over the inner loops of a kernel, and is worth computing before them: a compiler moves little of
it by itself where a loop is to run in vectors.

    for i: for j: y[i, j] = x[clip(i / s), j]
    becomes for i: t = clip(i / s); for j: y[i, j] = x[t, j]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from partita.backends.cpu.expressions import Scope, is_guard
from partita.backends.cpu.kernel import KernelWriter
from partita.backends.cpu.scalars import COMPARE, LOGIC, register_type
from partita.ir import dims
from partita.ir.expression import Axis, Call, Cast, Expr, Index, Reduce, children, walk
from partita.ir.types import DType

CHEAP = frozenset({"add", "sub", "mul", "select", "logical_not", *COMPARE, *LOGIC})


def write_invariants(bodies: Iterable[Expr], inner: Sequence[Axis], scope: Scope, writer: KernelWriter) -> None:
    """Computes in `scope` what the loops over `inner`, which are opened next, need not compute again."""
    may_fail = all(dims.is_static(axis.extent) and axis.extent > 0 for axis in inner)
    for expression in _invariants(bodies, frozenset(inner), may_fail):
        if expression not in scope.memo:
            text = writer.printer.render(expression, scope)
            name = writer.names.fresh("t")
            scope.write(f"const {register_type(expression.dtype)} {name} = {text};")
            scope.memo[expression] = name


def _invariants(bodies: Iterable[Expr], inner: frozenset[Axis], may_fail: bool) -> list[Expr]:
    """The largest subexpressions that do not depend on `inner`; nothing that a condition on indices protects, and
    what fails for a bad index only if `may_fail`: loops over no element read no index."""
    found: dict[Expr, None] = {}
    pending, seen = list(bodies), set[Expr]()
    while pending:
        current = pending.pop()
        if current in seen or isinstance(current, Reduce):
            continue
        seen.add(current)
        parts = walk(current)
        axes = {part.axis for part in parts if isinstance(part, Index)}
        if inner.isdisjoint(axes):
            if _is_worth(parts, may_fail):
                found[current] = None
        elif isinstance(current, Call) and current.function == "select" and is_guard(current.arguments[0]):
            pending.append(current.arguments[0])
        else:
            pending += children(current)
    return list(found)


def _is_worth(parts: Sequence[Expr], may_fail: bool) -> bool:
    """Whether computing takes more than a few additions, makes no string, and fails only where that is allowed."""
    calls = [part.function for part in parts if isinstance(part, Call)]
    plain = (may_fail or "checked_index" not in calls) and not any(part.dtype is DType.STRING for part in parts)
    costs = any(function not in CHEAP for function in calls) or any(isinstance(part, Cast) for part in parts)
    return plain and costs and not any(isinstance(part, Reduce) for part in parts)
