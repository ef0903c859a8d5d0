"""What a graph computes, by ONNX's reference implementation: slow, and the judge of what passes do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx.reference import ReferenceEvaluator

from partita.ir.graph import Graph
from partita.ir.write_onnx import write_onnx


def evaluate(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs by name, for inputs by name. Regions and fused nodes run as what their bodies say."""
    session = ReferenceEvaluator(write_onnx(graph))
    results = session.run(
        None, {name: np.asarray(value) if np.isscalar(value) else value for name, value in inputs.items()}
    )
    return {output.name: result for output, result in zip(graph.outputs, results, strict=True)}
