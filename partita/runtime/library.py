"""The C interface of a loaded artifact, through ctypes: mirrors `partita.h`."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from partita.errors import ArtifactError

MAX_RANK = 16
MESSAGE_BYTES = 1024

# partita_status
OK, ARGUMENT, SHAPE, MEMORY, PARAMETERS = 0, 1, 2, 3, 4


# partita_tensor.data_type of what is no tensor
SEQUENCE, ABSENT = -1, -2


class Tensor(ctypes.Structure):
    """partita_tensor"""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("data_type", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.c_int64 * MAX_RANK),
    )


EngineCallback = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32, ctypes.POINTER(Tensor), ctypes.c_int32
)


class Options(ctypes.Structure):
    """partita_options"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("parameters", ctypes.c_char_p),
        ("constants", ctypes.POINTER(ctypes.c_void_p)),
        ("threads", ctypes.c_int32),
        ("engine", EngineCallback),
        ("engine_user", ctypes.c_void_p),
    )


class Library:
    """The entry points of one artifact's code. It stays mapped as long as the process lives."""

    def __init__(self, path: Path, symbol: str) -> None:
        """Maps a library that was checked before.

        Raises:
            ArtifactError: the system's loader refused it.
        """
        try:
            self._library = _dlopen(path)
            self.open: Callable[..., int] = self._entry(symbol, "open", ctypes.c_int32, 4)
            self.close: Callable[..., None] = self._entry(symbol, "close", None, 1)
            self.run: Callable[..., int] = self._entry(symbol, "run", ctypes.c_int32, 3)
            # Without argtypes, for pointers that are c_void_p already: a call takes less time.
            self.run_pointers = self._library[f"{symbol}_run"]
            self.run_pointers.restype = ctypes.c_int32
            self.error: Callable[..., bytes] = self._entry(symbol, "error", ctypes.c_char_p, 1)
            self.arena_bytes: Callable[..., int] = self._entry(symbol, "arena_bytes", ctypes.c_int64, 1)
            self.threads: Callable[..., int] = self._entry(symbol, "threads", ctypes.c_int32, 1)
            self.lookup: Callable[..., int] = self._entry(symbol, "lookup", ctypes.c_int32, 1)
            self.run_region: Callable[..., int] = self._entry(symbol, "run_region", ctypes.c_int32, 1)
            self.profile: Callable[..., int] = self._entry(symbol, "profile", ctypes.c_int32, 1)
        except (OSError, AttributeError) as error:
            raise ArtifactError(f"{path}: the system's loader refused it: {error}") from error
        self.open.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_size_t]
        self.lookup.argtypes = [ctypes.c_void_p, ctypes.c_int32]
        self.run_region.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p]
        self.profile.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int32]

    def _entry(self, symbol: str, name: str, result: Any, pointers: int) -> Any:
        function = getattr(self._library, f"{symbol}_{name}")
        function.restype = result
        function.argtypes = [ctypes.c_void_p] * pointers
        return function


def _dlopen(path: Path) -> ctypes.CDLL:
    """Loads what the path holds now.

    The loader takes a name it knows for the library it loaded under that name, even when the file was replaced since;
    so it is given a name of its own each time, and then compares files, not names.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="partita-") as folder:
            link = Path(folder) / "model.so"
            link.symlink_to(path)
            return ctypes.CDLL(str(link), mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except (PermissionError, FileNotFoundError):  # no folder for temporary files
        return ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
