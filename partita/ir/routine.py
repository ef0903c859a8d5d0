"""What an operator does as one call of a function that a backend brings: where it is no matter of loops and numbers,
but of strings or random numbers."""

from __future__ import annotations

from dataclasses import dataclass

from partita.ir.dims import Dim
from partita.ir.graph import Value
from partita.ir.types import TensorType

Argument = Value | Dim | float | str
"""A tensor's data; a size; a number of the program's; a text of the program's."""


@dataclass(frozen=True, eq=False, slots=True)
class Routine:
    """`function(begin, end, *arguments, *outputs)` of the backend's library `library` computes the rows [begin, end) of
    `rows`: these touch different elements of the outputs, so that they may run side by side, cut anywhere. The types of
    the outputs are `results`. `cost` is of one row, in nanoseconds, roughly."""

    library: str
    function: str
    rows: Dim
    arguments: tuple[Argument, ...]
    results: tuple[TensorType, ...]
    cost: float = 100.0
