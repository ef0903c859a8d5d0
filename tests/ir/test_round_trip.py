"""Read, write, read: the same graph and the same numbers."""

import numpy as np
import onnx
import pytest
from models import data, model

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.evaluate import evaluate
from partita.ir.graph import Graph
from partita.ir.read_onnx import read_onnx
from partita.ir.subgraph import fold
from partita.ir.types import DType, TensorType
from partita.ir.verify import verify
from partita.ir.write_onnx import write_onnx
from partita.passes.canonicalize import canonicalize


def canonical(source, **options):
    graph = read_onnx(source, **options)
    canonicalize(graph)
    return graph


MODELS = {
    "operands": 'g (float[2, 3] x, float m) => (float[2, 3] y) { y = Clip (x, "", m) }',
    "outputs": "g (float[2, 8] x) => (float[2, 3] v, int64[2, 3] i) <int64[1] k = {3}> { v, i = TopK (x, k) }",
    "dynamic": "g (float[N, 3] x, float[N, M] z) => (float[N, K] y) { y = Concat <axis = 1> (x, z) }",
    "attributes": 'g (float[1, 1, 4, 4] x) => (float[N, C, H, W] y) { y = AveragePool <kernel_shape = [2, 2], '
    'auto_pad = "SAME_UPPER", count_include_pad = 1> (x) }',
    "tensor attribute": "g (int64[2] s) => (int32[A, B] y) { y = ConstantOfShape <value = int32[1] {7}> (s) }",
    "repeated output": "g (float[2] x) => (float[2] y, float[2] y) { y = Neg (x) }",
    "empty list": "g (float[2, 3] x) => (float[A, B] y) <int64[0] a = {}> "
    "{ y = ReduceSum <noop_with_empty_axes = 1> (x, a) }",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MODELS))
def test_graphs(name):
    graph = canonical(data(MODELS[name]))
    proto = write_onnx(graph)
    onnx.checker.check_model(proto)
    again = canonical(proto.SerializeToString())
    assert [(v.name, str(v.type)) for v in again.inputs] == [(v.name, str(v.type)) for v in graph.inputs]
    assert [n.op_type for n in again.nodes][: len(graph.nodes)] == [n.op_type for n in graph.nodes]
    assert [n.attributes.keys() for n in again.nodes][: len(graph.nodes)] == [n.attributes.keys() for n in graph.nodes]
    assert write_onnx(canonical(proto.SerializeToString())) == write_onnx(again)


def test_every_element_type():
    proto = model("g (float[2] x) => (float[2] y) { y = Neg (x) }")
    arrays = {}
    for dtype in DType:
        if dtype is DType.STRING:
            array = np.asarray(["a", "ß"], dtype=object)
        else:
            array = np.asarray([0, 1, 1], dtype=np.int8).astype(dtype.numpy)
        arrays[dtype.name] = array
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, dtype.name))
        proto.graph.output.append(onnx.helper.make_tensor_value_info(dtype.name, dtype.onnx, array.shape))
    again = read_onnx(write_onnx(read_onnx(proto.SerializeToString())).SerializeToString())
    for value in again.parameters:
        assert value.tensor.dtype.name == value.name
        assert value.parameter.array.dtype == arrays[value.name].dtype
        assert value.parameter.array.tolist() == arrays[value.name].tolist() or value.name == "FLOAT8E8M0"


def test_shapes_given_by_the_caller():
    source = data("g (float[N, 3] x) => (float[N, 3] y) { y = Neg (x) }")
    assert canonical(source, shapes={"x": [4, 3]}).outputs[0].shape == (4, 3)
    assert canonical(source, shapes={"x": ["batch", None]}).outputs[0].shape == (dims.symbol("batch"), 3)


@pytest.mark.parametrize("shapes", [{"x": [4]}, {"x": [4, 5]}, {"z": [1]}, {"x": [-1, 3]}])
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(Exception, match="shapes"):
        read_onnx(data("g (float[N, 3] x) => (float[N, 3] y) { y = Neg (x) }"), shapes=shapes)


def test_weights_can_be_left_out():
    graph = canonical(data("g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Add (x, w) }"))
    proto = write_onnx(graph, weights=False)
    assert [info.name for info in proto.graph.input] == ["x", "w"]
    assert not proto.graph.initializer


def test_folded_nodes_become_functions():
    graph = canonical(
        data("g (float[3] x) => (float[3] y) <float[3] w = {1, 2, 3}> { a = Add (x, w) b = Exp (a) y = Neg (b) }")
    )
    fold(graph, graph.nodes[:2], "Region", {"backend": "cpu", "symbol": "first"})
    verify(graph)
    proto = write_onnx(graph)
    assert [function.name for function in proto.functions] == ["first"]
    x = np.ones(3, np.float32)
    np.testing.assert_allclose(evaluate(graph, {"x": x})["y"], -np.exp([2, 3, 4]), rtol=1e-6)
    again = read_onnx(proto.SerializeToString())
    assert [node.op_type for node in again.nodes] == ["Add", "Exp", "Neg"]


def test_nodes_of_one_name_become_functions_of_their_own():
    graph = canonical(data("g (float[3] x) => (float[3] y) { a = Exp (x) b = Neg (a) c = Neg (b) y = Sqrt (c) }"))
    for members in ([0, 1], [1, 2]):
        node = fold(graph, [graph.nodes[index] for index in members], "Fused", {})
        node.name = "twin"
    verify(graph)
    proto = write_onnx(graph)
    assert [function.name for function in proto.functions] == ["twin", "twin.2"]
    onnx.checker.check_model(proto)
    x = np.arange(3, dtype=np.float32)
    (result,) = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(result, np.exp(x / 2), rtol=1e-6)


@pytest.mark.parametrize(
    "dim",
    [
        dims.symbol("N") * 2 + 1,
        dims.floor_div(dims.symbol("N") * dims.symbol("M"), 2),
        dims.maximum(dims.symbol("N"), dims.symbol("M") - 3),
        dims.symbol("N") ** 2 % 7,
        dims.symbol("N") - dims.symbol("M"),
    ],
    ids=str,
)
def test_symbolic_sizes_become_arithmetic(dim):
    graph = Graph()
    graph.opsets = {"": 28}
    graph.add_input("x", TensorType(DType.FLOAT32, (dims.symbol("N"), dims.symbol("M"))))
    value = Builder(graph, "d")("Dims", domain="partita", dims=(dim, 4), rank=1)
    graph.set_outputs([value])
    verify(graph)
    for n, m in [(5, 2), (2, 9), (1, 1)]:
        result = evaluate(graph, {"x": np.zeros((n, m), np.float32)})[value.name]
        np.testing.assert_array_equal(result, [dims.evaluate(dim, {"N": n, "M": m}), 4])
