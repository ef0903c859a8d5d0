"""Unify sizes: what operators take to be equal becomes one size, in the inputs too.

    before: <ir_version: 10, opset_import: ["" : 21]>
            model (float[N, 3] x) => (float[N, 3] y) <float[2, 1] w = {1, 2}> { y = Mul (x, w) }
    after:  <ir_version: 10, opset_import: ["" : 21]>
            model (float[2, 3] x) => (float[2, 3] y) <float[2, 1] w = {1, 2}> { y = Mul (x, w) }

Generated code relies on it (a size is not broadcast unless it is known to be 1), so inputs in which they differ have to
be refused before it runs: the runtime does that for sizes of one name. What is left are equations between sizes that
data decides, and those that have no solution in whole multiples of an input's size: generated code compares them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from partita.errors import ShapeError, UnsupportedOperatorError
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.graph import Graph, Value
from partita.ir.inference import inferred_types
from partita.ir.subgraph import alone
from partita.ir.types import TensorType
from partita.passes.decompose import decompose, has_expression


def unify_sizes(graph: Graph) -> bool:
    """Replaces symbols by what they have to be equal to; `ShapeError` where that is two things."""
    symbols = [str(dim) for value in graph.inputs for dim in _shape(value) if not dims.is_static(dim)]
    if not symbols:
        return False
    with dims.equations() as equations:
        for node in graph.nodes:
            inferred_types(node)
            if not (has_expression(node) or all(dims.all_static(_shape(value)) for value in node.operands)):
                with contextlib.suppress(UnsupportedOperatorError):  # told when nobody claims the node
                    decompose(alone(node))  # what it is made of says which sizes it wants to be equal
    solved = _solve(equations, frozenset(symbols))
    for value in _values(graph) if solved else ():
        _substitute(value, solved)
    return bool(solved)


def _shape(value: Value) -> tuple[Dim, ...]:
    return value.type.shape or () if isinstance(value.type, TensorType) else ()


def _solve(equations: Iterable[tuple[Dim, Dim]], symbols: frozenset[str]) -> dict[str, Dim]:
    """What each symbol is replaced by. The right sides hold no symbol that is replaced itself."""
    solved: dict[str, Dim] = {}
    for equation in dict.fromkeys(equations):
        first, second = (dims.substitute(side, solved) for side in equation)
        if dims.is_static(first) and dims.is_static(second):
            if first != second and 1 not in (first, second):
                left, right = equation
                raise ShapeError(
                    f"sizes {left} and {right} have to be equal, and other operators make them {first} and {second}"
                )
            continue
        for name, size in _isolated(first, second, symbols):
            solved = {key: dims.substitute(value, {name: size}) for key, value in solved.items()} | {name: size}
            break
    return solved


def _isolated(first: Dim, second: Dim, symbols: frozenset[str]) -> Iterator[tuple[str, Dim]]:
    """The solutions of `first == second` for a symbol, of sizes of the inputs alone: first a side that is one."""
    names = dims.symbols_of(dims.simplified(first - second))
    if not symbols.issuperset(names):
        return
    for own, other in ((second, first), (first, second)):
        if str(own) in names and str(own) not in dims.symbols_of(other):
            yield str(own), other
    for name in names:
        constant = dims.substitute(first - second, {name: 0})
        factor = dims.simplified(dims.substitute(first - second, {name: 1}) - constant)
        linear = dims.same(factor * dims.symbol(name) + constant, first - second)
        if linear and dims.is_static(factor) and dims.is_static(constant) and -constant % factor == 0:
            yield name, -constant // factor


def _values(graph: Graph) -> Iterator[Value]:
    """All values of a graph and of the graphs inside it."""
    yield from graph.values()
    for node in graph.nodes:
        for attribute in node.attributes.values():
            if isinstance(attribute, Graph):
                yield from _values(attribute)


def _substitute(value: Value, sizes: Mapping[str, Dim]) -> None:
    if isinstance(value.type, TensorType) and value.type.shape is not None:
        shape = tuple(dims.substitute(dim, sizes) for dim in value.type.shape)
        value.type = TensorType(value.type.dtype, shape)
    if value.known is not None:
        known = np.empty(value.known.shape, dtype=object)
        for position in np.ndindex(known.shape):
            known[position] = dims.substitute(value.known[position], sizes)
        value.known = known
