"""What was compiled before, taken from the user's cache when nothing but weights can have changed since.

A compiled model, its weights apart, depends on the model's structure, the options, this machine and Partita itself:
all of them make the key. On weights it depends only where the compiler looked at them; those are baked, and one that
differs is a miss. So the table alone is computed anew, as it is when other weights are bound.

An entry is a pickle: like the libraries in the same folder, which are executed too, it is read only where it is the
user's own, and whole.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import platform
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import onnx

from partita.errors import ParameterError
from partita.ir.graph import Graph
from partita.runtime import BuildOptions, CSourceModule, InterpretedModule, MetadataModule, Program, table_of
from partita.runtime.artifact import features_here
from partita.runtime.cache import content_key, user_cache

Weights = Mapping[str, np.ndarray[Any, Any]]
LARGEST = 64 << 20  # bytes of an entry: constants of a model may be large


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled model without its weights, of which it wants those in `weights`."""

    program: Program
    modules: tuple[CSourceModule | InterpretedModule, ...]
    bind_program: bytes
    weights: tuple[str, ...]
    extras: Mapping[str, Any]

    def bound(self, weights: Weights, build: BuildOptions) -> MetadataModule:
        """The module, with a table computed from the model's weights.

        Raises:
            ParameterError: the compiler looked at other values than these.
        """
        table = table_of(self.program, self.bind_program, weights)
        return MetadataModule(
            self.program, self.modules, table, bind_program=self.bind_program, extras=self.extras, build=build
        )


class Recall:
    """The place in the cache of what one model is compiled to, where there is such a place."""

    def __init__(
        self,
        graph: Graph,
        symbol: str,
        shapes: Mapping[str, Sequence[int | str | None]],
        build: BuildOptions,
        fast_math: Collection[str] = (),
    ) -> None:
        """Finds the place for `graph`, as it was read: what its backends are must follow from the options."""
        self.build = build
        self.cache = user_cache() if build.cache and graph.digest else None
        self.parameters = {value.name: parameter for value, parameter in graph.parameters.items()}
        sizes = sorted((name, tuple(sizes)) for name, sizes in shapes.items())
        options = repr((sizes, symbol, replace(build, jobs=0), sorted(fast_math)))
        self.key = content_key("model", graph.digest, options, _environment()) if self.cache else ""

    def get(self) -> MetadataModule | None:
        """What was kept, with this model's weights."""
        data = self.cache.get(self.key) if self.cache else None
        if data is None:
            return None
        compiled: Compiled = pickle.loads(data)
        try:
            return compiled.bound({name: self.parameters[name].array for name in compiled.weights}, self.build)
        except ParameterError:  # a weight that the compiler looked at is another now
            return None

    def put(self, compiled: Compiled) -> None:
        if self.cache is not None:
            data = pickle.dumps(compiled)
            if len(data) <= LARGEST:
                self.cache.put(self.key, data)
                self.cache.trim()


@functools.cache
def _environment() -> str:
    """Everything but the model and the options that decides what a model is compiled to."""
    folder = Path(__file__).parent
    sources = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".c", ".h"))
    digests = (hashlib.sha256(path.read_bytes()).hexdigest() for path in sources)
    versions = (sys.version, onnx.__version__, np.__version__, networkx.__version__, platform.machine())
    return content_key(*versions, *sorted(features_here()), *map(str, sources), *digests)
