"""The float64 yardstick against onnx's reference evaluator, and against formulas where that one is wrong."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from benchmarks.float64 import run_float64, to_float64

RNG = np.random.default_rng(0)


def one_node(kind: str, shapes: list[tuple[int, ...]], opset: int = 17, **attributes: object) -> onnx.ModelProto:
    names = [f"x{i}" for i in range(len(shapes))]
    node = helper.make_node(kind, names, ["y"], **attributes)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "one", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def noise(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def assert_as_reference(model: onnx.ModelProto) -> None:
    inputs = noise(model)
    doubles = {name: value.astype(np.float64) for name, value in inputs.items()}
    [expected] = ReferenceEvaluator(to_float64(model)).run(None, doubles)
    np.testing.assert_allclose(run_float64(model, inputs)["y"], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("shapes", "attributes"),
    [
        ([(2, 3, 6, 5), (4, 3, 3, 3)], {}),
        ([(1, 3, 6, 5), (4, 3, 3, 2), (4,)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        ([(1, 4, 7, 7), (6, 2, 3, 3), (6,)], {"group": 2, "pads": [1, 1, 1, 1]}),
        ([(1, 4, 7, 7), (4, 1, 3, 3)], {"group": 4, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
        ([(1, 3, 9), (2, 3, 4)], {"strides": [3]}),
        ([(1, 2, 4, 4, 4), (2, 2, 2, 2, 2)], {}),
    ],
)
def test_convolution(shapes, attributes):
    assert_as_reference(one_node("Conv", shapes, **attributes))


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 0, 1, 1]},
    ],
)
def test_pooling(kind, attributes):
    assert_as_reference(one_node(kind, [(2, 3, 7, 6)], **attributes))


def test_average_that_counts_its_padding():
    options = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    assert_as_reference(one_node("AveragePool", [(1, 2, 5, 5)], **options))


@pytest.mark.parametrize("opset", [9, 17])
def test_batch_normalization_takes_the_given_statistics(opset):
    model = one_node("BatchNormalization", [(1, 3, 4, 4), (3,), (3,), (3,), (3,)], opset)
    inputs = noise(model)
    inputs["x4"] = np.abs(inputs["x4"]) + 0.5
    x = inputs["x0"].astype(np.float64)
    scale, bias, mean, var = (inputs[f"x{i}"].astype(np.float64)[:, None, None] for i in range(1, 5))
    expected = (x - mean) / np.sqrt(var + np.float32(1e-5)) * scale + bias
    np.testing.assert_allclose(run_float64(model, inputs)["y"], expected, rtol=1e-9)


def test_local_response_normalization():
    model = one_node("LRN", [(1, 7, 2, 2)], size=5, alpha=0.5, beta=0.75, bias=2.0)
    inputs = noise(model)
    x = inputs["x0"].astype(np.float64)
    expected = np.empty_like(x)
    for c in range(7):
        squares = (x[:, max(0, c - 2) : c + 3] ** 2).sum(1)
        expected[:, c] = x[:, c] / (2 + 0.5 / 5 * squares) ** 0.75
    np.testing.assert_allclose(run_float64(model, inputs)["y"], expected, rtol=1e-12)


def test_error_function_is_not_rounded_to_float32():
    model = one_node("Erf", [(50,)])
    inputs = noise(model)
    expected = [math.erf(float(v)) for v in inputs["x0"]]
    np.testing.assert_array_equal(run_float64(model, inputs)["y"], expected)


def test_every_float_in_a_model_becomes_double():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        m (float[2] x, bool flag) => (float[2] y) <float[2] w = {1, 2}> {
          c = Constant <value_float = 0.5> ()
          d = Constant <value_floats = [0.1, 0.2]> ()
          i = Constant <value_int = 3> ()
          t = Cast <to = 1> (i)
          e = Add (c, t)
          f = Mul (d, w)
          y = If (flag) <
            then_branch = g () => (float[2] a) { k = Constant <value = float[2] {3, 4}> () a = Add (x, k) },
            else_branch = h () => (float[2] b) { s = Add (x, e) b = Add (s, f) }
          >
        }""")
    double = to_float64(model)
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT  # the original is untouched
    assert double.graph.output[0].type.tensor_type.elem_type == TensorProto.DOUBLE
    assert numpy_helper.to_array(double.graph.initializer[0]).dtype == np.float64
    x = np.array([1, 2], np.float32)
    for flag, expected in ((True, [4, 6]), (False, [1 + 3.5 + 0.1, 2 + 3.5 + 0.4])):
        result = run_float64(model, {"x": x, "flag": np.array(flag)})["y"]
        assert result.dtype == np.float64
        np.testing.assert_allclose(result, expected, rtol=1e-7)


@pytest.mark.parametrize("attributes", [{"auto_pad": "SAME_UPPER"}, {"ceil_mode": 1}])
def test_what_is_not_supported_is_refused(attributes):
    model = one_node("MaxPool", [(1, 1, 5, 5)], kernel_shape=[2, 2], **attributes)
    with pytest.raises(NotImplementedError, match="auto_pad"):
        run_float64(model, noise(model))
