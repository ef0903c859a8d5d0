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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from partita.errors import ArtifactError, ParameterError
from partita.runtime.program import Program, check_program
from partita.runtime.table import Array, Entry, view_table

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
    """A checked artifact.

    Attributes:
        table_path: the file that holds the table: the artifact's own, or the one beside it.
        table_start: where its data starts in that file, in bytes.
        files: the archive's members but the table and the manifest.
    """

    path: Path
    manifest: Mapping[str, Any]
    program: Program
    entries: tuple[Entry, ...]
    table_path: Path
    table_start: int
    table_bytes: int
    payload_start: int
    files: Mapping[str, bytes]

    def parameters(self) -> dict[str, Array]:
        """The table's entries by name: read-only, mapped from the file, read when they are used."""
        if self.table_bytes == 0:
            return view_table(np.empty(0, np.uint8), self.entries)
        data = np.memmap(self.table_path, np.uint8, "r", offset=self.table_start, shape=(self.table_bytes,))
        return view_table(np.asarray(data), self.entries)


def read_artifact(path: str | os.PathLike[str], *, verify: bool = True) -> Artifact:
    """Reads and checks an artifact. Nothing is executed, and of the table only a megabyte at a time is in memory.

    Args:
        verify: whether to compute the table's digest, which reads all of it.

    Raises:
        ArtifactError: with the path, what is wrong and what to try.
    """
    path = Path(path).absolute()
    try:
        with _open_regular(path) as file:
            _check_elf(path, file)
            distance = _read_trailer(path, file)
            return _read(path, file, distance, verify)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror or error}") from error


def _open_regular(path: Path) -> IO[bytes]:
    # O_NONBLOCK: opening a FIFO must not wait for a writer.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ArtifactError(f"{path}: not a regular file")
    return file


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


def _read(path: Path, file: IO[bytes], distance: int, verify: bool) -> Artifact:
    size = os.fstat(file.fileno()).st_size
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
    if table is not None and (size - distance != table or members[TABLE].file_size != manifest["table"]["bytes"]):
        raise _damaged(path, "its parameter table is not where its end says")
    if (table is None) != (distance == 0) or bool(manifest["table"]["beside"]) != (table is None):
        raise _damaged(path, "its manifest and its end disagree about the parameter table")
    _check_code(path, file, manifest, start)
    program, entries = _parse(path, manifest)
    beside = path if table is not None else path.with_suffix(".safetensors")
    data_start = _check_table(path, beside, table or 0, manifest["table"], verify)
    length = int(manifest["table"]["data_bytes"])
    return Artifact(path, manifest, program, entries, beside, data_start, length, start, files)


def _check_versions(path: Path, manifest: Mapping[str, Any]) -> None:
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT_VERSION:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ArtifactError(f"{path}: of format {found}, and this Partita reads {FORMAT_VERSION}: compile it again")
    if manifest.get("abi") != ABI_VERSION:
        raise ArtifactError(
            f"{path}: of ABI {manifest.get('abi')}, and this Partita has {ABI_VERSION}: compile it again"
        )
    here = _features_here()
    missing = sorted(set(manifest.get("features", ())) - here) if here else []
    if missing:
        raise ArtifactError(
            f"{path}: its code uses {', '.join(missing)}, which this machine lacks: compile it with another mcpu, "
            "such as x86-64-v3"
        )


def _features_here() -> set[str]:
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


def _check_code(path: Path, file: IO[bytes], manifest: Mapping[str, Any], payload_start: int) -> None:
    file.seek(0)
    code = file.read(payload_start)
    section_headers, entry_bytes, count = (
        int.from_bytes(code[a:b], "little") for a, b in ((40, 48), (58, 60), (60, 62))
    )
    if len(code) != payload_start or section_headers + entry_bytes * count > payload_start:
        raise _damaged(path, "its code is cut off")
    expected = manifest["code"]  # None where it was built from a model.tar, by whatever compiler was there
    if expected is not None:
        padded = -(-int(expected["bytes"]) // PAGE) * PAGE
        if padded != payload_start or hashlib.sha256(code[: expected["bytes"]]).hexdigest() != expected["sha256"]:
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


def _check_table(artifact: Path, path: Path, start: int, expected: Mapping[str, Any], verify: bool) -> int:
    """Checks the table's size and, if asked, its digest. Returns where its data starts in its file."""
    if path != artifact and not path.exists():
        raise ArtifactError(f"{artifact}: its parameters should lie beside it, in {path.name}, and do not")
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        total = int(expected["bytes"])
        if start + total > size or (path != artifact and size != total):
            raise _damaged(path, f"the parameter table has {size - start} bytes, expected {total}")
        if verify and _digest(file, start, total) != expected["sha256"]:
            raise _damaged(
                path, "the parameter table does not match its digest: these are not the weights it was made with"
            )
    return start + total - int(expected["data_bytes"])


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
