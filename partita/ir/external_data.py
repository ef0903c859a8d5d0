"""Weights that lie in files beside the model (onnx.proto: TensorProto.external_data), mapped and not read.

A location is a relative path below the model's folder. Anything that leaves the folder, and anything that is not a
plain file, is refused before it is opened.
"""

from __future__ import annotations

import mmap
import stat
import warnings
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.types import DType

KEYS = frozenset(["location", "offset", "length", "checksum"])


def external_array(
    tensor: onnx.TensorProto, dtype: DType, shape: tuple[int, ...], base: Path | None
) -> np.ndarray[Any, Any]:
    """The content of an external tensor as a read-only array on the mapped file."""
    where = f"initializer {tensor.name!r}"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    unknown = sorted(set(entries) - KEYS)
    if unknown:
        warnings.warn(f"{where}: external data has unknown keys {', '.join(unknown)}; they are ignored", stacklevel=2)
    if base is None:
        raise ModelError(f"{where} lies in an external file, but the model was given as bytes; give its path")
    path = _resolve(entries.get("location", ""), base, where)
    size = path.stat().st_size
    offset = _number(entries, "offset", 0, where)
    length = _number(entries, "length", size - offset, where)
    expected = (dims.product(shape) * dtype.bits + 7) // 8
    if length > size or offset > size - length:
        raise ModelError(f"{where}: bytes {offset} to {offset + length} lie beyond {path.name!r} of {size} bytes")
    if length != expected:
        raise ModelError(f"{where}: {length} external bytes, but shape {shape} of {dtype!r} takes {expected}")
    if length == 0:
        return np.zeros(shape, dtype.numpy)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if dtype.bits < 8:
        packed = onnx.TensorProto(data_type=dtype.onnx, dims=shape, raw_data=mapped[offset : offset + length])
        unpacked: np.ndarray[Any, Any] = onnx.numpy_helper.to_array(packed)
        return unpacked
    return np.frombuffer(mapped, dtype.numpy, dims.product(shape), offset).reshape(shape)


def _number(entries: dict[str, str], key: str, default: int, where: str) -> int:
    text = entries.get(key, str(default))
    if not text.isascii() or not text.isdigit():
        raise ModelError(f"{where}: external {key} {text!r} is not a number of bytes")
    return int(text)


def _resolve(location: str, base: Path, where: str) -> Path:
    """The file behind a location. Symbolic links may lead to a `blobs` folder beside the model's `snapshots` one (the
    layout of the Hugging Face cache), and nowhere else outside the model's folder."""
    windows = PureWindowsPath(location)
    if (
        not location
        or "\0" in location
        or PurePosixPath(location).is_absolute()
        or windows.drive
        or windows.root
        or ".." in windows.parts
    ):
        raise ModelError(f"{where}: external location {location!r} must be a relative path below the model's folder")
    path = base / location
    try:
        real = path.resolve(strict=True)
        status = real.stat()
    except OSError as error:
        raise ModelError(f"{where}: external file {location!r}: {error.strerror}") from error
    root = base.resolve()
    allowed = [root]
    if "snapshots" in root.parts:
        position = root.parts.index("snapshots")
        allowed.append(Path(*root.parts[:position], "blobs"))
    if not any(real.is_relative_to(folder) for folder in allowed):
        raise ModelError(f"{where}: external location {location!r} leads out of the model's folder, to {str(real)!r}")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{where}: external location {location!r} is not a plain file")
    if status.st_nlink > 1 and len(allowed) == 1:
        raise ModelError(f"{where}: external file {location!r} is a hard link, which may lead anywhere; copy the file")
    return real
