"""What code generation must know of the machine that will run the code: the width of its vectors."""

from __future__ import annotations

import functools
import platform
from pathlib import Path

WIDTHS = {"x86-64-v4": 16, "x86-64-v3": 8, "x86-64-v2": 4, "x86-64": 4}  # floats in a vector
FLAGS = (("avx512f", 16), ("avx2", 8))


def vector_width(mcpu: str) -> int:
    """Floats in a vector register of `mcpu`; 4 where nothing better is known."""
    if mcpu in ("native", ""):
        return _native_width() if mcpu else 4
    if mcpu in WIDTHS:
        return WIDTHS[mcpu]
    wide = ("skylake-avx512", "cascadelake", "icelake", "sapphirerapids", "znver4", "znver5")
    return 16 if mcpu.startswith(wide) else 8 if mcpu.startswith(("haswell", "skylake", "znver")) else 4


@functools.cache
def _native_width() -> int:
    if platform.machine() not in ("x86_64", "AMD64"):
        return 4
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return 4
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return next((width for flag, width in FLAGS if flag in flags), 4)
