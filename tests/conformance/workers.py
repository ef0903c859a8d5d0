"""Runs cases: many models in one shared library, in processes that may die without taking the run along.

A worker takes a batch of cases: it compiles the models, builds one library of all their C (symbols are per model), runs
each case and tells its outcome as soon as it knows. When a worker dies or hangs, the case it was at has failed, and
another worker goes on with the rest of the batch.
"""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.connection
import os
import subprocess
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx_suite
import sanitizers
from comparison import difference, drawn_difference

import partita
from partita.errors import CompilerError, PartitaError, UnsupportedOperatorError
from partita.runtime import BuildOptions
from partita.runtime.instance import Instance
from partita.runtime.library import Library
from partita.runtime.module import MetadataModule, in_place
from partita.runtime.toolchain import Linking, Source, Toolchain, link_flags, runtime_sources

BATCH = 64
WORKERS = 2
SANITIZER = sanitizers.chosen()
SILENCE = 300 if SANITIZER is None else 3600  # seconds without a word from a worker: it hangs
QUICK = BuildOptions(optimization="-O1", mcpu="", jobs=1)
if SANITIZER is not None:
    QUICK = replace(QUICK, cc=SANITIZER.cc, flags=SANITIZER.flags)
    os.environ.pop("LD_PRELOAD", None)  # it is loaded; compilers run without

PASSED, FAILED, UNSUPPORTED = "passed", "failed", "unsupported"


@dataclass(frozen=True)
class Outcome:
    """What came of a case. `engine`: no generated code ran, as all was known when binding."""

    name: str
    status: str
    detail: str = ""
    engine: bool = False


Message = tuple[str, Outcome | str]  # ("at", name) before a case, ("done", outcome) after it


def run(names: Sequence[str] | None = None, targets: Sequence[str] = ()) -> dict[str, Outcome]:
    """The outcomes of the named cases, or of all."""
    onnx_suite.cases(), _runtime_objects()  # before the workers are forked, who share them
    wanted = list(onnx_suite.cases()) if names is None else list(names)
    batches = [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(lambda batch: list(_run_batch(batch, targets)), batches))
    outcomes = {outcome.name: outcome for batch in found for outcome in batch}
    return {name: outcomes[name] for name in wanted}


def _run_batch(names: Sequence[str], targets: Sequence[str]) -> Iterable[Outcome]:
    pending = list(names)
    while pending:
        for outcome in _run_once(pending, targets):
            pending.remove(outcome.name)
            yield outcome


def _run_once(names: Sequence[str], targets: Sequence[str]) -> Iterable[Outcome]:
    """Outcomes as far as one worker gets."""
    with tempfile.TemporaryDirectory(prefix="partita-conformance-") as folder:
        yield from _run_in(Path(folder), names, targets)


def _run_in(folder: Path, names: Sequence[str], targets: Sequence[str]) -> Iterable[Outcome]:
    """The same, with a folder for what the worker builds: one that is killed leaves nothing behind."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(folder, names, tuple(targets), sender))
    process.start()
    sender.close()
    at = names[0]
    try:
        while True:
            if not receiver.poll(SILENCE):
                yield Outcome(at, FAILED, f"no answer in {SILENCE} seconds")
                return
            kind, content = receiver.recv()
            if kind == "at":
                at = content
            elif kind == "done":
                yield content
            else:
                return
    except EOFError:
        process.join()
        yield Outcome(at, FAILED, f"crashed: the worker ended with code {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _work(
    folder: Path, names: Sequence[str], targets: Sequence[str], sender: multiprocessing.connection.Connection
) -> None:
    warnings.simplefilter("ignore")
    compiled: dict[str, MetadataModule] = {}
    for name in names:
        sender.send(("at", name))
        result = _compile(onnx_suite.cases()[name], targets)
        if isinstance(result, Outcome):
            sender.send(("done", result))
        else:
            compiled[name] = result
    libraries = {} if targets else _build(compiled, folder)
    for name, module in compiled.items():
        sender.send(("at", name))
        library = libraries.get(name)
        result = library if isinstance(library, Outcome) else _check(onnx_suite.cases()[name], module, library)
        sender.send(("done", result))
    sender.send(("end", ""))


def _compile(case: onnx_suite.Case, targets: Sequence[str]) -> MetadataModule | Outcome:
    try:
        build = None if case.kind == "real" and SANITIZER is None else QUICK
        return partita.compile(case.model, targets=list(targets), name=f"case_{case.number}", build=build)
    except UnsupportedOperatorError as error:
        return Outcome(case.name, UNSUPPORTED, str(error))
    except Exception as error:  # whatever it is, it is this case's failure
        return Outcome(case.name, FAILED, f"{type(error).__name__}: {error}")


def _build(modules: dict[str, MetadataModule], folder: Path) -> dict[str, Path | Outcome]:
    """One library of the small models' code; the outcome of those whose C does not compile."""
    toolchain = Toolchain(QUICK)
    objects, result = list(_runtime_objects()), dict[str, Path | Outcome]()
    path = folder / "batch.so"
    for name, module in modules.items():
        if module.build is not QUICK or any(
            getattr(part, "optional_libraries", ()) for part in module.imported_modules
        ):
            continue  # it is compiled for itself
        try:
            objects += [toolchain.compile_source(source) for source in module.sources()]
            result[name] = path
        except CompilerError as error:
            result[name] = Outcome(name, FAILED, f"CompilerError: {error}")
    names = [f"{number}.o" for number in range(len(objects))]
    for name, data in zip(names, objects, strict=True):
        (folder / name).write_bytes(data)
    command = [*toolchain.command, *QUICK.flags, "-o", path.name, *names, *link_flags(Linking())]
    subprocess.run(command, cwd=folder, check=True)
    for name in names:
        (folder / name).unlink()
    return result


@functools.cache
def _runtime_objects() -> tuple[bytes, ...]:
    files = [Source(name, text) for name, text in runtime_sources().items() if name.endswith(".c")]
    return tuple(Toolchain(QUICK).compile_source(source) for source in files)


def _check(case: onnx_suite.Case, module: MetadataModule, library: Path | None) -> Outcome:
    engine = not any(not region.interpreted for region in module.program.regions)
    try:
        runner: Any = module if library is None else _instance(module, library)
        for inputs, wanted in case.data():
            given = runner.run(inputs)
            outputs = [given[value.name] for value in case.model.graph.output]
            if case.is_random:
                problem = drawn_difference(wanted, outputs)
            else:
                problem = difference(wanted, outputs, case.rtol, case.atol)
            if problem is not None:
                return Outcome(case.name, FAILED, f"outputs: {problem}", engine)
        runner.close()
    except PartitaError as error:
        return Outcome(case.name, FAILED, f"{type(error).__name__}: {error}", engine)
    except Exception as error:
        return Outcome(case.name, FAILED, f"not a PartitaError: {type(error).__name__}: {error}", engine)
    return Outcome(case.name, PASSED, engine=engine)


def _instance(module: MetadataModule, library: Path) -> Instance:
    symbol = module.program.symbol
    constants = list(map(in_place, module.params.values()))
    return Instance(
        Library(library, symbol), module.program, constants=constants, threads=1, interpreter=_no_interpreter
    )


def _no_interpreter(region: int, arrays: Sequence[Any]) -> Sequence[Any]:
    raise AssertionError(f"region {region} of the cpu backend is interpreted")
