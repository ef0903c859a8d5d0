"""The executor interface: set inputs, run, get outputs; after the one of graph executors elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from partita.errors import ExecutionError, InputError
from partita.runtime.program import Program
from partita.runtime.table import Array

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True, slots=True)
class Device:
    """Where a model runs. `kind` is "cpu"; accelerators are the regions' own matter."""

    kind: str
    device_id: int = 0


def cpu(device_id: int = 0) -> Device:
    """The host."""
    return Device("cpu", device_id)


class Executor:
    """One model on one device: `executor["set_input"]("x", array)`, `executor["run"]()`, `executor["get_output"](0)`.

    The same are its methods.
    """

    def __init__(self, program: Program, run: Run, device: Device) -> None:
        if device.kind != "cpu":
            raise InputError(f"device {device.kind!r} is unknown: there is cpu()")
        self.device = device
        self._program = program
        self._run = run
        self._inputs: dict[str, Array] = {}
        self._outputs: dict[str, Array] | None = None
        self._functions: Mapping[str, Callable[..., Any]] = MappingProxyType(
            {
                "set_input": self.set_input,
                "run": self.run,
                "get_output": self.get_output,
                "get_num_inputs": self.get_num_inputs,
                "get_num_outputs": self.get_num_outputs,
            }
        )

    def __getitem__(self, name: str) -> Callable[..., Any]:
        """A function by name.

        Raises:
            KeyError: there is none of this name.
        """
        return self._functions[name]

    def set_input(self, name: str | int, array: Array) -> None:
        """Sets an input, by name or position. It is read when the model runs.

        Raises:
            InputError: there is no such input.
        """
        names = self._program.input_names
        if isinstance(name, int) and 0 <= name < len(names):
            name = names[name]
        if name not in names:
            raise InputError(f"there is no input {name!r}: there are {', '.join(map(repr, names))}")
        self._inputs[str(name)] = array

    def run(self, **inputs: Array) -> None:
        """Runs the model on the inputs set, and on those given here.

        Raises:
            InputError: an input is missing or does not fit.
            ExecutionError: a region failed.
        """
        for name, array in inputs.items():
            self.set_input(name, array)
        self._outputs = self._run(self._inputs)

    def get_output(self, index: int) -> Array:
        """An output of the last run, by position.

        Raises:
            ExecutionError: nothing has run yet.
            InputError: there is no such output.
        """
        if self._outputs is None:
            raise ExecutionError("there are no outputs yet: run first")
        names = self._program.output_names
        if not 0 <= index < len(names):
            raise InputError(f"there is no output {index}: there are {len(names)}")
        return self._outputs[names[index]]

    def get_num_inputs(self) -> int:
        """How many inputs the model has."""
        return len(self._program.inputs)

    def get_num_outputs(self) -> int:
        """How many outputs the model has."""
        return len(self._program.outputs)
