"""Where a model's time goes: what each kernel took, and what it had to do.

Regions tell it when they were compiled with PROFILE_FLAG: the clock is read between kernels, about 50 ns each.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from partita.runtime.instance import Instance
from partita.runtime.program import Program
from partita.runtime.table import Array

PROFILE_FLAG = "-DPARTITA_PROFILE"


@dataclass(frozen=True, slots=True)
class KernelNote:
    """What a region calls.

    Attributes:
        name: of the node.
        operators: what it computes, such as "Conv + Relu".
        function: in the generated C.
        operations: additions and multiplications of the definition, whatever the kernel does instead.
        bytes: of its operands and results, each once.
    """

    name: str
    operators: str
    function: str
    operations: int
    bytes: int


@dataclass(frozen=True, slots=True)
class KernelTime:
    """A kernel and what it took, in seconds."""

    region: str
    note: KernelNote
    seconds: float


def profiled(
    instance: Instance,
    program: Program,
    kernels: Mapping[str, tuple[KernelNote, ...]],
    inputs: Mapping[str, Array],
    runs: int,
) -> list[KernelTime]:
    """The kernels in the order they run, each with its median over the runs, after two to warm up."""
    regions = [(number, region.symbol, kernels.get(region.symbol, ())) for number, region in enumerate(program.regions)]
    samples: list[list[list[int]]] = []
    for run in range(runs + 2):
        instance.run(inputs)
        spent = [instance.spent(number, len(notes)) for number, _, notes in regions]
        if run >= 2:
            samples.append(spent)
    return [
        KernelTime(symbol, note, statistics.median(sample[place][kernel] for sample in samples) / 1e9)
        for place, (_, symbol, notes) in enumerate(regions)
        for kernel, note in enumerate(notes)
    ]
