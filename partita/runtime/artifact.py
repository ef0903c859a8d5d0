"""What an artifact is, and how one is read and checked before anything of it is executed.

    ELF shared library | zeros to a multiple of 4096 | ZIP archive, stored

The archive holds manifest.json, bind.onnx, parameters.safetensors, a file per interpreted module and the headers.
Its comment, the last 24 bytes of the file, is a magic and the distance from the end of the file to the start of
the table, as 16 hexadecimal digits; 0 where the table lies beside.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from partita.errors import ArtifactError, ParameterError
from partita.runtime.program import Program, check_program
from partita.runtime.table import Array, Entry, lay_out, view_table

MAGIC = b"PARTITA1"
TRAILER_BYTES = 24
FORMAT_VERSION = 1
ABI_VERSION = 1
PAGE = 4096
MANIFEST = "manifest.json"
BIND = "bind.onnx"
TABLE = "parameters.safetensors"
_CHUNK = 1 << 20
_MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A checked artifact. It keeps its files mapped, so that replacing them afterwards changes nothing here.

    Attributes:
        code: the library's bytes, of shape (bytes,), with what pads them to whole pages.
        table: the table's data, of shape (bytes,): read-only, and read when it is used.
        files: the archive's members but the table and the manifest.
    """

    path: Path
    manifest: Mapping[str, Any]
    program: Program
    entries: tuple[Entry, ...]
    code: Array
    table: Array
    files: Mapping[str, bytes]

    def parameters(self) -> dict[str, Array]:
        """The table's entries by name: read-only views, not copies."""
        return view_table(self.table, self.entries)


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A regular file, opened for reading; what goes wrong with it in the block is told with its path.

    Raises:
        ArtifactError: it cannot be read.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ArtifactError(f"{path}: not a regular file")
            yield file
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_artifact(path: Path, file: IO[bytes], *, verify: bool = True) -> Artifact:
    """Reads and checks an artifact. Nothing is executed, and of the table only a megabyte at a time is in memory.

    Args:
        file: the path, opened.
        verify: whether to compute the table's digest, which reads all of it.

    Raises:
        ArtifactError: with the path, what is wrong and what to try.
        ParameterError: the table lacks an entry that a region wants.
    """
    _check_elf(path, file)
    distance = _read_trailer(path, file)
    manifest, files, start, table = _read_archive(path, file)
    expected = manifest["table"]
    size = os.fstat(file.fileno()).st_size
    if bool(expected["beside"]) != (table is None) or distance != (0 if table is None else size - table):
        raise _damaged(path, "its parameter table is not where its end says")
    code = _map(file, 0, start)
    _check_code(path, code, manifest)
    program, entries = _parse(path, manifest)
    if table is not None:
        data = _check_table(path, file, table, expected, entries, verify)
    else:
        beside = path.with_suffix(".safetensors")
        if not beside.exists():
            raise ArtifactError(f"{path}: its parameters should lie beside it, in {beside.name}, and do not")
        with opened(beside) as other:
            if os.fstat(other.fileno()).st_size != int(expected["bytes"]):
                raise _damaged(beside, f"it should have {expected['bytes']} bytes, and has not")
            data = _check_table(beside, other, 0, expected, entries, verify)
    return Artifact(path, manifest, program, entries, code, data, files)


def _damaged(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path}: {what}; it is damaged or incomplete: copy or compile it again")


def _check_elf(path: Path, file: IO[bytes]) -> None:
    header = file.read(512)
    if header[:4] != b"\x7fELF":
        if header[257:262] == b"ustar":
            raise ArtifactError(f"{path}: this is the source of an artifact: unpack it, run make, load its model.so")
        raise ArtifactError(f"{path}: not a compiled model, which is a shared library: it does not start as one")
    if len(header) < 64:
        raise _damaged(path, "its ELF header is cut off")
    if header[4] != 2 or header[5] != 1:
        raise ArtifactError(f"{path}: compiled for a machine that is not 64-bit little-endian")
    machine = _MACHINES.get(int.from_bytes(header[18:20], "little"), "another machine")
    here = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    if machine != here:
        raise ArtifactError(f"{path}: compiled for {machine}, and this machine is {here}: compile it for this one")


def _read_trailer(path: Path, file: IO[bytes]) -> int:
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - TRAILER_BYTES))
    trailer = file.read(TRAILER_BYTES)
    if len(trailer) != TRAILER_BYTES or trailer[:8] != MAGIC:
        raise _damaged(path, "it does not end as a compiled model does")
    try:
        distance = int(trailer[8:], 16)
    except ValueError:
        distance = size + 1
    if distance > size:
        raise _damaged(path, "its end points before its start")
    return distance


def _read_archive(path: Path, file: IO[bytes]) -> tuple[dict[str, Any], dict[str, bytes], int, int | None]:
    """The manifest, the small members, where the archive starts, and where the table does if it is inside."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if MANIFEST not in members or any(info.compress_type for info in members.values()):
                raise _damaged(path, "its archive lacks a manifest, or is not one of Partita's")
            # Stored members cannot be larger than the file, so nothing here can balloon.
            manifest = json.loads(archive.read(MANIFEST))
            _check_versions(path, manifest)
            files = {name: archive.read(info) for name, info in members.items() if name not in (MANIFEST, TABLE)}
            start = min(info.header_offset for info in members.values())
            table = _data_offset(file, members[TABLE]) if TABLE in members else None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, struct.error) as error:
        raise _damaged(path, f"its archive cannot be read ({error})") from error
    return manifest, files, start, table


def _check_versions(path: Path, manifest: Mapping[str, Any]) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT_VERSION:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ArtifactError(f"{path}: of format {found}, and this Partita reads {FORMAT_VERSION}: compile it again")
    if manifest.get("abi") != ABI_VERSION:
        raise ArtifactError(
            f"{path}: of ABI {manifest.get('abi')}, and this Partita has {ABI_VERSION}: compile it again"
        )
    here = features_here()
    missing = sorted(set(manifest.get("features", ())) - here) if here else []
    if missing:
        raise ArtifactError(
            f"{path}: its code uses {', '.join(missing)}, which this machine lacks: compile it with another mcpu, "
            "such as x86-64-v3"
        )


def features_here() -> set[str]:
    """The instruction sets of this machine; empty where the system does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return set()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()


def _data_offset(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    file.seek(info.header_offset)
    header = file.read(30)
    name, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + name + extra)


def _map(file: IO[bytes], start: int, size: int) -> Array:
    """A part of the file as bytes, read-only."""
    return np.asarray(np.memmap(file, np.uint8, "r", offset=start, shape=(size,))) if size else np.empty(0, np.uint8)


def _check_code(path: Path, code: Array, manifest: Mapping[str, Any]) -> None:
    # Of an ELF file, the table of sections comes last.
    header = code[:64].tobytes()
    sections, entry_bytes, count = (int.from_bytes(header[a:b], "little") for a, b in ((40, 48), (58, 60), (60, 62)))
    if len(header) < 64 or sections + entry_bytes * count > code.size:
        raise _damaged(path, "its code is cut off")
    expected = manifest["code"]  # None where it was built from a model.tar, by whatever compiler was there
    if expected is not None:
        padded = -(-int(expected["bytes"]) // PAGE) * PAGE
        if padded != code.size or hashlib.sha256(code[: expected["bytes"]].data).hexdigest() != expected["sha256"]:
            raise _damaged(path, "its code does not match its digest")


def _parse(path: Path, manifest: Mapping[str, Any]) -> tuple[Program, tuple[Entry, ...]]:
    try:
        program = Program.from_json(manifest["program"])
        entries = tuple(Entry(**{**entry, "shape": tuple(entry["shape"])}) for entry in manifest["table"]["entries"])
        check_program(program, (entry.name for entry in entries))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"its manifest makes no sense ({error!r})") from error
    except ParameterError as error:
        raise ParameterError(f"{path}: {error}") from error
    return program, entries


def _check_table(
    path: Path, file: IO[bytes], start: int, expected: Mapping[str, Any], entries: tuple[Entry, ...], verify: bool
) -> Array:
    """Checks the table's size, its header and, if asked, its digest. Returns its data, mapped."""
    layout = lay_out((entry.name, entry.data_type, entry.shape) for entry in entries)
    size = os.fstat(file.fileno()).st_size - start
    if layout.entries != entries or layout.file_bytes != expected["bytes"] or layout.file_bytes > size:
        raise _damaged(path, f"the parameter table should have {layout.file_bytes} bytes, and there are {size}")
    file.seek(start)
    if file.read(len(layout.header)) != layout.header:
        raise _damaged(path, "the parameter table is another model's: names, types or shapes differ")
    if verify and _digest(file, start, layout.file_bytes) != expected["sha256"]:
        raise _damaged(path, "the parameter table does not match its digest, so it holds other weights")
    return _map(file, start + len(layout.header), layout.data_bytes)


def _digest(file: IO[bytes], start: int, size: int) -> str:
    digest = hashlib.sha256()
    file.seek(start)
    while size:
        chunk = file.read(min(size, _CHUNK))
        if not chunk:
            return ""
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()
