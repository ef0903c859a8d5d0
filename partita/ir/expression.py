"""What an operator computes, as an expression: one output element as a function of its indices.

A backend prints a `Computation` as loops, and fuses neighbours by putting the expression of a producer in the place
of a load from it (`substitute`). Expressions are immutable; one that is used twice is one object, so a printer can name
it once. Indices, sizes and loads are compared by content, everything else by identity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from partita.errors import UnsupportedOperatorError
from partita.ir.dims import Dim
from partita.ir.graph import Value
from partita.ir.types import DType

COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
PREDICATES = COMPARISONS | {"logical_and", "logical_or", "logical_not", "isnan", "isinf"}


STRING_FUNCTIONS = COMPARISONS | {"select", "string_concat"}


@dataclass(frozen=True, eq=False, slots=True)
class Axis:
    """A loop index running over [0, extent)."""

    name: str
    extent: Dim


class Expr:
    """A scalar. Arithmetic builds `Call`s; a Python number takes the element type of the other operand."""

    __slots__ = ()
    dtype: DType

    def __add__(self, other: Operand) -> Expr:
        return call("add", self, other)

    def __radd__(self, other: Operand) -> Expr:
        return call("add", other, self)

    def __sub__(self, other: Operand) -> Expr:
        return call("sub", self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return call("sub", other, self)

    def __mul__(self, other: Operand) -> Expr:
        return call("mul", self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return call("mul", other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return call("div", self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return call("div", other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        return call("floordiv", self, other)

    def __mod__(self, other: Operand) -> Expr:
        return call("mod", self, other)

    def __neg__(self) -> Expr:
        return call("neg", self)

    def __lt__(self, other: Operand) -> Expr:
        return call("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return call("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return call("gt", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return call("ge", self, other)

    def __and__(self, other: Operand) -> Expr:
        return call("logical_and", self, other)

    def __or__(self, other: Operand) -> Expr:
        return call("logical_or", self, other)


Operand = Expr | int | float | bool | str


@dataclass(frozen=True, eq=False, slots=True)
class Literal(Expr):
    """A number printed into the code: part of the program, never a weight."""

    value: int | float | bool | complex | str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Index(Expr):
    """The current value of a loop index."""

    axis: Axis
    dtype: DType = DType.INT64


@dataclass(frozen=True, slots=True)
class Size(Expr):
    """A dimension as a number; symbolic ones are read at run time."""

    dim: Dim
    dtype: DType = DType.INT64


@dataclass(frozen=True, slots=True)
class Load(Expr):
    """The element of `value` at `indices`, one per axis of its shape."""

    value: Value
    indices: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True, eq=False, slots=True)
class Call(Expr):
    """A scalar function of `arguments`; `partita.ir.interpret` knows them all."""

    function: str
    arguments: tuple[Expr, ...]
    dtype: DType


@dataclass(frozen=True, eq=False, slots=True)
class Cast(Expr):
    """`argument` converted as ONNX's Cast does; `saturate` is Cast's attribute for the 8-bit floats."""

    argument: Expr
    dtype: DType
    saturate: bool = True


@dataclass(frozen=True, eq=False, slots=True)
class Reduce(Expr):
    """`body` combined over `axes` by `combine` (sum, prod, max, min), starting from `initial`; or the index of its
    extreme along one axis (argmax, argmin and, for the last of equals, argmax_last, argmin_last)."""

    combine: str
    axes: tuple[Axis, ...]
    body: Expr
    initial: Expr
    dtype: DType


@dataclass(frozen=True, eq=False, slots=True)
class Computation:
    """A whole tensor: its element at `axes` is `body`. The shape is the extents of the axes."""

    axes: tuple[Axis, ...]
    body: Expr

    @property
    def indices(self) -> list[Index]:
        return list(map(Index, self.axes))

    @property
    def shape(self) -> tuple[Dim, ...]:
        return tuple(axis.extent for axis in self.axes)

    @property
    def dtype(self) -> DType:
        return self.body.dtype


# ---------------------------------------------------------------------- building


def literal(value: Operand, dtype: DType) -> Expr:
    if isinstance(value, Expr):
        return value
    return Size(value) if hasattr(value, "free_symbols") else Literal(value, dtype)  # a size that a run tells


def call(function: str, *arguments: Operand, dtype: DType | None = None) -> Expr:
    """Applies a scalar function; numbers take the type of the first expression among the arguments."""
    types: list[DType] = [a.dtype for a in arguments if isinstance(a, Expr)]
    check_strings(function, *types)
    peer = next((t for t in types if t is not DType.BOOL), types[0] if types else DType.FLOAT32)
    expressions = tuple(literal(a, peer) for a in arguments)
    folded = _fold_index(function, expressions)
    if folded is not None:
        return folded
    if dtype is None:
        dtype = DType.BOOL if function in PREDICATES else peer
    return Call(function, expressions, dtype)


def check_strings(function: str, *types: DType) -> None:
    """`UnsupportedOperatorError` for a function of numbers on strings."""
    if DType.STRING in types and function not in STRING_FUNCTIONS:
        raise UnsupportedOperatorError(f"its elements would be combined by {function!r}, which strings have not")


def _fold_index(function: str, arguments: tuple[Expr, ...]) -> Expr | None:
    """Index arithmetic with 0 and 1 and between literals, so that generated subscripts stay short."""
    if len(arguments) != 2 or any(a.dtype is not DType.INT64 for a in arguments):
        return None
    first, second = (a.value if isinstance(a, Literal) else None for a in arguments)
    if isinstance(first, int) and isinstance(second, int):
        folded = {"add": lambda: first + second, "sub": lambda: first - second, "mul": lambda: first * second}
        return Literal(folded[function](), DType.INT64) if function in folded else None
    if (function in ("add", "sub") and second == 0) or (function in ("mul", "floordiv") and second == 1):
        return arguments[0]
    if (function == "add" and first == 0) or (function == "mul" and first == 1):
        return arguments[1]
    if (function == "mul" and (first == 0 or second == 0)) or (function == "mod" and second == 1):
        return Literal(0, DType.INT64)
    return None


# ---------------------------------------------------------------------- walking


def children(expression: Expr) -> tuple[Expr, ...]:
    match expression:
        case Call(arguments=arguments):
            return arguments
        case Cast(argument=argument):
            return (argument,)
        case Load(indices=indices):
            return indices
        case Reduce(body=body, initial=initial):
            return (body, initial)
        case _:
            return ()


def walk(expression: Expr) -> list[Expr]:
    """Every distinct subexpression, operands before users."""
    seen: dict[Expr, None] = {}

    def visit(current: Expr) -> None:
        if current not in seen:
            for child in children(current):
                visit(child)
            seen[current] = None

    visit(expression)
    return list(seen)


def rewrite(expression: Expr, replace: Callable[[Expr], Expr | None]) -> Expr:
    """The expression with every subexpression for which `replace` gives one replaced, from the top down; what is
    shared stays shared."""
    done: dict[Expr, Expr] = {}

    def visit(current: Expr) -> Expr:
        if current in done:
            return done[current]
        replacement = replace(current)
        result = replacement if replacement is not None else _rebuild(current, visit)
        done[current] = result
        return result

    return visit(expression)


def _rebuild(expression: Expr, visit: Callable[[Expr], Expr]) -> Expr:
    old = children(expression)
    new = tuple(visit(child) for child in old)
    if all(a is b for a, b in zip(old, new, strict=True)):
        return expression
    match expression:
        case Call(function=function, dtype=dtype):
            return call(function, *new, dtype=dtype)
        case Cast(dtype=dtype, saturate=saturate):
            return Cast(new[0], dtype, saturate)
        case Load(value=value, dtype=dtype):
            return Load(value, new, dtype)
        case Reduce(combine=combine, axes=axes, dtype=dtype):
            return Reduce(combine, axes, new[0], new[1], dtype)
        case _:
            return expression


def replace_indices(expression: Expr, indices: Mapping[Axis, Expr]) -> Expr:
    """The expression at other indices."""
    return rewrite(expression, lambda e: indices.get(e.axis) if isinstance(e, Index) else None)


def at(computation: Computation, indices: Sequence[Expr]) -> Expr:
    """The element of a computation at `indices`."""
    return replace_indices(computation.body, dict(zip(computation.axes, indices, strict=True)))


def substitute(expression: Expr, computations: Mapping[Value, Computation]) -> Expr:
    """The expression with every load from a computed value replaced by that computation at the load's indices."""

    def replace(current: Expr) -> Expr | None:
        if isinstance(current, Load) and current.value in computations:
            indices = [rewrite(index, replace) for index in current.indices]
            return at(computations[current.value], indices)
        return None

    return rewrite(expression, replace)


def loads(expression: Expr) -> list[Load]:
    return [e for e in walk(expression) if isinstance(e, Load)]


def affine(expression: Expr) -> Any:
    """An affine view of index expressions: {Axis: coefficient, None: constant}, or None where it is not affine."""
    match expression:
        case Literal(value=value) if not isinstance(value, str):
            return {None: int(value.real)}
        case Size(dim=dim):
            return {None: dim}
        case Index(axis=axis):
            return {axis: 1, None: 0}
        case Call(function="add" | "sub" as function, arguments=(first, second)):
            left, right = affine(first), affine(second)
            if left is None or right is None:
                return None
            sign = 1 if function == "add" else -1
            return {key: left.get(key, 0) + sign * right.get(key, 0) for key in dict.fromkeys([*left, *right])}
        case Call(function="mul", arguments=(first, second)):
            left, right = affine(first), affine(second)
            if left is None or right is None:
                return None
            if set(left) != {None}:
                left, right = right, left
            if set(left) != {None}:
                return None
            return {key: value * left[None] for key, value in right.items()}
        case _:
            return None
