"""Writes artifacts: `model.so`, and `model.tar` as the same in source.

Nothing is ever half written: everything goes to a file beside the target, which then takes its name. Equal input
gives equal bytes: fixed times and owners, fixed order, no path of the building machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from partita.errors import ArtifactError
from partita.runtime.artifact import (
    ABI_VERSION,
    FORMAT_VERSION,
    MAGIC,
    MANIFEST,
    PAGE,
    TABLE,
    Artifact,
)
from partita.runtime.table import ALIGNMENT, Array, Layout, lay_out_arrays, write_table

Placement = Literal["auto", "inside", "beside"]
_LARGE = 1 << 31  # bytes from which a table lies beside its code
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PADDING_FIELD = 0xD935  # the ZIP extra field that aligns data, as Android's tools use it


@dataclass(frozen=True, slots=True)
class Content:
    """What an artifact holds beside its code: the manifest without digests, small files, and the table."""

    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]
    layout: Layout
    parameters: Mapping[str, Array]


def write_library(path: Path, code: bytes, content: Content, placement: Placement = "auto") -> None:
    """Writes `model.so`, and `model.safetensors` beside it where the table does not go inside.

    Raises:
        ArtifactError: it could not be written; what was there before is untouched.
    """
    beside = is_beside(content.layout, placement)
    described = {"bytes": len(code), "sha256": hashlib.sha256(code).hexdigest()}
    with replacing(path) as file:
        file.write(code + bytes(-len(code) % PAGE))
        if beside:
            with replacing(path.with_suffix(".safetensors")) as table:
                digest = write_table(_Writer(table), content.layout, content.parameters)
                write_payload(file, content, described, digest)
                file.flush()  # a full disk shows itself before either file takes its place
                os.fsync(file.fileno())
        else:
            write_payload(file, content, described, None)


def is_beside(layout: Layout, placement: Placement) -> bool:
    """Whether a table of this layout lies beside the code."""
    return placement == "beside" or (placement == "auto" and layout.file_bytes > _LARGE)


def write_payload(file: IO[bytes], content: Content, code: Mapping[str, Any] | None, beside: str | None) -> None:
    """Appends the archive to a file.

    Args:
        code: size and digest of the code; None where it is not known yet.
        beside: the digest of the table beside; None to put the table into the archive.
    """
    start = 0
    digest = beside
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(content.files.items()):
            archive.writestr(_member(name), data)
        if beside is None:
            start, digest = _write_table_member(archive, file, content)
        manifest = {
            "format": FORMAT_VERSION,
            "abi": ABI_VERSION,
            "code": code,
            **content.manifest,
            "table": {
                "beside": beside is not None,
                "bytes": content.layout.file_bytes,
                "data_bytes": content.layout.data_bytes,
                "sha256": digest,
                "entries": [asdict(entry) for entry in content.layout.entries],
            },
        }
        archive.writestr(_member(MANIFEST), json.dumps(manifest, indent=1, sort_keys=True))
        archive.comment = MAGIC + b"0" * 16
    # Where the table is counts from the end, so that it holds whatever code the archive is appended to.
    end = file.seek(0, os.SEEK_END)
    file.seek(end - 16)
    file.write(b"%016x" % (end - start if beside is None else 0))


def _member(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3
    info.external_attr = 0o644 << 16
    return info


def _write_table_member(archive: zipfile.ZipFile, file: IO[bytes], content: Content) -> tuple[int, str]:
    """Writes the table as a member whose data is aligned in the file. Returns where it starts, and its digest."""
    info = _member(TABLE)
    info.file_size = content.layout.file_bytes
    is_large = info.file_size * 1.05 > zipfile.ZIP64_LIMIT  # the module's own rule for the longer header
    fixed = file.tell() + 30 + len(TABLE) + (20 if is_large else 0)
    padding = -(fixed + 4) % ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
    start = fixed + 4 + padding
    with archive.open(info, "w", force_zip64=is_large) as member:
        digest = write_table(_Writer(member), content.layout, content.parameters)
    return start, digest


class _Writer:
    """A file as `write_table` wants it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes | memoryview, /) -> object:
        return self._file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that takes `path`'s place when the block succeeds, and vanishes when it fails.

    Raises:
        ArtifactError: the system refused: no space, no permission, no folder.
    """
    temporary = path.with_name(f".{path.name[:64]}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rewrite_table(artifact: Artifact, target: Path, parameters: Mapping[str, Array]) -> None:
    """Writes an artifact again with other values in its table; code, schedule and bind program stay.

    Args:
        parameters: the table's entries, of the names, types and shapes they have now.

    Raises:
        ArtifactError: the target cannot be written.
        ParameterError: an entry is missing, or of another type or shape.
    """
    entries = {entry.name: parameters[entry.name] for entry in artifact.entries}
    layout = lay_out_arrays(entries)
    kept = {key: value for key, value in artifact.manifest.items() if key not in ("format", "abi", "code", "table")}
    content = Content(kept, artifact.files, layout, entries)
    placement: Placement = "beside" if artifact.manifest["table"]["beside"] else "inside"
    described = artifact.manifest["code"]
    code = artifact.code if described is None else artifact.code[: described["bytes"]]
    write_library(target, code.tobytes(), content, placement)


# ------------------------------------------------------------------ source


def write_tar(path: Path, root: str, texts: Mapping[str, str], content: Content) -> None:
    """Writes `model.tar`: sources, Makefile and payload.zip below the folder `root`.

    The table is in the payload, whatever its size: `make` appends it, it does not compile it.

    Raises:
        ArtifactError: it could not be written.
    """
    with replacing(path) as file, tempfile.TemporaryFile(dir=path.parent) as payload:
        write_payload(payload, content, None, None)
        payload.flush()
        size = payload.seek(0, os.SEEK_END)
        payload.seek(0)
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, text in sorted(texts.items()):
                data = text.encode("utf-8", "surrogatepass")
                archive.addfile(_tar_member(f"{root}/{name}", len(data)), io.BytesIO(data))
            archive.addfile(_tar_member(f"{root}/payload.zip", size), payload)


def _tar_member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info
