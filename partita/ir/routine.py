"""What an operator does as one call of a function that a backend brings: where it is no matter of loops and numbers,
but of strings, trees or random numbers."""

from __future__ import annotations

from dataclasses import dataclass

from partita.ir.dims import Dim
from partita.ir.graph import Value

Argument = Value | Dim | float | str
"""A tensor's data; a size; a number of the program's; a text of the program's."""


@dataclass(frozen=True, eq=False, slots=True)
class Routine:
    """`function(begin, end, *arguments)`, of the backend's library `library`, computes the rows [begin, end) of `rows`:
    these touch different elements of the outputs, so that they may run side by side, cut anywhere. `cost` is of one
    row, in nanoseconds, roughly."""

    library: str
    function: str
    rows: Dim
    arguments: tuple[Argument, ...]
    cost: float = 100.0
