"""The operators: one definition each, one file a family."""

from partita.ir.operators import (
    contraction,
    elementwise,
    internal,
    movement,
    normalization,
    pooling,
    reduction,
    shape,
)
from partita.ir.operators.registry import Operator, definition, definitions, known, operator

__all__ = [
    "Operator",
    "contraction",
    "definition",
    "definitions",
    "elementwise",
    "internal",
    "known",
    "movement",
    "normalization",
    "operator",
    "pooling",
    "reduction",
    "shape",
]
