"""What code generation must know of the machine that will run the code: its vectors, how wide and how many."""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path

NARROWEST = 8  # channels in a block: shorter ones cost more in addresses than they save in padding
OTHERS = 4  # registers that a tile needs besides its sums: weights, and an element of the input


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of processor: floats in a vector register, and the number of vector registers."""

    width: int
    registers: int

    @property
    def block(self) -> int:
        """Channels in a block of a blocked tensor."""
        return max(self.width, NARROWEST)

    @property
    def sums(self) -> int:
        """Blocks of sums that a register tile keeps: pixels x panels."""
        return (self.registers - OTHERS) // (self.block // self.width)


SSE, AVX2, AVX512, NEON = Target(4, 16), Target(8, 16), Target(16, 32), Target(4, 32)
# What the names that compilers take for -march begin with; the first that fits counts.
NAMES = (
    (("x86-64-v4", "skylake-avx512", "cascadelake", "icelake", "sapphirerapids", "znver4", "znver5"), AVX512),
    (("x86-64-v3", "haswell", "broadwell", "skylake", "alderlake", "znver"), AVX2),
    (("armv8", "armv9", "neoverse", "cortex-a", "apple-m"), NEON),
)
FLAGS = (("avx512f", AVX512), ("avx2", AVX2))  # as Linux names them in /proc/cpuinfo


def target_of(mcpu: str) -> Target:
    """The kind of processor that `mcpu` names: "native" is this machine, "" the least of its kind. One that is unknown
    is taken for the plainest."""
    if mcpu == "native":
        return _native()
    if mcpu == "":
        return _plainest()
    return next((target for names, target in NAMES if mcpu.startswith(names)), SSE)


def _plainest() -> Target:
    return NEON if platform.machine() in ("aarch64", "arm64") else SSE


@functools.cache
def _native() -> Target:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return _plainest()
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return next((target for flag, target in FLAGS if flag in flags), _plainest())
