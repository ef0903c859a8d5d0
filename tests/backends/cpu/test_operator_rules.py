"""What operators do where numbers end: NaN, ties, zeros, and operands that make no sense."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from batch import Batch
from harness import BUILD

import partita
from partita.errors import ExecutionError, InputError, ModelError, ShapeError

NAN, INF = np.nan, np.inf
COMPILERS = ["", *([f"{sys.executable} -m ziglang cc"] if importlib.util.find_spec("ziglang") else [])]


def results(text, inputs, weights=None, outputs=("y",)):
    """What one network gives, output by output."""
    batch = Batch(opset=27)
    batch.add(text, inputs, weights, outputs)
    found = batch.compile().run(batch.inputs)
    return [found[f"n0_{name}"].tolist() for name in outputs]


def floats(*content):
    return np.array(content, np.float32)


def test_nan_is_the_largest_and_comes_once():
    x = floats(1, NAN, 3, NAN, -INF, INF, 3)
    largest = results("y, i = TopK(x, k)", {"x": x}, {"k": np.array([5])}, "yi")
    np.testing.assert_array_equal(largest[0], [NAN, NAN, INF, 3, 3])
    assert largest[1] == [1, 3, 5, 2, 6]
    smallest = results("y, i = TopK <largest = 0> (x, k)", {"x": x}, {"k": np.array([7])}, "yi")
    assert smallest[1] == [4, 0, 2, 6, 5, 1, 3]
    unique = results("y, i, j, c = Unique(x)", {"x": x}, {}, "yijc")
    np.testing.assert_array_equal(unique[0], [-INF, 1, 3, INF, NAN])
    assert unique[1:] == [[4, 0, 2, 5, 1], [1, 4, 2, 4, 0, 3, 2], [1, 1, 2, 1, 2]]


@pytest.mark.parametrize("compiler", COMPILERS)
def test_extremes_where_nothing_is_finite(compiler):
    """Also with Clang, whose vectorized maximum begins at the lowest finite number."""
    x = np.array([[-INF] * 9, [INF] * 9, [*[-INF] * 8, NAN], [*[-INF] * 8, -3e38]], np.float32)
    for kind in (np.float32, np.float64, np.float16):
        batch = Batch(opset=27)
        batch.add("y = ReduceMax(x, a); z = ReduceMin(x, a)", {"x": x.astype(kind)}, {"a": np.array([1])}, "yz")
        found = batch.compile(replace(BUILD, cc=compiler)).run(batch.inputs)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(found["n0_y"], x.astype(kind).max(1, keepdims=True))
            np.testing.assert_array_equal(found["n0_z"], x.astype(kind).min(1, keepdims=True))


@pytest.mark.parametrize(
    ("mode", "wanted"), [("nearest", [0, 0, 1, 1, 2, 2]), ("linear", [0.25, 0.75, 1.25, 1.75, 2, 2])]
)
def test_a_resize_that_tells_places_as_tensorflow_did(mode, wanted):
    """Opset 11 could have the element n of the result lie at (n + 0.5) / scale."""
    attributes = 'nearest_mode = "floor", coordinate_transformation_mode = "tf_half_pixel_for_nn"'
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 11]> g (float[3] x) => (float[6] y) <float[0] r = {}, float[1] s = {2}>'
        f'{{ y = Resize <mode = "{mode}", {attributes}> (x, r, s) }}'
    )
    result = partita.compile(model, build=BUILD).run({"x": floats(0, 1, 2)})["y"]
    np.testing.assert_allclose(result, wanted, rtol=1e-6)


def test_zeros_are_equal_whatever_their_sign():
    assert results("y, i = TopK(x, k)", {"x": floats(-0.0, 0.0, -0.0)}, {"k": np.array([3])}, "yi")[1] == [0, 1, 2]
    assert results("y, i, j, c = Unique(x)", {"x": floats(0.0, -0.0)}, {}, "yijc")[3] == [2]
    assert results("y = NonZero(x)", {"x": floats(-0.0, NAN, 0.0, 1)}) == [[[1, 3]]]


def test_a_scalar_has_no_index():
    batch = Batch()
    batch.add("y = NonZero(x)", {"x": np.array(3.0, np.float32)})
    assert batch.compile().run(batch.inputs)["n0_y"].shape == (0, 1)


def test_the_unit_of_a_zero_vector_is_zero():
    assert results("y = LpNormalization <axis = 0> (x)", {"x": floats(0, 0)}) == [[0, 0]]
    assert results("y = LpNormalization <axis = 0, p = 1> (x)", {"x": floats(-1, 3)}) == [[-0.25, 0.75]]


def test_boxes_of_no_limit_score_or_area():
    boxes, scores = (
        floats([[0, 0, 1, 1], [0, 0, 1, 1], [5, 5, 5, 5], [5, 5, 5, 5]])[None, 0],
        floats([[[1, NAN, 3, 3]]])[0],
    )
    given = {"x": boxes, "s": scores}
    assert results("y = NonMaxSuppression(x, s)", given) == [[]]
    chosen = results("y = NonMaxSuppression(x, s, m)", given, {"m": np.array([9])})
    assert chosen == [[[0, 0, 2], [0, 0, 3], [0, 0, 0]]]


def test_products_of_half_floats_are_rounded_once():
    x = np.full((1, 3), 1.001, np.float16)
    exact = np.float16((x.astype(np.float64) @ x.astype(np.float64).T).item())
    assert results("y = MatMul(x, w)", {"x": x}, {"w": x.T}) == [[[exact]]]
    assert results("y = Conv(x, w)", {"x": x[None]}, {"w": x[None]}) == [[[[exact]]]]
    assert results('y = Einsum <equation = "ij,ij->"> (x, w)', {"x": x}, {"w": x}) == [exact]


def test_blocks_of_a_vector_have_a_scale_each():
    x, scale = np.arange(4, dtype=np.int8), floats(1, 10)
    text = "y = DequantizeLinear <axis = 0, block_size = 2> (x, s)"
    assert results(text, {"x": x, "s": scale}) == [[0, 1, 20, 30]]
    text = "y = QuantizeLinear <axis = 0, block_size = 2, output_dtype = 3> (x, s)"
    assert results(text, {"x": floats(0, 1, 20, 30), "s": scale}) == [[0, 1, 2, 3]]


def test_what_is_cut_from_an_odd_rest_lies_behind():
    assert results("y = CenterCropPad(x, s)", {"x": floats(1, 2, 3, 4)}, {"s": np.array([1])}) == [[2]]
    assert results("y = CenterCropPad(x, s)", {"x": floats(1, 2)}, {"s": np.array([5])}) == [[0, 1, 2, 0, 0]]


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_mean_and_variance_of_any_float(kind):
    x = np.random.default_rng(0).normal(2, 3, (2, 3, 4, 5)).astype(kind)
    (found,) = results("y = MeanVarianceNormalization <axes = [0, 2, 3]> (x)", {"x": x})
    exact = x.astype(np.float64)
    centered = exact - exact.mean((0, 2, 3), keepdims=True)
    wanted = centered / (np.sqrt((centered**2).mean((0, 2, 3), keepdims=True)) + 1e-9)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=16 * np.finfo(kind).eps)


def test_a_scale_of_another_type_decides_the_type_of_the_result():
    x, scale = np.float32([[1, 2], [3, 4]]), np.float16([0.5, 2])
    batch = Batch(opset=28)
    batch.add("y = RMSNormalization(x, w)", {"x": x, "w": scale})
    found = batch.compile().run(batch.inputs)["n0_y"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, x / np.sqrt((x**2).mean(1, keepdims=True)) * scale, rtol=1e-3)


def test_attention_to_values_of_another_type():
    random = np.random.default_rng(0)
    q, k, v, old = (random.normal(size=(1, 2, 3, 4)) for _ in range(4))
    given = {"q": np.float32(q), "k": np.float32(k), "v": np.float16(v), "p": np.float32(old), "o": np.float16(old)}
    batch = Batch(opset=28)
    batch.add("y, a, b = Attention(q, k, v, , p, o)", given, outputs="yab")
    found = batch.compile().run(batch.inputs)
    assert [found[f"n0_{name}"].dtype for name in "yab"] == [np.float32, np.float32, np.float16]
    keys, values = np.concatenate([old, k], 2), np.concatenate([given["o"], given["v"]], 2)
    products = np.exp(q @ keys.swapaxes(2, 3) / 2)
    shares = products / products.sum(-1, keepdims=True)
    np.testing.assert_allclose(found["n0_y"], shares @ values.astype(float), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found["n0_b"], values)


@pytest.mark.parametrize(
    ("inputs", "node", "problem"),
    [
        ("float[3] x", "y, i = TopK(x, k)", "k is 4, but axis 0 has 3 elements"),
        ("float[2, 3] x", "y = Det(x)", "matrices of 2 by 3 have no determinant"),
        ("float[1, 3, 3] x, float[2, 1, 1] w", "y = ConvTranspose(x, w)", "3 channels in 1 groups for weights of 2"),
        ("float[2, 2] x", "y = DFT(x, , one)", "the last axis holds real and imaginary parts"),
        ("float[2, N] x", "y = DFT(x)", "whether there are imaginary parts must be known"),
        (
            "float[1, 2, 4] x",
            "y, p = LinearAttention <q_num_heads = 1, kv_num_heads = 1> (x, x, x)",
            "the rule 'gated_delta' needs decay",
        ),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(inputs, node, problem):
    text = f"""<ir_version: 10, opset_import: ["" : 27]>
        g ({inputs}) => (float y) <int64[1] k = {{4}}, int64 one = {{1}}> {{ {node} }}"""
    with pytest.raises((ModelError, ShapeError), match=problem):
        partita.compile(onnx.parser.parse_model(text))


def test_more_than_there_is_fails_when_it_runs():
    with pytest.raises(InputError, match="k is more than there are elements"):
        results("y, i = TopK(x, k)", {"x": floats(1, 2), "k": np.array([3])}, {}, "yi")


@pytest.mark.parametrize(
    ("text", "sizes", "problem"),
    [
        ("y = Expand(x, s)", [2, 2], r"sizes 3 and .* \(2\) have to be equal"),
        ("y = Reshape(x, s)", [2, 2], r"sizes 3 and .* \(4\) have to be equal"),
        ("y, z = Split(x, s)", [1, 1], r"sizes .* \(2\) and 3 have to be equal"),
        ("y, z = Split(x, s)", [-1, 4], "a size of -1, which is negative"),
        ("y = Expand(x, s)", [-2, 3], "a size of -2, which is negative"),
        ("y = Reshape(x, s)", [2**62, 4], "have to be equal"),
    ],
)
def test_sizes_from_data_that_do_not_fit_fail_when_it_runs(text, sizes, problem):
    with pytest.raises(InputError, match=problem):
        results(text, {"x": floats(1, 2, 3), "s": np.array(sizes)})


def test_a_place_outside_of_the_image_fails_when_it_runs():
    with pytest.raises(ExecutionError, match="an index lies outside its tensor"):
        results("y = MaxUnpool <kernel_shape = [2]> (x, i)", {"x": floats([[[1.0]]])[0], "i": np.array([[[2]]])})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("y = ReduceMean(x)", 300),
        ("y = ReduceL2 <keepdims = 0> (x)", 6000),
        ("y = GlobalAveragePool(x)", 300),
        ("y = AveragePool <kernel_shape = [400]> (x)", 300),
        ("y = LpPool <kernel_shape = [400]> (x)", 6000),
        ("y = ReduceLogSumExp(x)", 306),
    ],
)
def test_sums_that_half_floats_cannot_hold_are_rounded_at_the_end(text, wanted):
    (found,) = results(text, {"x": np.full((1, 1, 400), 300, np.float16)})
    assert np.reshape(found, -1) == pytest.approx([wanted], rel=1e-3)
