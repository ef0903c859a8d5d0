"""The sanitizers of gcc and clang: which flags ask for them, and which libraries must be loaded before Python.

Where no clang with its libraries is installed, the one in the package `ziglang` finds undefined behaviour; the address
sanitizer's library is not in that package.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

KINDS = ("gcc", "clang")
_VARIABLE = "PARTITA_SANITIZED"
_NO_RECOVERY = ("-fno-sanitize-recover=undefined", "-g1")


@dataclass(frozen=True)
class Sanitizer:
    """`cc` and `flags` build code that ends the process at a finding, once `preload` is loaded."""

    cc: str
    flags: tuple[str, ...]
    preload: tuple[str, ...] = ()


def chosen() -> Sanitizer | None:
    """The sanitizer that this process was restarted for."""
    kind = os.environ.get(_VARIABLE)
    return None if kind is None else find(kind)


def find(kind: str) -> Sanitizer:
    """The sanitizers of `kind`; ends the program where this machine has none."""
    if kind == "gcc":
        libraries = [_file("gcc", name) for name in ("libasan.so", "libubsan.so")]
        if all(libraries):
            return Sanitizer("gcc", ("-fsanitize=address,undefined", *_NO_RECOVERY), tuple(map(str, libraries)))
        sys.exit("gcc, or its sanitizers' libraries, are not installed")
    for cc in _clangs():
        library = _file(cc, "libclang_rt.asan-x86_64.so") or _file(cc, "libclang_rt.asan.so")
        if library:
            flags = ("-fsanitize=address,undefined", "-shared-libsan", *_NO_RECOVERY)
            return Sanitizer(cc, flags, (str(library),))
    if importlib.util.find_spec("ziglang") is not None:
        return Sanitizer(f"{sys.executable} -m ziglang cc", ("-fsanitize=undefined", *_NO_RECOVERY))
    sys.exit("there is neither a clang with its sanitizers' libraries nor the package ziglang")


def restart(kind: str) -> None:
    """Runs this program again with the libraries loaded before all others."""
    environment = {
        **os.environ,
        _VARIABLE: kind,
        "LD_PRELOAD": " ".join(find(kind).preload),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves much for the end of the process
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def _clangs() -> list[str]:
    """The commands named clang or clang-N, the newest first after the plain one."""
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    names = {
        file.name for folder in folders for file in folder.glob("clang-*") if re.fullmatch(r"clang-\d+", file.name)
    }
    return ["clang", *sorted(names, key=lambda name: -int(name.partition("-")[2]))]


def _file(cc: str, name: str) -> Path | None:
    """A library that comes with a compiler."""
    if shutil.which(cc) is None:
        return None
    command = [cc, f"-print-file-name={name}"]
    path = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
    return path if path.is_absolute() and path.exists() else None
