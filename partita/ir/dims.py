"""Dimensions: plain integers where they are known, sympy expressions of non-negative integer symbols where not.

A static model never imports sympy: every function here takes the integer road first.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

Dim = Any  # int | sympy.Expr; sympy has no types worth checking against
_TYPICAL = 64  # what a symbol is taken for where only an estimate is wanted


@functools.cache
def _sympy() -> Any:
    """The library, imported when the first dimension needs it, and untyped as it is."""
    import sympy

    return sympy


@functools.cache
def symbol(name: str) -> Dim:
    """The symbolic dimension `name`: equal names are equal dimensions."""
    return _sympy().Symbol(name, integer=True, nonnegative=True)


def is_static(dim: Dim) -> bool:
    return isinstance(dim, int)


def all_static(shape: Iterable[Dim] | None) -> bool:
    return shape is not None and all(isinstance(dim, int) for dim in shape)


def simplified(dim: Dim) -> Dim:
    """`dim` in a normal form, as an `int` where it is one."""
    if isinstance(dim, int):
        return int(dim)
    if getattr(dim, "is_Integer", False):
        return int(dim)
    if not hasattr(dim, "free_symbols"):
        return int(dim)
    expanded = _sympy().expand(dim)
    return int(expanded) if expanded.is_Integer else expanded


def is_one(dim: Dim) -> bool:
    """Whether an axis is known to be of size 1, along which broadcasting repeats."""
    return isinstance(dim, int) and dim == 1


def same(first: Dim, second: Dim) -> bool:
    """Whether both are equal for every value of the symbols."""
    if isinstance(first, int) and isinstance(second, int):
        return first == second
    return bool(simplified(first - second) == 0)


def same_shape(first: Iterable[Dim], second: Iterable[Dim]) -> bool:
    first, second = tuple(first), tuple(second)
    return len(first) == len(second) and all(map(same, first, second))


def product(dims: Iterable[Dim]) -> Dim:
    dims = tuple(dims)
    return math.prod(dims) if all_static(dims) else simplified(functools.reduce(lambda a, b: a * b, dims, 1))


def floor_div(dividend: Dim, divisor: Dim) -> Dim:
    if isinstance(dividend, int) and isinstance(divisor, int):
        return dividend // divisor
    quotient = _sympy().cancel(_sympy().sympify(dividend) / divisor)
    return simplified(quotient if quotient.is_integer else _sympy().floor(quotient))


def ceil_div(dividend: Dim, divisor: Dim) -> Dim:
    return floor_div(dividend + divisor - 1, divisor)


def maximum(first: Dim, second: Dim) -> Dim:
    if isinstance(first, int) and isinstance(second, int):
        return max(first, second)
    return simplified(_sympy().Max(first, second))


def minimum(first: Dim, second: Dim) -> Dim:
    if isinstance(first, int) and isinstance(second, int):
        return min(first, second)
    return simplified(_sympy().Min(first, second))


def symbols_of(dim: Dim) -> tuple[str, ...]:
    """Names of the symbols in `dim`, sorted."""
    return () if isinstance(dim, int) else tuple(sorted(str(free) for free in dim.free_symbols))


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The size of `dim` for these values of its symbols; `KeyError` names a symbol without one."""
    if isinstance(dim, int):
        return dim
    return int(dim.subs({free: values[str(free)] for free in dim.free_symbols}))


def typical(dim: Dim) -> int:
    """The size of `dim`, or a guess at it where it has symbols: for estimates."""
    return evaluate(dim, dict.fromkeys(symbols_of(dim), _TYPICAL))


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """`dim` with some of its symbols replaced."""
    if isinstance(dim, int):
        return dim
    return simplified(dim.subs({free: values[str(free)] for free in dim.free_symbols if str(free) in values}))


def text(dim: Dim) -> str:
    """`dim` in a form that `parse` reads back. Names of symbols that are no identifiers are spelled in hexadecimal."""
    if isinstance(dim, int):
        return str(dim)
    odd = [free for free in dim.free_symbols if not _PLAIN_NAME.fullmatch(str(free))]
    return str(dim.subs({free: symbol("_x_" + str(free).encode().hex()) for free in odd}))


def parse(text: str) -> Dim:
    """The dimension that `text` printed; `ValueError` when it is none. Nothing in it is executed."""
    try:
        return simplified(_parsed(ast.parse(text, mode="eval").body))
    except (SyntaxError, TypeError, KeyError, ZeroDivisionError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a dimension") from error


_PLAIN_NAME = re.compile("(?!_x_)[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


def _parsed(tree: ast.AST) -> Dim:
    match tree:
        case ast.Constant(value=int(number)):
            return _sympy().Integer(number)
        case ast.Name(id=name):
            return symbol(bytes.fromhex(name[3:]).decode() if name.startswith("_x_") else name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_parsed(operand)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _parsed(left) / _sympy().sympify(_parsed(right))
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_parsed(left), _parsed(right))
        case ast.Call(func=ast.Name(id="floor" | "Max" | "Min" | "Mod" as name), args=arguments):
            return getattr(_sympy(), name)(*map(_parsed, arguments))
    raise TypeError(type(tree).__name__)


def broadcast(first: Dim, second: Dim) -> Dim | None:
    """The size of two dimensions broadcast together; None when they cannot be.

    A symbol against a known size greater than one takes the known size: at run time it must be equal to it
    (Partita does not broadcast along a dimension whose size it does not know to be 1).
    """
    if isinstance(first, int) and first == 1:
        return second
    if isinstance(second, int) and second == 1:
        return first
    if same(first, second):
        return first
    if not may_equal(first, second):
        return None
    return first if isinstance(first, int) else second


_equations: ContextVar[list[tuple[Dim, Dim]] | None] = ContextVar("equations", default=None)


@contextmanager
def equations() -> Iterator[list[tuple[Dim, Dim]]]:
    """Collects the sizes that `may_equal` was asked about in the block and that only a run can compare."""
    found: list[tuple[Dim, Dim]] = []
    token = _equations.set(found)
    try:
        yield found
    finally:
        _equations.reset(token)


def may_equal(first: Dim, second: Dim) -> bool:
    """Whether two sizes that an operator wants to be equal can be. Where symbols decide, they can, and who collects
    `equations` is told."""
    if isinstance(first, int) and isinstance(second, int):
        return first == second
    collected = _equations.get()
    if collected is not None and not same(first, second):
        collected.append((first, second))
    return True


def may_be_multiple(dim: Dim, divisor: Dim) -> bool:
    """Whether a size that an operator wants to be a multiple of another can be; as in `may_equal`."""
    return may_equal(dim, floor_div(dim, divisor) * divisor)


def broadcast_shapes(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """NumPy's broadcasting over symbolic shapes; `ValueError` when they do not fit."""
    rank = max(map(len, shapes), default=0)
    result: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, start=rank - len(shape)):
            joined = broadcast(result[axis], dim)
            if joined is None:
                raise ValueError(f"shapes {' and '.join(map(str, shapes))} do not broadcast at axis {axis}")
            result[axis] = joined
    return tuple(result)


def parts(dim: Dim) -> list[Dim]:
    """The symbols, quotients and extremes that a symbolic dimension is made of, each after its own parts."""
    named = ("Symbol", "floor", "Max", "Min", "Mod")
    return [part for part in _sympy().postorder_traversal(dim) if part.func.__name__ in named]


def c_text(dim: Dim, name: Mapping[str, str], *, known: Mapping[Dim, str] | None = None, checked: bool = False) -> str:
    """`dim` as a C expression of type int64_t, with the functions of partita_size.h; `name` gives the C text of each
    symbol, `known` that of larger parts that have one. A `checked` one notices overflow, for sizes that nobody has
    looked at yet."""
    if isinstance(dim, int) or dim.is_Integer:
        return str(int(dim))
    if known is not None and dim in known:
        return known[dim]
    if dim.is_Symbol:
        return name[str(dim)]
    kind, text = dim.func.__name__, functools.partial(c_text, name=name, known=known, checked=checked)
    if kind == "floor":
        top, bottom = dim.args[0].together().as_numer_denom()
        parts, function = [text(part) for part in (top, bottom)], "partita_floor_divide"
    elif kind == "Pow":
        parts, function = [text(dim.args[0])] * int(dim.args[1]), "partita_multiply"
    else:
        functions = {"Add": "add", "Mul": "multiply", "Max": "maximum", "Min": "minimum", "Mod": "modulo"}
        parts = list(map(text, dim.args))
        function = f"partita_{functions[kind]}"
    operators = {"partita_add": " + ", "partita_multiply": " * "}
    if function in operators and not checked:
        return "(" + operators[function].join(parts) + ")"
    return functools.reduce(lambda a, b: f"{function}({a}, {b})", parts)
