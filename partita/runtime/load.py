"""Loads an artifact: checks it first, maps it then, and rebuilds the module tree it was exported from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from partita.errors import ArtifactError
from partita.runtime.artifact import BIND, Artifact, opened, read_artifact
from partita.runtime.engines import EngineFactory
from partita.runtime.export import rewrite_table
from partita.runtime.instance import Instance
from partita.runtime.library import Library
from partita.runtime.module import Function, InterpretedModule, bind_table, in_place
from partita.runtime.profile import KernelNote
from partita.runtime.runnable import RunnableModule
from partita.runtime.table import Array


@dataclass(frozen=True, slots=True)
class LoadedRegions:
    """Regions in C, compiled: what is left of a CSourceModule in an artifact."""

    backend: str
    functions: tuple[Function, ...]
    kernels: Mapping[str, tuple[KernelNote, ...]]
    type_key: str = "c"


class LoadedModule(RunnableModule):
    """An artifact, mapped and ready to run.

    Attributes:
        artifact: its manifest and where its parts lie.
        imported_modules: the host's module first, then one per region.
    """

    def __init__(
        self,
        artifact: Artifact,
        library: Library,
        *,
        threads: int | None,
        engines: Mapping[str, EngineFactory],
        table: Mapping[str, Array] | None = None,
    ) -> None:
        """Wraps a checked artifact; `table` replaces its own."""
        super().__init__(artifact.program, threads, engines)
        self.artifact = artifact
        self._library = library
        self._table: Mapping[str, Array] = MappingProxyType(dict(artifact.parameters() if table is None else table))
        self.imported_modules = tuple(_module(artifact, item) for item in artifact.manifest["modules"])

    @property
    def params(self) -> Mapping[str, Array]:
        return self._table

    @property
    def bind_program(self) -> bytes:
        """Bytes of an ONNX model from the original parameters to the table's entries."""
        return self.artifact.files.get(BIND, b"")

    @property
    def extras(self) -> Mapping[str, Any]:
        """What the compiler put into the manifest besides."""
        found: Mapping[str, Any] = self.artifact.manifest.get("extras", {})
        return found

    def interpreted(self, symbol: str) -> tuple[str, bytes]:
        for module in self.imported_modules:
            if isinstance(module, InterpretedModule) and module.symbol == symbol:
                return module.engine, module.model
        raise KeyError(symbol)

    @property
    def kernels(self) -> Mapping[str, tuple[KernelNote, ...]]:
        modules = [module for module in self.imported_modules if isinstance(module, LoadedRegions)]
        return {symbol: notes for module in modules for symbol, notes in module.kernels.items()}

    @property
    def flags(self) -> tuple[str, ...]:
        return tuple(self.artifact.manifest.get("flags", ()))

    def open_instance(self, threads: int | None = None) -> Instance:
        return Instance(
            self._library,
            self.program,
            constants=list(map(in_place, self._table.values())),
            threads=threads,
            interpreter=self._interpreter(),
        )

    def bind(self, parameters: Mapping[str, Array]) -> LoadedModule:
        table = bind_table(self.program, self.bind_program, self.params, parameters)
        return LoadedModule(self.artifact, self._library, threads=self.threads, engines=self._engines, table=table)

    def export_library(self, path: str | Path) -> Path:
        """Writes the artifact again, with the table this module has.

        Raises:
            ArtifactError: it cannot be written; what was there stays.
        """
        rewrite_table(self.artifact, Path(path), self.params)
        return Path(path)


def load_module(
    path: str | os.PathLike[str],
    threads: int | None = None,
    *,
    verify: bool = True,
    engines: Mapping[str, EngineFactory] | None = None,
) -> LoadedModule:
    """Loads a compiled model.

    Everything is checked before any of its code is executed: format, machine, sizes, digests, schedule.

    Args:
        path: a `model.so`; a `model.tar` is source and has to be made first.
        threads: how many to run on; None: PARTITA_NUM_THREADS, else all cores this process may use.
        verify: whether to compute the digest of the weights, which reads all of them once.
        engines: further engines for interpreted regions, by name.

    Raises:
        ArtifactError: the file is missing, damaged, of another version or for another machine.
        ParameterError: its table lacks an entry that a region wants.
    """
    path = Path(path).absolute()
    with opened(path) as file:
        artifact = read_artifact(path, file, verify=verify)
        # The very file that was checked, whatever lies under its path by now.
        checked = Path(f"/proc/self/fd/{file.fileno()}")
        library = Library(checked if checked.exists() else path, artifact.program.symbol)
    return LoadedModule(artifact, library, threads=threads, engines=engines or {})


def rebind_artifact(
    path: str | os.PathLike[str], parameters: Mapping[str, Array], target: str | os.PathLike[str] | None = None
) -> Path:
    """Puts other weights into an artifact, in place or at `target`. Runs none of its code and no compiler.

    Args:
        parameters: the model's original parameters by name.

    Raises:
        ArtifactError: it is no sound artifact, or cannot be written.
        ParameterError: the parameters do not fit, or change what the compiler looked at.
    """
    path = Path(path).absolute()
    with opened(path) as file:
        artifact = read_artifact(path, file, verify=False)
    written = Path(target if target is not None else path).absolute()
    bind_program = artifact.files.get(BIND, b"")
    if not bind_program:
        raise ArtifactError(f"{artifact.path}: it has no bind program, so its weights cannot be replaced")
    table = bind_table(artifact.program, bind_program, artifact.parameters(), parameters)
    rewrite_table(artifact, written, table)
    return written


def _module(artifact: Artifact, item: Mapping[str, Any]) -> LoadedRegions | InterpretedModule:
    functions = tuple(Function(**{**entry, "constants": tuple(entry["constants"])}) for entry in item["functions"])
    if item["type_key"] != "interpreted":
        noted = item.get("kernels", {}).items()
        kernels = {symbol: tuple(KernelNote(**note) for note in notes) for symbol, notes in noted}
        return LoadedRegions(item["backend"], functions, kernels)
    model = artifact.files.get(item["file"])
    if model is None:
        raise ArtifactError(f"{artifact.path}: it lacks {item['file']}, a region's graph: compile it again")
    return InterpretedModule(
        backend=item["backend"],
        symbol=functions[0].symbol,
        inputs=tuple(item["inputs"]),
        outputs=tuple(item["outputs"]),
        constants=functions[0].constants,
        model=model,
        engine=item["engine"],
    )
