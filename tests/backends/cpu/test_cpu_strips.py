"""Sums down columns: products of few rows, and reductions over axes that are not the last one."""

import numpy as np
import pytest
from batch import Batch

RANDOM = np.random.default_rng(7)
COLUMNS = (7, 8, 9, 63, 64, 256, 257, 300, 513)


def array(*shape, kind=np.float32):
    if np.dtype(kind).kind in "iu":
        return RANDOM.integers(-9 if np.dtype(kind).kind == "i" else 0, 9, shape).astype(kind)
    return RANDOM.standard_normal(shape).astype(kind)


@pytest.mark.parametrize("is_dynamic", [False, True])
@pytest.mark.parametrize("columns", COLUMNS)
def test_products_of_few_rows(columns, is_dynamic):
    batch = Batch(is_dynamic=is_dynamic)
    for rows in (1, 2, 3):
        a, b, c = array(rows, 17), array(17, columns), array(columns)
        batch.add("y = MatMul(a, b)", {"a": a, "b": b})
        batch.add("m = MatMul(a, b); s = Add(m, c); y = Relu(s)", {"a": a, "b": b, "c": c})
        d = c if is_dynamic else array(rows, 1)  # sizes that only a run tells do not broadcast
        batch.add("m = MatMul(a, b); s = Mul(m, c); t = Sub(s, m); y = Sigmoid(t)", {"a": a, "b": b, "c": d})
        batch.add("y = Gemm <alpha = 0.5, beta = 2.0> (a, b, c)", {"a": a, "b": b, "c": c})
        batch.add("y = MatMul(a, b)", {"a": array(3, 2, rows, 17), "b": array(2, 17, columns)})
    batch.add("y = MatMul(a, b)", {"a": array(17), "b": array(17, columns)})
    batch.check()


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int32, np.int64, np.uint8, np.int8])
def test_sums_of_every_type(kind):
    """What is narrower than float32 is rounded once; narrow integers wrap as they do elsewhere."""
    batch = Batch()
    for columns in (9, 300):
        x = array(5, 11, columns, kind=kind)
        axes = {"a": np.array([1])}
        reductions = ["ReduceMax", "ReduceMin"]
        if np.dtype(kind).itemsize > 1:
            reductions += ["ReduceSum", "ReduceL1", "ReduceProd"]
        for name in reductions:
            if kind is not np.float16 or name != "ReduceProd":
                batch.add(f"y = {name} <keepdims = 0> (x, a)", {"x": x}, axes)
        if np.dtype(kind).itemsize > 2:
            batch.add("y = MatMul(x, b)", {"x": array(2, 11, kind=kind), "b": x})
    batch.check(2e-3 if kind is np.float16 else 1e-5)


def test_sums_over_several_axes_and_of_what_is_computed():
    batch = Batch(opset=22)
    x, w = array(3, 4, 5, 70), array(4, 1, 70)
    axes = {"a": np.array([0, 2])}
    batch.add("y = ReduceMean <keepdims = 1> (x, a)", {"x": x}, axes)
    batch.add("e = Mul(x, w); f = Exp(e); y = ReduceSum <keepdims = 0> (f, a)", {"x": x, "w": w}, axes)
    batch.add("s = ReduceL2 <keepdims = 0> (x, a); m = ReduceMax <keepdims = 0> (x, a); y = Div(s, m)", {"x": x}, axes)
    batch.add("y = ReduceLogSumExp <keepdims = 0> (x, a)", {"x": x}, axes)
    batch.add('y = Einsum <equation = "ijk,jk->k"> (x, w)', {"x": array(3, 4, 70), "w": array(4, 70)})
    batch.check()


def test_nan_is_every_extreme_of_its_column():
    x = array(6, 40)
    x[2, 3], x[0, 5], x[5, 39] = np.nan, np.inf, np.nan
    x[:, 7], x[:, 8] = -np.inf, np.inf
    for kind in (np.float32, np.float64):
        batch = Batch()
        batch.add("y = ReduceMax(x, a); z = ReduceMin(x, a)", {"x": x.astype(kind)}, {"a": np.array([0])}, "yz")
        found = batch.compile().run(batch.inputs)
        np.testing.assert_array_equal(found["n0_y"], x.astype(kind).max(0, keepdims=True))
        np.testing.assert_array_equal(found["n0_z"], x.astype(kind).min(0, keepdims=True))


def test_nothing_sums_to_nothing():
    batch = Batch(is_dynamic=True)
    batch.add("y = MatMul(a, b)", {"a": array(2, 0), "b": array(0, 40)})
    batch.add("y = MatMul(a, b)", {"a": array(2, 3), "b": array(3, 0)})
    batch.check()


def test_strips_are_shared_out_among_threads():
    a, b = array(2, 600), array(600, 5000)
    batch = Batch()
    batch.add("y = MatMul(a, b)", {"a": a, "b": b})
    module = batch.compile()
    one, two = (module.open_instance(threads=n).run(batch.inputs)["n0_y"] for n in (1, 2))
    np.testing.assert_array_equal(one, two)
    np.testing.assert_allclose(one, a @ b, rtol=1e-3, atol=1e-3)
