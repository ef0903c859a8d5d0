"""Element types: ONNX's TensorProto.DataType beside NumPy's dtypes and the names of the safetensors format.

Types below a byte take one byte an element. This module works without onnx; ml_dtypes is imported only
for the types that NumPy lacks.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np

from partita.errors import ParameterError


class DataType(IntEnum):
    """The numbers of TensorProto.DataType that have a size."""

    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20
    UINT4 = 21
    INT4 = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    UINT2 = 25
    INT2 = 26
    FLOAT6E2M3 = 27
    FLOAT6E3M2 = 28


_NUMPY_NAMES = {
    DataType.FLOAT: "float32",
    DataType.UINT8: "uint8",
    DataType.INT8: "int8",
    DataType.UINT16: "uint16",
    DataType.INT16: "int16",
    DataType.INT32: "int32",
    DataType.INT64: "int64",
    DataType.BOOL: "bool",
    DataType.FLOAT16: "float16",
    DataType.DOUBLE: "float64",
    DataType.UINT32: "uint32",
    DataType.UINT64: "uint64",
    DataType.COMPLEX64: "complex64",
    DataType.COMPLEX128: "complex128",
}

_ML_NAMES = {
    DataType.BFLOAT16: "bfloat16",
    DataType.FLOAT8E4M3FN: "float8_e4m3fn",
    DataType.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    DataType.FLOAT8E5M2: "float8_e5m2",
    DataType.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    DataType.UINT4: "uint4",
    DataType.INT4: "int4",
    DataType.FLOAT4E2M1: "float4_e2m1fn",
    DataType.FLOAT8E8M0: "float8_e8m0fnu",
    DataType.UINT2: "uint2",
    DataType.INT2: "int2",
    DataType.FLOAT6E2M3: "float6_e2m3fn",
    DataType.FLOAT6E3M2: "float6_e3m2fn",
}

_BY_NUMPY_NAME = {name: data_type for data_type, name in (_NUMPY_NAMES | _ML_NAMES).items()}

# What every release of the safetensors library reads; the rest is stored as U8, its type in the manifest.
_SAFETENSORS_NAMES = {
    DataType.FLOAT: "F32",
    DataType.UINT8: "U8",
    DataType.INT8: "I8",
    DataType.UINT16: "U16",
    DataType.INT16: "I16",
    DataType.INT32: "I32",
    DataType.INT64: "I64",
    DataType.BOOL: "BOOL",
    DataType.FLOAT16: "F16",
    DataType.DOUBLE: "F64",
    DataType.UINT32: "U32",
    DataType.UINT64: "U64",
    DataType.BFLOAT16: "BF16",
}


STRING = 8
"""TensorProto.STRING: an element is a `partita_string` in C, a str in Python. Tables hold such tensors packed."""


def fits(dtype: np.dtype[Any], data_type: int) -> bool:
    """Whether arrays of a dtype can be tensors of an ONNX element type; strings may be in arrays of objects.

    Raises:
        ParameterError: ONNX has no such type, or it has no fixed size.
    """
    if data_type == STRING:
        return dtype.kind in "OUST"
    return data_type_of(dtype) == data_type


@cache
def numpy_dtype(data_type: int) -> np.dtype[np.generic]:
    """The dtype of an ONNX element type.

    Raises:
        ParameterError: the type has no fixed size (strings), or does not exist.
    """
    known = _name_of(data_type)
    if known is None:
        raise ParameterError(f"element type {data_type} has no NumPy dtype of fixed size")
    member, name = known
    if member in _NUMPY_NAMES:
        return np.dtype(name)
    import ml_dtypes

    scalar = getattr(ml_dtypes, name, None)
    if scalar is None:
        raise ParameterError(f"element type {name} is not in this release of ml_dtypes: try a newer one")
    dtype: np.dtype[np.generic] = np.dtype(scalar)
    return dtype


def data_type_of(dtype: np.dtype[np.generic]) -> int:
    """The ONNX element type of a dtype, whatever its byte order.

    Raises:
        ParameterError: ONNX has no such type, or it has no fixed size.
    """
    found = _BY_NUMPY_NAME.get(dtype.name)
    if found is None:
        raise ParameterError(f"dtype {dtype} is not an ONNX element type of fixed size")
    return int(found)


def type_name(data_type: int) -> str:
    """A type's name as NumPy says it, for messages: "float32"."""
    known = _name_of(data_type)
    return known[1] if known else "string" if data_type == STRING else f"element type {data_type}"


def element_bytes(data_type: int) -> int:
    """Bytes of one element; 0 for a type without a size. Needs neither onnx nor ml_dtypes."""
    known = _name_of(data_type)
    if known is None:
        return 0
    if known[0] in _NUMPY_NAMES:
        return np.dtype(known[1]).itemsize
    return 2 if known[0] is DataType.BFLOAT16 else 1


def safetensors_name(data_type: int) -> str | None:
    """The safetensors format's name for a type, or None where the format lacks it."""
    return _SAFETENSORS_NAMES.get(DataType(data_type))


def _name_of(data_type: int) -> tuple[DataType, str] | None:
    try:
        member = DataType(data_type)
    except ValueError:
        return None
    return member, (_NUMPY_NAMES | _ML_NAMES)[member]
