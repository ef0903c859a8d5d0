"""The walk over a serialized model that leaves the weights where they are."""

import contextlib

import numpy as np
import onnx
import pytest
from models import model
from onnx import numpy_helper

from partita.ir import wire
from partita.ir.read_onnx import read_onnx


def with_weights(*sizes):
    proto = model("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    for n, size in enumerate(sizes):
        proto.graph.initializer.append(numpy_helper.from_array(np.arange(size, dtype=np.float32), f"w{n}"))
    return proto


def test_large_raw_data_stay_behind():
    proto = with_weights(1000, 3, 5000)
    data = proto.SerializeToString()
    slim = wire.slim(memoryview(data))
    assert len(slim.message) < 400
    assert [piece is not None for piece in slim.raw] == [True, False, True]
    start, length = slim.raw[2]
    np.testing.assert_array_equal(np.frombuffer(data[start : start + length], np.float32), np.arange(5000))
    rest = onnx.ModelProto.FromString(slim.message)
    assert [tensor.name for tensor in rest.graph.initializer] == ["w0", "w1", "w2"]
    assert rest.graph.node == proto.graph.node


def test_small_models_are_kept_whole():
    data = with_weights(2).SerializeToString()
    assert onnx.ModelProto.FromString(wire.slim(memoryview(data)).message) == with_weights(2)


def test_weights_of_a_file_are_mapped(tmp_path):
    path = tmp_path / "model.onnx"
    proto = with_weights(100_000)
    proto.graph.output[0].name = proto.graph.initializer[0].name
    path.write_bytes(proto.SerializeToString())
    graph = read_onnx(path)
    (parameter,) = graph.parameters.values()
    array = parameter.array
    assert not array.flags.owndata
    assert not array.flags.writeable
    np.testing.assert_array_equal(array, np.arange(100_000))


@pytest.mark.parametrize(
    "content", [b"\x0f", b"\x3a\xff", b"\x3a\x05ab", b"\xff" * 20, b"\x09\x00", b"\x0d\x00", b"\x3b\x00"]
)
def test_no_protobuf(content):
    with pytest.raises(ValueError, match="byte"):
        wire.slim(memoryview(content))


def test_every_truncation_is_an_error_or_a_message():
    data = with_weights(1000).SerializeToString()
    for length in range(0, len(data), 7):
        with contextlib.suppress(ValueError):
            wire.slim(memoryview(data[:length]))


def test_a_graph_in_two_pieces_is_merged():
    """Protobuf lets a message come in pieces; the initializers count on."""
    proto = with_weights(1000)
    rest = onnx.ModelProto()
    rest.graph.initializer.append(numpy_helper.from_array(np.ones(700, np.float32), "v"))
    rest.graph.output.append(onnx.helper.make_tensor_value_info("v", 1, [700]))
    graph = read_onnx(proto.SerializeToString() + rest.SerializeToString())
    np.testing.assert_array_equal(graph.outputs[1].parameter.array, np.ones(700))
