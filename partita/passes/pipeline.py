"""Which passes run, in which order, and why.

Before partitioning:

1. `canonicalize`: everything after it knows one meaning per operator, and the type of every value.
2. the simplifications, until none finds anything: each makes work for the others. Shape arithmetic turns into
   constants (`simplify_shapes`), which makes operators no-ops (`simplify_algebra`), which leaves nodes unread
   (`dead_code`) and others equal (`common_subexpressions`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from partita.ir.graph import Graph
from partita.ir.write_onnx import write_onnx
from partita.passes.canonicalize import canonicalize
from partita.passes.fold_batch_normalization import fold_batch_normalization

Transformation = Callable[[Graph], bool]


@dataclass(frozen=True, slots=True)
class Pass:
    """A transformation of graphs, in place. It tells whether it changed anything."""

    run: Transformation

    @property
    def name(self) -> str:
        return self.run.__name__


SIMPLIFICATIONS: tuple[Transformation, ...] = ()


def run_passes(
    graph: Graph,
    passes: Sequence[Transformation],
    *,
    verify: bool = True,
    dump: Path | None = None,
    timings: dict[str, float] | None = None,
) -> bool:
    """Runs `passes` once, in order; whether any changed the graph. With `verify`, the graph is checked after each that
    did; with `dump`, every stage is written there as .onnx and as text; `timings` gets the seconds a pass took."""
    changed = False
    for function in passes:
        start = time.perf_counter()
        did = function(graph)
        if timings is not None:
            timings[function.__name__] = timings.get(function.__name__, 0.0) + time.perf_counter() - start
        if did and dump is not None:
            dump_stage(graph, dump, function.__name__)
        changed |= did
    return changed


def simplify(graph: Graph, **options: object) -> bool:
    """The simplifications, again and again until none finds anything."""
    changed = False
    while run_passes(graph, SIMPLIFICATIONS):
        changed = True
    return changed


def prepare(graph: Graph) -> bool:
    """From a model as it was read to one that can be partitioned."""
    return bool(run_passes(graph, [canonicalize, simplify, fold_batch_normalization]))


def dump_stage(graph: Graph, folder: Path, name: str) -> None:
    """Writes the graph as `NN_name.onnx`, for Netron or a peer, and as text. Weights are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.onnx")))
    model = write_onnx(graph, weights=False)
    stem = folder / f"{number:02}_{re.sub('[^A-Za-z0-9_]', '_', name)}"
    onnx.save(model, stem.with_suffix(".onnx"))
    stem.with_suffix(".txt").write_text(onnx.printer.to_text(model))
