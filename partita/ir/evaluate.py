"""What a graph computes, by ONNX's reference implementation: slow, and the judge of what passes do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from partita.errors import ExecutionError
from partita.ir.graph import Graph
from partita.ir.operators.internal import DOMAIN
from partita.ir.write_onnx import write_onnx

Array = np.ndarray[Any, Any]


def evaluate(graph: Graph, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs by name, for inputs by name. Regions and fused nodes run as what their bodies say."""
    session = ReferenceEvaluator(write_onnx(graph), new_ops=[Observe, Range, Slice, Pad, Reduce])
    arrays = {name: np.asarray(value) if np.isscalar(value) else value for name, value in inputs.items()}
    results = session.run(None, arrays)
    return {output.name: result for output, result in zip(graph.outputs, results, strict=True)}


# ---------------------------------------------------------------------- operators of the domain `partita`
# ONNX's evaluator finds an operator by the name of its class.


class Observe(OpRun):
    op_domain = DOMAIN

    def _run(self, sizes: Array, valid: Array | None = None, symbols: Any = None, message: str = "") -> tuple[Array]:
        if valid is not None and not valid.all():
            raise ExecutionError(message)
        return (sizes,)


class Range(OpRun):
    op_domain = DOMAIN

    def _run(self, start: Array, delta: Array, sizes: Array, stash_type: int = 1) -> tuple[Array]:
        return ((start + np.arange(sizes.item()).astype(start.dtype) * delta).astype(start.dtype),)


class Slice(OpRun):
    op_domain = DOMAIN

    def _run(self, x: Array, start: Array, step: Array, sizes: Array) -> tuple[Array]:
        places = [a + np.arange(n) * b for a, b, n in zip(start, step, sizes, strict=True)]
        return (x[np.ix_(*places)] if places else x,)


class Pad(OpRun):
    op_domain = DOMAIN

    def _run(
        self, x: Array, before: Array, sizes: Array, fill: Array | None = None, mode: str = "constant"
    ) -> tuple[Array]:
        """By ONNX's rule for each axis on its own: cut what is negative, pad the rest."""
        after = sizes - before - np.asarray(x.shape, dtype=np.int64)
        cut = tuple(slice(max(-b, 0), n - max(-a, 0)) for b, a, n in zip(before, after, x.shape, strict=True))
        pads = [(max(int(b), 0), max(int(a), 0)) for b, a in zip(before, after, strict=True)]
        if mode == "constant":
            return (np.pad(x[cut], pads, constant_values=x.dtype.type(0) if fill is None else fill.item()),)
        return (np.pad(x[cut], pads, mode=mode),)  # type: ignore[call-overload]


class Reduce(OpRun):
    op_domain = DOMAIN

    def _run(self, x: Array, inner: Array, outer: Array, operator: str = "") -> tuple[Array]:
        axes = np.asarray([n for n, size in enumerate(outer) if size == 1 and inner[n] == x.shape[n]], dtype=np.int64)
        node = helper.make_node(operator, ["x", "axes"], ["y"], keepdims=1, noop_with_empty_axes=1)
        result: Any = ReferenceEvaluator(node).run(None, {"x": x, "axes": axes})
        return (result[0],)
