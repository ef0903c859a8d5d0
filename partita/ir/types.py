"""Types of values: frozen, compared by content.

Element types are ONNX's (`TensorProto.DataType`). In memory an element of a sub-byte type (int4, uint2, float4 ...)
takes one byte; everything else takes its natural width.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from partita.errors import ModelError

if TYPE_CHECKING:
    from partita.ir.dims import Dim


class DType(enum.Enum):
    """An element type: ONNX's number, and the NumPy type that holds it (`object` for strings)."""

    FLOAT32 = (1, np.float32)
    UINT8 = (2, np.uint8)
    INT8 = (3, np.int8)
    UINT16 = (4, np.uint16)
    INT16 = (5, np.int16)
    INT32 = (6, np.int32)
    INT64 = (7, np.int64)
    STRING = (8, np.object_)
    BOOL = (9, np.bool_)
    FLOAT16 = (10, np.float16)
    FLOAT64 = (11, np.float64)
    UINT32 = (12, np.uint32)
    UINT64 = (13, np.uint64)
    COMPLEX64 = (14, np.complex64)
    COMPLEX128 = (15, np.complex128)
    BFLOAT16 = (16, ml_dtypes.bfloat16)
    FLOAT8E4M3FN = (17, ml_dtypes.float8_e4m3fn)
    FLOAT8E4M3FNUZ = (18, ml_dtypes.float8_e4m3fnuz)
    FLOAT8E5M2 = (19, ml_dtypes.float8_e5m2)
    FLOAT8E5M2FNUZ = (20, ml_dtypes.float8_e5m2fnuz)
    UINT4 = (21, ml_dtypes.uint4)
    INT4 = (22, ml_dtypes.int4)
    FLOAT4E2M1 = (23, ml_dtypes.float4_e2m1fn)
    FLOAT8E8M0 = (24, ml_dtypes.float8_e8m0fnu)
    UINT2 = (25, ml_dtypes.uint2)
    INT2 = (26, ml_dtypes.int2)

    def __init__(self, onnx: int, scalar: type[Any]) -> None:
        self.onnx = onnx
        self.numpy: np.dtype[Any] = np.dtype(scalar)

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory; a string's is where it lies and its length, as `partita_string` has them."""
        return 16 if self is DType.STRING else self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        return "FLOAT" in self.name

    @property
    def is_complex(self) -> bool:
        return "COMPLEX" in self.name

    @property
    def is_integer(self) -> bool:
        return "INT" in self.name

    @property
    def is_signed(self) -> bool:
        return self.is_float or (self.is_integer and not self.name.startswith("U"))

    @property
    def bits(self) -> int:
        """Bits of information in an element: 4 for int4, although it takes a byte in memory."""
        narrow = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
        return narrow.get(self.name, 8 * self.itemsize)

    @classmethod
    def of(cls, array_dtype: Any) -> DType:
        """The element type of a NumPy dtype; `KeyError` when ONNX has none for it."""
        dtype = np.dtype(array_dtype)
        return cls.STRING if dtype.kind in "OSU" else _BY_NUMPY[dtype]

    @classmethod
    def from_onnx(cls, number: int) -> DType:
        """The element type of a `TensorProto.DataType`; `LookupError` for 0 and unknown numbers."""
        if number not in _BY_ONNX:
            raise LookupError(f"element type {number} is not one that Partita knows")
        return _BY_ONNX[number]

    def __repr__(self) -> str:
        return self.name.lower()


_BY_NUMPY = {member.numpy: member for member in DType}
_BY_ONNX = {member.onnx: member for member in DType}

DIMENSION_TYPES = (DType.INT64, DType.INT32, DType.BOOL)
"""What sizes, axes and decisions about them are made of: small tensors of these types may hold symbols."""


class UndeterminedTypeError(ValueError):
    """Something was asked of a type that it does not tell: the rank of a tensor of unknown rank."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor of `dtype` elements. `shape` is None when even the rank is unknown."""

    dtype: DType
    shape: tuple[Dim, ...] | None

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def dims(self) -> tuple[Dim, ...]:
        """The shape, which must be known in rank."""
        if self.shape is None:
            raise UndeterminedTypeError("the rank of this tensor is unknown")
        return self.shape

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype!r}[...]"
        return f"{self.dtype!r}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class SequenceType:
    """A list of values of one type. Each element has sizes of its own: those that are no number say nothing.
    `is_empty`: there are no elements, and the element type holds for any."""

    element: Type
    is_empty: bool = False

    def __str__(self) -> str:
        return f"sequence({self.element})"


@dataclass(frozen=True, slots=True)
class OptionalType:
    """A value that may be absent at run time."""

    element: Type

    def __str__(self) -> str:
        return f"optional({self.element})"


@dataclass(frozen=True, slots=True)
class UnknownType:
    """Not inferred yet."""

    def __str__(self) -> str:
        return "unknown"


Type = TensorType | SequenceType | OptionalType | UnknownType

LARGEST_RANK = 32
LARGEST_TENSOR = 1 << 40  # elements


def check_shape(shape: Iterable[Dim | None], where: str) -> None:
    """`ModelError` when no tensor has this shape, or none that a machine could hold."""
    shape = tuple(shape)
    if len(shape) > LARGEST_RANK:
        raise ModelError(f"{where}: a tensor of rank {len(shape)}; ranks up to {LARGEST_RANK} are supported")
    known = [dim for dim in shape if isinstance(dim, int)]
    if any(dim < 0 for dim in known):
        raise ModelError(f"{where}: shape {shape} has a negative dimension; give a dynamic one a name")
    if 0 not in known and math.prod(known) > LARGEST_TENSOR:
        raise ModelError(f"{where}: shape {shape} has more than {LARGEST_TENSOR} elements, the largest supported")
