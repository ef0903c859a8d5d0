"""One line that says what was measured on."""

import os
import platform
import re
import subprocess
from pathlib import Path

#: instruction sets worth naming, as /proc/cpuinfo spells them
FEATURES = ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve"]


def describe() -> str:
    """Processor, usable cores, instruction sets, memory, system and C compiler."""
    info = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.M)
    known = set(flags[1].split()) if flags else set()
    total = re.search(r"^MemTotal:\s*(\d+)", _read("/proc/meminfo"), re.M)
    parts = [
        model[1].strip() if model else platform.processor() or platform.machine(),
        f"{cores()} cores",
        " ".join(feature for feature in FEATURES if feature in known),
        f"{int(total[1]) / 2**20:.0f} GiB" if total else "",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        _compiler(),
    ]
    return ", ".join(part for part in parts if part)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _compiler() -> str:
    command = os.environ.get("CC", "cc").split()
    try:
        output = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return output.partition("\n")[0]
