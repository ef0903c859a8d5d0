"""Which passes run, in which order, and why.

Before partitioning:

1. `canonicalize`: everything after it knows one meaning per operator, and the type of every value.
2. `unify_sizes`: sizes of the inputs that have to be equal get one name, before anything relies on it.
3. the simplifications, until none finds anything: each makes work for the others. Shape arithmetic turns into
   constants (`simplify_shapes`), which makes operators no-ops (`simplify_algebra`), which leaves nodes unread
   (`dead_code`) and others equal (`common_subexpressions`).
4. `recognize_gelu`, whose constants the simplifications have bared, before anything is folded into weights.
5. `hoist_scale` and `fold_scale`, once nothing stands between a convolution or product and what scales it; then the
   simplifications for what they made: equal parameters, folded alike, become one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx

from partita.errors import VerificationError
from partita.ir.graph import Graph
from partita.ir.verify import verify as verify_graph
from partita.ir.write_onnx import write_onnx
from partita.passes.canonicalize import canonicalize
from partita.passes.common_subexpressions import common_subexpressions
from partita.passes.dead_code import dead_code
from partita.passes.fold_scale import fold_scale
from partita.passes.hoist_scale import hoist_scale
from partita.passes.recognize_gelu import recognize_gelu
from partita.passes.simplify_algebra import simplify_algebra
from partita.passes.simplify_shapes import simplify_shapes
from partita.passes.unify_sizes import unify_sizes

Pass = Callable[[Graph], bool]
"""A transformation of a graph, in place. It tells whether it changed anything; its name is the function's."""

SIMPLIFICATIONS: tuple[Pass, ...] = (simplify_shapes, simplify_algebra, common_subexpressions, dead_code)
MOST_ROUNDS = 1000  # far more than any model takes: a chain of n views takes n rounds at worst


def run_passes(
    graph: Graph,
    passes: Sequence[Pass],
    *,
    verify: bool = False,
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
        if did and verify:
            _verify_after(graph, function)
        if did and dump is not None:
            dump_stage(graph, dump, function.__name__)
        changed |= did
    return changed


def _verify_after(graph: Graph, function: Pass) -> None:
    try:
        verify_graph(graph)
    except VerificationError as error:
        raise VerificationError(f"after {function.__name__}:\n{error}") from error


def simplify(
    graph: Graph, *, verify: bool = False, dump: Path | None = None, timings: dict[str, float] | None = None
) -> bool:
    """The simplifications, again and again until none finds anything."""
    changed = False
    for _ in range(MOST_ROUNDS):
        if not run_passes(graph, SIMPLIFICATIONS, verify=verify, dump=dump, timings=timings):
            return changed
        changed = True
    raise VerificationError(f"graph {graph.name!r}: the simplifications undo each other, without an end")


def prepare(
    graph: Graph, *, verify: bool = False, dump: Path | None = None, timings: dict[str, float] | None = None
) -> bool:
    """From a model as it was read to one that can be partitioned."""
    changed = run_passes(graph, [canonicalize, unify_sizes], verify=verify, dump=dump, timings=timings)
    changed |= simplify(graph, verify=verify, dump=dump, timings=timings)
    if run_passes(graph, [recognize_gelu, hoist_scale, fold_scale], verify=verify, dump=dump, timings=timings):
        simplify(graph, verify=verify, dump=dump, timings=timings)
        changed = True
    return changed


def dump_stage(graph: Graph, folder: Path, name: str) -> None:
    """Writes the graph as `NN_name.onnx`, for Netron or a peer, and as text. Weights are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.onnx")))
    model = write_onnx(graph, weights=False)
    stem = folder / f"{number:02}_{re.sub('[^A-Za-z0-9_]', '_', name)}"
    onnx.save(model, stem.with_suffix(".onnx"))
    stem.with_suffix(".txt").write_text(onnx.printer.to_text(model))
