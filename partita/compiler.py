"""The compiler: a model in, one module out. One function; each line is a stage of docs/architecture.md."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from partita.backends import discovery
from partita.backends.base import FAST_MATH, Backend
from partita.backends.source import identifier
from partita.errors import BackendError, PartitaError
from partita.ir.graph import Graph
from partita.ir.nested import graphs
from partita.ir.read_onnx import ModelSource, Shapes, read_onnx
from partita.ir.region import Region, regions
from partita.passes import pipeline
from partita.passes.bind import BindProgram
from partita.passes.partition import partition
from partita.passes.plan_memory import MemoryPlan, plan_memory
from partita.passes.schedule import schedule
from partita.recall import Compiled, Recall
from partita.runtime import BuildOptions, CSourceModule, InterpretedModule, MetadataModule, value_digest

RegionModule = CSourceModule | InterpretedModule


def compile(
    model: ModelSource,
    targets: Sequence[str] = (),
    shapes: Shapes | None = None,
    *,
    name: str | None = None,
    build: BuildOptions | None = None,
    fast_math: Collection[str] = (),
    dump: Path | None = None,
) -> MetadataModule:
    """Compiles an ONNX model.

    Args:
        model: a path, the bytes of a model, or an onnx.ModelProto.
        targets: accelerators by priority; the host takes what they refuse.
        shapes: fixes input shapes, by name: a number fixes a dimension, a text names a symbolic one, None leaves it.
        name: what symbols and files are named after; the file's or the graph's name if not given.
        build: the C compiler, its target and its flags.
        fast_math: faster algorithms with larger errors: "strassen" for large matrix products by known weights.
        dump: a folder for every intermediate graph, as .onnx and as text.

    Returns:
        A module to run here or to export.

    Raises:
        ModelError, ShapeError: the model is malformed, or its shapes contradict each other.
        UnsupportedOperatorError: some nodes run on no backend; the message lists all of them.
        BackendError: a target, or an algorithm of `fast_math`, is unknown, or lacks what it needs on this machine.
    """
    build = build or BuildOptions()
    backends = _backends(targets, build, fast_math)
    graph = read_onnx(model, shapes)
    symbol = identifier(name or _default_name(model, graph))
    recall = Recall(graph, symbol, shapes or {}, build, fast_math) if not targets and dump is None else None
    recalled = recall.get() if recall else None
    if recalled is not None:
        return recalled
    pipeline.prepare(graph, dump=dump)
    bound = BindProgram(graph)
    bound.hoist(graph)
    decisions = partition(graph, backends, symbol)
    operators = {region.symbol: len(region.body.nodes) for region in regions(graph)}
    if dump is not None:
        pipeline.dump_stage(graph, dump, "partition")
    lower(graph, backends, bound)
    if dump is not None:
        pipeline.dump_stage(graph, dump, "lower")
    plan = plan_memory(graph, {backend.name: backend for backend in backends})
    modules = emit(graph, backends, plan)
    bound.finish(graph, table(graph, plan, modules))
    extras = {
        "model": graph.name,
        "arena_lower_bound": plan.lower_bound,
        "decisions": [[d.node, d.op_type, d.backend, d.refusals] for d in decisions],
        "operators": operators,
    }
    compiled = wrap(graph, bound, plan, modules, symbol=symbol, extras=extras)
    if recall:
        recall.put(compiled)
    return compiled.bound({name: weight.array for name, weight in bound.weights.items()}, build)


def _backends(targets: Sequence[str], build: BuildOptions, fast_math: Collection[str]) -> list[Backend]:
    """The backends for these targets, told what the user wants."""
    unknown = sorted(set(fast_math).difference(FAST_MATH))
    if unknown:
        known = ", ".join(map(repr, FAST_MATH))
        raise BackendError(f"fast_math has no {', '.join(map(repr, unknown))}; there is {known}")
    backends = discovery.backends(targets)
    for backend in backends:
        backend.mcpu, backend.fast_math = build.mcpu, frozenset(fast_math)
    return backends


def lower(graph: Graph, backends: Sequence[Backend], bound: BindProgram) -> None:
    """Lets each backend rewrite its regions, then moves to bind time what depends on parameters alone."""
    by_name = {backend.name: backend for backend in backends}
    for region in regions(graph):
        with _blaming(by_name[region.backend], region):
            by_name[region.backend].lower(region.body)
        for body in graphs(region.body):
            bound.hoist(body)


def emit(graph: Graph, backends: Sequence[Backend], plan: MemoryPlan) -> list[RegionModule]:
    """The modules: the host's first, then one per region of the others. A function less than claimed is an error."""
    *accelerators, host = backends
    by_name = {backend.name: backend for backend in accelerators}
    mine = [region for region in regions(graph) if region.backend == host.name]
    modules = [_emitted(host, mine, plan)]
    for region in regions(graph):
        if region.backend in by_name:
            modules.append(_emitted(by_name[region.backend], [region], plan))
    return modules


def _emitted(backend: Backend, wanted: Sequence[Region], plan: MemoryPlan) -> RegionModule:
    with _blaming(backend, *wanted):
        module = backend.emit(wanted, plan)
    missing = {region.symbol for region in wanted} - {function.symbol for function in module.functions}
    if missing:
        raise BackendError(f"backend {backend.name!r} claimed {', '.join(sorted(missing))} but emitted nothing for it")
    return module


def table(graph: Graph, plan: MemoryPlan, modules: Sequence[RegionModule]) -> list[str]:
    """The names of the table's entries: what the functions want, and what crosses a border as a view of a parameter."""
    wanted = [name for module in modules for function in module.functions for name in function.constants]
    borders = [value for region in regions(graph) for value in (*region.node.operands, *region.node.outputs)]
    buffers = [plan.buffer(value) for value in (*borders, *graph.outputs) if value in plan.buffer_of]
    return list(dict.fromkeys([*wanted, *(buffer.constant for buffer in buffers if buffer.constant)]))


class _blaming:
    """Names the backend and its regions in whatever it raises."""

    def __init__(self, backend: Backend, *wanted: Region) -> None:
        self.backend = backend
        self.wanted = wanted

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, PartitaError):
            where = ", ".join(region.symbol for region in self.wanted)
            what = f"{type(error).__name__}: {error}"
            raise BackendError(f"backend {self.backend.name!r} failed on {where}: {what}") from error


def wrap(
    graph: Graph,
    bound: BindProgram,
    plan: MemoryPlan,
    modules: Sequence[RegionModule],
    *,
    symbol: str,
    extras: Mapping[str, Any],
) -> Compiled:
    """The schedule, the modules of the regions, and the program that computes their table."""
    functions = {function.symbol: function for module in modules for function in module.functions}
    interpreted = frozenset(m.symbol for m in modules if isinstance(m, InterpretedModule))
    baked = [(name, value_digest(weight.array)) for name, weight in sorted(bound.weights.items()) if weight.baked]
    program = schedule(graph, plan, functions, interpreted, symbol=symbol, table=bound.entries, baked=baked)
    return Compiled(program, tuple(modules), bound.to_bytes(), tuple(bound.weights), extras)


def _default_name(model: ModelSource, graph: Graph) -> str:
    return Path(model).stem if isinstance(model, str | Path) else graph.name
