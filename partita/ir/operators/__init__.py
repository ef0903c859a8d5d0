"""The operators: one definition each, one file a family."""

from partita.ir.operators import (
    contraction,
    control_flow,
    dynamic,
    elementwise,
    indexing,
    internal,
    movement,
    normalization,
    pooling,
    recurrent,
    reduction,
    resampling,
    shape,
    signal,
    training,
)
from partita.ir.operators.registry import Operator, definition, definitions, known, operator

__all__ = [
    "Operator",
    "contraction",
    "control_flow",
    "definition",
    "definitions",
    "dynamic",
    "elementwise",
    "indexing",
    "internal",
    "known",
    "movement",
    "normalization",
    "operator",
    "pooling",
    "recurrent",
    "reduction",
    "resampling",
    "shape",
    "signal",
    "training",
]
