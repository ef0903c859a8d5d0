"""What a module that is compiled in this process and one that was loaded have in common: they run."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from partita.errors import ExecutionError
from partita.runtime.engines import Engine, EngineFactory, make_engine
from partita.runtime.executor import Device, Executor
from partita.runtime.instance import Instance
from partita.runtime.profile import PROFILE_FLAG, KernelNote, KernelTime, profiled
from partita.runtime.program import Program
from partita.runtime.table import Array

RegionFunction = Callable[..., tuple[Any, ...]]


class RunnableModule(ABC):
    """A module with a program, a table and code. Its first use opens an instance, which stays until `close`."""

    type_key = "metadata"

    def __init__(self, program: Program, threads: int | None, engines: Mapping[str, EngineFactory]) -> None:
        self.program = program
        self.threads = threads
        self._engines = engines
        self._lock = threading.Lock()
        self._instance: Instance | None = None
        self._is_closed = False

    @property
    @abstractmethod
    def params(self) -> Mapping[str, Array]:
        """The parameter table by name, read-only."""

    @abstractmethod
    def open_instance(self, threads: int | None = None) -> Instance:
        """A further instance, which shares the code and the weights with this one and nothing else.

        Raises:
            ArtifactError, ExecutionError: see `Instance`.
        """

    @property
    @abstractmethod
    def kernels(self) -> Mapping[str, tuple[KernelNote, ...]]:
        """What each region in C calls, in order, by the region's symbol; not every backend says."""

    @property
    @abstractmethod
    def flags(self) -> tuple[str, ...]:
        """What the C was compiled with."""

    @abstractmethod
    def interpreted(self, symbol: str) -> tuple[str, bytes]:
        """Engine and model (bytes of an ONNX ModelProto) of an interpreted region."""

    @abstractmethod
    def bind(self, parameters: Mapping[str, Array]) -> RunnableModule:
        """The same code with a table computed from other parameters; needs no C compiler.

        Raises:
            ParameterError: parameters are missing or do not fit, or a value that the compiler looked at differs.
        """

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the model: see `Instance.run`."""
        return (self._instance or self._opened()).run(inputs)

    def get_function(self, symbol: str) -> RegionFunction:
        """The function of one region: arrays in, a tuple of arrays out.

        The lookup initializes that region and no other.

        Raises:
            KeyError: there is no such region.
            ExecutionError: its init failed; looking it up again tries again.
        """
        for index, region in enumerate(self.program.regions):
            if region.symbol == symbol:
                instance = self._opened()
                instance.lookup(index)
                return lambda *arrays: instance.run_region(index, arrays)
        raise KeyError(f"no region {symbol!r}: there are {', '.join(r.symbol for r in self.program.regions)}")

    def __getitem__(self, name: str) -> Callable[[Device], Executor]:
        """`module["default"](cpu())` makes an executor.

        Raises:
            KeyError: the name is not "default".
        """
        if name != "default":
            raise KeyError(f"no factory {name!r}: there is 'default'")
        return partial(Executor, self.program, self.run)

    def profile(self, inputs: Mapping[str, Array], *, runs: int = 20) -> list[KernelTime]:
        """What each kernel takes: the median of some runs, in the order of the schedule.

        Raises:
            ExecutionError: the C was not compiled with PROFILE_FLAG.
        """
        if PROFILE_FLAG not in self.flags:
            raise ExecutionError(
                f"{self.program.symbol} was not compiled to be profiled: compile it with "
                f"build=partita.BuildOptions(flags=({PROFILE_FLAG!r},)), or run `partita profile model.onnx`"
            )
        return profiled(self._opened(), self.program, self.kernels, inputs, runs)

    def thread_count(self) -> int:
        """How many threads it runs on."""
        return self._opened().thread_count()

    @property
    def arena_bytes(self) -> int:
        """Size of the arena as allocated now, in bytes."""
        return self._opened().arena_bytes()

    def close(self) -> None:
        """Gives back the instance. Later runs raise ExecutionError; closing again does nothing."""
        with self._lock:
            self._is_closed = True
            instance = self._instance
        if instance is not None:
            instance.close()

    def __enter__(self) -> RunnableModule:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _opened(self) -> Instance:
        with self._lock:
            if self._is_closed:
                raise ExecutionError(f"{self.program.symbol} is closed")
            if self._instance is None:
                self._instance = self.open_instance(self.threads)
            return self._instance

    def _interpreter(self) -> Callable[[int, Sequence[Array]], Sequence[Array]]:
        """Runs interpreted regions for one instance, on engines made at their first use. Does not hold on to self."""
        regions, params, further = self.program.regions, self.params, self._engines
        models = {i: self.interpreted(region.symbol) for i, region in enumerate(regions) if region.interpreted}
        engines: dict[int, Engine] = {}

        def run(index: int, inputs: Sequence[Array]) -> Sequence[Array]:
            if index not in engines:
                engines[index] = make_engine(*models[index], further)
            return engines[index]([*inputs, *(params[name] for name in regions[index].constants)])

        return run
