"""Where oneDNN is: its headers and its library, of version 3."""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

INSTALL = (
    "install oneDNN 3: `pip install onednn-devel-cpu-gomp`, or your system's oneDNN 3 development package; "
    "for a copy elsewhere set PARTITA_DNNL to the folder that has include/ and lib/"
)
_SYSTEM = ("/usr/local", "/usr")
_MAJOR = 3


@dataclass(frozen=True, slots=True)
class DnnlLibrary:
    """A oneDNN that can be compiled and linked against. Folders are empty where the compiler searches anyway."""

    version: str
    prefix: str
    include_directories: tuple[str, ...]
    library_directories: tuple[str, ...]


def find_library() -> DnnlLibrary | str:
    """The first oneDNN 3 among PARTITA_DNNL, the Python environment and the system; else what is missing, in words."""
    unfit: list[str] = []
    for prefix in _prefixes():
        version = _version(prefix)
        if version is None:
            continue
        library = _library_directory(prefix)
        if int(version.split(".")[0]) != _MAJOR:
            unfit.append(f"oneDNN {version} in {prefix} is not version {_MAJOR}, whose C API is another")
        elif library is None:
            unfit.append(f"{prefix} has headers of oneDNN {version}, but no libdnnl.so")
        elif str(prefix) in _SYSTEM:
            return DnnlLibrary(version, str(prefix), (), ())
        else:
            return DnnlLibrary(version, str(prefix), (str(prefix / "include"),), (str(library),))
    return "; ".join([*unfit, INSTALL]) if unfit else f"no oneDNN was found: {INSTALL}"


def _prefixes() -> list[Path]:
    """Where to look. PARTITA_DNNL, where it is set, alone."""
    chosen = os.environ.get("PARTITA_DNNL")
    if chosen:
        return [Path(chosen).absolute()]
    found = [sys.prefix, sysconfig.get_path("data"), site.getuserbase(), *_SYSTEM]
    return [Path(text) for text in dict.fromkeys(found)]


def _version(prefix: Path) -> str | None:
    """The version that the headers below a prefix tell: "3.2.0"."""
    for name in ("oneapi/dnnl/dnnl_version.h", "dnnl_version.h"):
        try:
            text = (prefix / "include" / name).read_text("utf-8", "replace")
        except OSError:
            continue
        parts = [re.search(rf"#define\s+DNNL_VERSION_{part}\s+(\d+)", text) for part in ("MAJOR", "MINOR", "PATCH")]
        if all(parts):
            return ".".join(match[1] for match in parts if match)
    return None


def _library_directory(prefix: Path) -> Path | None:
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders = [prefix / "lib", prefix / "lib64", prefix / "lib" / multiarch]
    return next((folder for folder in folders if (folder / "libdnnl.so").exists()), None)
