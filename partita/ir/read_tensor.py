"""Tensor messages into types and arrays. Nothing is copied where the bytes can be looked at in place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.external_data import external_array
from partita.ir.types import DType, TensorType, check_shape

Array = np.ndarray[Any, Any]
Load = Callable[[], Array]

DATA_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
LARGEST_DENSE = 1 << 28  # bytes that a sparse tensor may take when written out


def read_tensor(
    tensor: onnx.TensorProto, base: Path | None = None, raw: memoryview | None = None, owner: str = ""
) -> tuple[TensorType, Load]:
    """Type and content of a tensor message. `raw` is its raw data where that was split off; `base` the folder of
    external files. `ModelError` when what the message says does not fit together."""
    where = owner or f"initializer {tensor.name!r}"
    kind = _tensor_type(tensor, where)
    fields = [field for field in DATA_FIELDS if getattr(tensor, field)] + (["raw_data"] if raw is not None else [])
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        if fields:
            raise ModelError(f"{where}: the data are external, but {fields[0]} is set too")
        array = external_array(tensor, kind.dtype, kind.dims, base)
        return kind, lambda: array
    if len(fields) > 1:
        raise ModelError(f"{where}: {' and '.join(fields)} are both set; a tensor has one of them")
    if raw is not None and kind.dtype.bits >= 8 and kind.dtype is not DType.STRING:
        return kind, _view(raw, kind, where)
    if raw is not None:
        complete = onnx.TensorProto()
        complete.CopyFrom(tensor)
        complete.raw_data = bytes(raw)
        tensor = complete
    array = _content(tensor, kind, where)
    return kind, lambda: array


def type_of(array: Array) -> TensorType:
    return TensorType(DType.of(array.dtype), tuple(map(int, array.shape)))


def dense(sparse: onnx.SparseTensorProto, base: Path | None = None) -> Array:
    """A sparse tensor written out."""
    where = f"sparse tensor {sparse.values.name!r}"
    kind, load = read_tensor(sparse.values, base, owner=where)
    index_kind, load_indices = read_tensor(sparse.indices, base, owner=f"indices of {where}")
    shape = tuple(int(dim) for dim in sparse.dims)
    check_shape(shape, where)
    if kind.rank != 1 or index_kind.dtype is not DType.INT64 or index_kind.rank not in (1, 2):
        raise ModelError(f"{where}: values must be 1-D and indices int64 of rank 1 or 2")
    if dims.product(shape) * kind.dtype.itemsize > LARGEST_DENSE:
        raise ModelError(
            f"{where}: shape {shape} takes more than {LARGEST_DENSE} bytes when written out; store it dense"
        )
    values, indices = load(), load_indices()
    result = np.zeros(shape, dtype=values.dtype)
    if len(indices) != len(values) or (indices.ndim == 2 and indices.shape[1] != len(shape)):
        raise ModelError(f"{where}: {len(values)} values with indices of shape {indices.shape} for shape {shape}")
    limits = np.asarray(result.size if indices.ndim == 1 else shape)
    if ((indices < 0) | (indices >= limits)).any():
        raise ModelError(f"{where}: an index lies outside shape {shape}")
    if indices.ndim == 1:
        result.reshape(-1)[indices] = values
    else:
        result[tuple(indices.T)] = values
    return result


def _tensor_type(tensor: onnx.TensorProto, where: str) -> TensorType:
    try:
        dtype = DType.from_onnx(tensor.data_type)
    except LookupError as error:
        raise ModelError(f"{where}: {error}") from None
    shape = tuple(int(dim) for dim in tensor.dims)
    check_shape(shape, where)
    return TensorType(dtype, shape)


def _view(raw: memoryview, kind: TensorType, where: str) -> Load:
    _check_bytes(len(raw), kind, where)
    return lambda: np.frombuffer(raw, dtype=kind.dtype.numpy).reshape(kind.dims)


def _check_bytes(given: int, kind: TensorType, where: str) -> None:
    expected = (dims.product(kind.dims) * kind.dtype.bits + 7) // 8
    if given != expected:
        raise ModelError(f"{where}: raw data of {given} bytes, but {kind} takes {expected}")


def _content(tensor: onnx.TensorProto, kind: TensorType, where: str) -> Array:
    if tensor.raw_data:
        _check_bytes(len(tensor.raw_data), kind, where)
    try:
        array: Array = numpy_helper.to_array(tensor)
    except Exception as error:  # the library raises whatever it meets in damaged data
        raise ModelError(f"{where} of {kind} cannot be read: {error}") from error
    if array.shape != kind.dims:
        raise ModelError(f"{where} of {kind} holds data of shape {array.shape}")
    return array.astype(object) if array.dtype.kind in "SU" else array
