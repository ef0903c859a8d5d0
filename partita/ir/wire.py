"""Reads a serialized ModelProto without its weights.

The weights of a model are most of its bytes. Parsing the file as it is would copy them; this module walks the wire
format (https://protobuf.dev/programming-guides/encoding) as far as the initializers, leaves their `raw_data` where it
is, and hands a slim message to protobuf. What it does not recognize stays in the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MODEL_GRAPH = 7  # field numbers of onnx.proto
GRAPH_INITIALIZER = 5
TENSOR_NAME = 8
TENSOR_RAW_DATA = 9

LARGE = 256  # bytes: shorter tensors stay in the message


@dataclass(frozen=True, slots=True)
class Slim:
    """A ModelProto's bytes without large raw data, and where that data lies: per initializer, in order, the
    (start, length) in bytes of its raw data in the original, or None where it stayed."""

    message: bytes
    raw: tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    start: int  # of the tag
    payload: int  # of the content, for length-delimited fields
    end: int
    delimited: bool


def slim(data: memoryview) -> Slim:
    """Splits off the raw data of the graph's initializers. `ValueError` when the bytes are no protobuf message."""
    raw: list[tuple[int, int] | None] = []
    pieces: list[bytes] = []
    for field in _fields(data, 0, len(data)):
        if field.number == MODEL_GRAPH and field.delimited:
            pieces.append(_delimited(MODEL_GRAPH, _slim_graph(data, field, raw)))
        else:
            pieces.append(bytes(data[field.start : field.end]))
    return Slim(b"".join(pieces), tuple(raw))


def _slim_graph(data: memoryview, graph: _Field, raw: list[tuple[int, int] | None]) -> bytes:
    pieces: list[bytes] = []
    for field in _fields(data, graph.payload, graph.end):
        if field.number != GRAPH_INITIALIZER or not field.delimited:
            pieces.append(bytes(data[field.start : field.end]))
            continue
        large: tuple[int, int] | None = None
        kept: list[bytes] = []
        for part in _fields(data, field.payload, field.end):
            size = part.end - part.payload
            if part.number == TENSOR_RAW_DATA and part.delimited and size > LARGE and large is None:
                large = (part.payload, size)
            else:
                kept.append(bytes(data[part.start : part.end]))
        raw.append(large)
        pieces.append(_delimited(GRAPH_INITIALIZER, b"".join(kept)))
    return b"".join(pieces)


def _fields(data: memoryview, start: int, end: int) -> Iterator[_Field]:
    position = start
    while position < end:
        tag_start = position
        tag, position = _varint(data, position, end)
        kind = tag & 7
        payload = position
        if kind == 0:
            _, position = _varint(data, position, end)
        elif kind == 1:
            position += 8
        elif kind == 2:
            length, payload = _varint(data, position, end)
            position = payload + length
        elif kind == 5:
            position += 4
        else:
            raise ValueError(f"byte {tag_start}: wire type {kind} is not used by ONNX")
        if position > end:
            raise ValueError(f"byte {tag_start}: the field runs {position - end} bytes past its end")
        yield _Field(tag >> 3, tag_start, payload, position, kind == 2)


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError(f"byte {position}: a number is cut off")


def _delimited(number: int, content: bytes) -> bytes:
    return _encode(number << 3 | 2) + _encode(len(content)) + content


def _encode(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
