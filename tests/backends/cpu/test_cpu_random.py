"""Random numbers: those of NumPy's RandomState with a seed; others in every run without one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from harness import BUILD
from onnx import TensorProto, helper

import partita

Array = np.ndarray[Any, Any]


def compiled(
    op: str, given: Mapping[str, Array], outputs: int = 1, **attributes: Any
) -> partita.runtime.MetadataModule:
    """A node on inputs of symbolic sizes."""
    names = [f"y{n}" for n in range(outputs)]
    node = helper.make_node(op, list(given), names, **attributes)
    infos = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), [f"{name}{n}" for n in range(array.ndim)]
        )
        for name, array in given.items()
    ]
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=name) for name in names])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    return partita.compile(onnx.shape_inference.infer_shapes(proto), build=BUILD)


def run(op: str, given: Mapping[str, Array], outputs: int = 1, **attributes: Any) -> list[Array]:
    with compiled(op, given, outputs, **attributes) as module:
        return list(module.run(dict(given)).values())


X = {"x": np.zeros((7, 501), np.float32)}


@pytest.mark.parametrize("seed", [0, 1, 9_999_999])
def test_uniform_numbers_are_numpys(seed):
    wanted = np.random.RandomState(seed).rand(7, 501)
    found = run("RandomUniformLike", X, seed=float(seed), dtype=TensorProto.DOUBLE)[0]
    np.testing.assert_array_equal(found, wanted)
    found = run("RandomUniform", {}, shape=[7, 501], seed=float(seed), low=-1.0, high=3.0)[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted * 4 - 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2000,)])
def test_normal_numbers_are_numpys(shape):
    wanted = np.random.RandomState(5).randn(*shape)
    found = run("RandomNormal", {}, shape=list(shape), seed=5.0, dtype=TensorProto.DOUBLE)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-14)
    found = run("RandomNormalLike", {"x": np.zeros(shape, np.float32)}, seed=5.0, mean=2.0, scale=3.0)[0]
    np.testing.assert_allclose(found, wanted * 3 + 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [None, TensorProto.INT64])
def test_bernoulli_draws_as_numpy_does(dtype):
    probabilities = np.random.RandomState(1).uniform(0.001, 1, 3000)
    (found,) = run("Bernoulli", {"x": probabilities}, seed=9.0, dtype=dtype)
    np.testing.assert_array_equal(found, np.random.RandomState(9).binomial(1, probabilities))
    assert found.dtype == (np.float64 if dtype is None else np.int64)


def test_bernoulli_is_certain_of_0_and_1():
    assert run("Bernoulli", {"x": np.array([0.0, 1.0] * 200)})[0].tolist() == [0.0, 1.0] * 200


def test_multinomial_counts():
    logits = np.log(np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 1e-30]], np.float32) * 4)
    (found,) = run("Multinomial", {"x": logits}, seed=3.0, sample_size=20_000)
    assert (found.shape, found.dtype) == ((2, 20_000), np.int32)
    shares = [np.bincount(row, minlength=3) / 20_000 for row in found]
    np.testing.assert_allclose(shares, [[0.1, 0.2, 0.7], [0.5, 0.5, 0]], atol=0.02)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_dropout_drops_while_training(ratio, training):
    x = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    given = {"x": x, "r": np.array(ratio, np.float32), "t": np.array(training)}
    result, mask = run("Dropout", given, 2, seed=4)
    wanted = np.random.RandomState(4).uniform(size=x.shape) >= ratio if training else np.ones(x.shape, bool)
    np.testing.assert_array_equal(mask, wanted)
    scale = 1 / (1 - ratio) if training and ratio < 1 else 1
    np.testing.assert_allclose(result, np.where(wanted, x * scale, 0), rtol=1e-6)


def test_without_a_seed_every_run_is_another():
    for op in ("RandomUniformLike", "RandomNormalLike"):
        with compiled(op, X) as module:
            first, second = (module.run(X)["y0"] for _ in range(2))
        assert (first != second).mean() > 0.9
        assert abs(first.mean() - second.mean()) < 0.2


def test_with_a_seed_every_run_is_the_same():
    with compiled("RandomNormalLike", X, seed=1.0) as module:
        np.testing.assert_array_equal(module.run(X)["y0"], module.run(X)["y0"])


def test_two_nodes_without_a_seed_draw_other_numbers():
    text = """<ir_version: 10, opset_import: ["" : 22]>
        g (float[N] x) => (float[N] a, float[N] b) { a = RandomUniformLike(x)  b = RandomUniformLike(x) }"""
    with partita.compile(onnx.parser.parse_model(text), build=BUILD) as module:
        results = module.run({"x": np.zeros(100, np.float32)})
    assert (results["a"] != results["b"]).any()
