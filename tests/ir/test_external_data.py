"""Weights in files beside the model: mapped, and nothing outside the model's folder is opened."""

import os

import numpy as np
import onnx
import pytest
from models import model
from onnx import TensorProto, helper

from partita.errors import ModelError
from partita.ir.evaluate import evaluate
from partita.ir.read_onnx import read_onnx

CONTENT = np.arange(16, dtype=np.float32)


def external(location="weights.bin", name="w", dims=(4,), data_type=TensorProto.FLOAT, **entries):
    tensor = TensorProto(name=name, dims=dims, data_type=data_type, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(CONTENT.tobytes())
    (tmp_path / "outside.bin").write_bytes(CONTENT.tobytes())
    return folder


def read(folder, *tensors):
    proto = model("g (float[4] x) => (float[4] y) { y = Add (x, w) }")
    proto.graph.initializer.extend(tensors)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return read_onnx(path)


def refused(folder, *tensors):
    with pytest.raises(ModelError) as caught:
        read(folder, *tensors)
    assert "'w'" in str(caught.value)
    return str(caught.value)


def content_of(graph, name="w"):
    return graph.value_named(name).parameter.array


def test_offsets_and_lengths(folder):
    np.testing.assert_array_equal(content_of(read(folder, external(offset=16, length=16))), CONTENT[4:8])
    np.testing.assert_array_equal(content_of(read(folder, external(offset=48))), CONTENT[12:])


def test_overlap_and_any_order_are_fine(folder):
    graph = read(folder, external(offset=32, length=16), external(name="v", offset=16, length=32, dims=(8,)))
    np.testing.assert_array_equal(content_of(graph, "v"), CONTENT[4:12])


def test_nested_folder(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "w.bin").write_bytes(CONTENT[:4].tobytes())
    np.testing.assert_array_equal(content_of(read(folder, external("deep/w.bin"))), CONTENT[:4])


def test_an_empty_tensor(folder):
    assert content_of(read(folder, external(dims=(0, 4), offset=64))).shape == (0, 4)


@pytest.mark.parametrize(
    "location",
    [
        "../outside.bin", "a/../../outside.bin", "/etc/passwd", "C:\\w.bin", "C:w.bin", "\\\\host\\share\\w.bin",
        "..\\outside.bin", "w\0.bin", "", "none.bin", ".", "weights.bin/x",
    ],
)  # fmt: skip
def test_locations(folder, location):
    refused(folder, external(location))


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": -4},
        {"offset": 65},
        {"offset": 60, "length": 16},
        {"offset": 2**63, "length": 2**63},
        {"offset": 18446744073709551612, "length": 20},
        {"length": 12},
        {"length": "16.0"},
        {"offset": "0x10"},
        {"offset": " 0"},
        {"length": "٤"},
    ],
)
def test_offsets_that_lead_nowhere(folder, entries):
    refused(folder, external(**entries))


def test_links(folder):
    (folder / "link.bin").symlink_to(folder.parent / "outside.bin")
    refused(folder, external("link.bin"))
    (folder / "inner.bin").symlink_to("weights.bin")
    np.testing.assert_array_equal(content_of(read(folder, external("inner.bin", length=16, offset=0))), CONTENT[:4])
    (folder / "up").symlink_to(folder.parent)
    refused(folder, external("up/outside.bin"))
    os.link(folder.parent / "outside.bin", folder / "hard.bin")
    assert "hard link" in refused(folder, external("hard.bin"))


def test_the_cache_of_hugging_face(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1a2b"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "feed").write_bytes(CONTENT[:4].tobytes())
    (snapshot / "weights.bin").symlink_to("../../blobs/feed")
    np.testing.assert_array_equal(content_of(read(snapshot, external())), CONTENT[:4])
    (snapshot / "stray.bin").symlink_to("../../other")
    (tmp_path / "other").write_bytes(CONTENT.tobytes())
    refused(snapshot, external("stray.bin"))


def test_no_plain_files(folder):
    os.mkfifo(folder / "pipe.bin")
    refused(folder, external("pipe.bin"))  # and does not wait for a writer
    (folder / "folder.bin").mkdir()
    refused(folder, external("folder.bin"))
    (folder / "device.bin").symlink_to("/dev/zero")
    refused(folder, external("device.bin"))


def test_models_from_memory_have_no_folder(folder):
    proto = model("g (float[4] x) => (float[4] y) { y = Add (x, w) }")
    proto.graph.initializer.append(external(length=16, offset=0))
    for source in (proto, proto.SerializeToString()):
        with pytest.raises(ModelError, match="'w' lies in an external file"):
            read_onnx(source)


def test_unknown_keys_are_ignored(folder):
    with pytest.warns(UserWarning, match="colour"):
        graph = read(folder, external(length=16, offset=0, colour="red", checksum="1234"))
    np.testing.assert_array_equal(content_of(graph), CONTENT[:4])


def test_inline_data_beside_external_ones(folder):
    tensor = external(length=16, offset=0)
    tensor.float_data.extend([1, 2, 3, 4])
    assert "set too" in refused(folder, tensor)


def in_constant(tensor):
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.append(helper.make_attribute("value", tensor))
    return [node], []


def in_body(tensor):
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["n"])], "e", [], [helper.make_tensor_value_info("n", 1, [4])]
    )
    body = helper.make_graph(
        [helper.make_node("Identity", ["inner"], ["r"])], "t", [], [helper.make_tensor_value_info("r", 1, [4])]
    )
    tensor.name = "inner"
    body.initializer.append(tensor)
    return [helper.make_node("If", ["c"], ["w"], then_branch=body, else_branch=other)], []


def in_function(tensor):
    opsets = [helper.make_opsetid("", 21)]
    return [helper.make_node("F", [], ["w"], domain="f")], [
        helper.make_function("f", "F", [], ["w"], in_constant(tensor)[0], opsets)
    ]


def in_sparse(tensor):
    node = helper.make_node("Constant", [], ["w"])
    sparse = onnx.SparseTensorProto(values=tensor, dims=[4])
    sparse.indices.CopyFrom(helper.make_tensor("i", TensorProto.INT64, [4], [0, 1, 2, 3]))
    node.attribute.append(helper.make_attribute("sparse_value", sparse))
    return [node], []


@pytest.mark.parametrize("place", [in_constant, in_body, in_function, in_sparse])
def test_everywhere_the_same(folder, place):
    def load(tensor):
        nodes, functions = place(tensor)
        graph = helper.make_graph(
            [*nodes, helper.make_node("Add", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", 1, [4]), helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
            [helper.make_tensor_value_info("y", 1, [4])],
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
        path = folder / "model.onnx"
        path.write_bytes(
            helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10).SerializeToString()
        )
        return read_onnx(path)

    inputs = {"x": np.zeros(4, np.float32), "c": np.bool_(True)}
    np.testing.assert_array_equal(evaluate(load(external(length=16, offset=16)), inputs)["y"], CONTENT[4:8])
    for location in ("../outside.bin", "none.bin"):
        with pytest.raises(ModelError, match="external"):
            load(external(location))
