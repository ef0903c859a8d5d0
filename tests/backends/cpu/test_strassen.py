"""Strassen's product: the same numbers with every epilogue, errors that are told, and only where it was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from batch import Batch
from epilogues import add_all
from harness import BUILD, Array, array

import partita
from partita.errors import BackendError

SHAPES = {
    "[M, K] x [K, N]": ("c = MatMul(x, w)", (32, 256), (256, 64)),
    "a batch of rows": ("c = MatMul(x, w)", (2, 3, 14, 258), (258, 128)),
    "Gemm, transposed": ("c = Gemm <transB = 1> (x, w)", (58, 272), (192, 272)),
}


def compiled(batch: Batch, *algorithms: str) -> partita.MetadataModule:
    return partita.compile(batch.model(), name="batch", build=BUILD, fast_math=algorithms)


def code(module: partita.MetadataModule) -> str:
    return "".join(source.text for source in module.sources())


def product(shape: str) -> Batch:
    text, x, w = SHAPES[shape]
    batch = Batch()
    batch.add(text, {"x": array(*x)}, {"w": array(*w, seed=1)}, outputs=["c"])
    return batch


@pytest.mark.parametrize("shape", SHAPES)
def test_every_epilogue_follows(shape):
    text, x, w = SHAPES[shape]
    batch = Batch()
    add_all(batch, text, {"x": array(*x)}, {"w": array(*w, seed=1) / 16})  # results of about one
    module = compiled(batch, "strassen")
    assert "StrassenMatMul + Relu" in code(module)
    batch.compare(module, 1e-5)


def test_it_is_used_only_where_it_was_asked_for():
    batch = product("[M, K] x [K, N]")
    assert "StrassenMatMul" in code(compiled(batch, "strassen"))
    assert "StrassenMatMul" not in code(compiled(batch))


@pytest.mark.parametrize(
    ("x", "w", "why"),
    [
        ((32, 254), (254, 64), "half the sum is short"),
        ((30, 256), (256, 64), "half the rows are few"),
        ((33, 256), (256, 64), "rows are odd"),
        ((32, 257), (257, 64), "the sum is odd"),
        ((32, 256), (256, 80), "half the columns fill no panels"),
    ],
)
def test_small_and_odd_products_stay_plain(x, w, why):
    batch = Batch()
    batch.add("y = MatMul(x, w)", {"x": array(*x)}, {"w": array(*w, seed=1)})
    module = compiled(batch, "strassen")
    assert "StrassenMatMul" not in code(module), why
    batch.compare(module)


def test_its_error_is_a_few_times_the_plain_sum_s():
    """Against a float64 product: the documentation says up to four times."""
    x, w = array(128, 512), array(512, 256, seed=1)
    exact = x.astype(np.float64) @ w
    batch = Batch()
    batch.add("y = MatMul(x, w)", {"x": x}, {"w": w})

    def error(module: partita.MetadataModule) -> float:
        (result,) = module.run(batch.inputs).values()
        return float(np.abs(result - exact).max())

    plain, fast = error(compiled(batch)), error(compiled(batch, "strassen"))
    assert plain < fast < 4 * plain


def test_other_weights_take_the_same_code():
    batch = product("[M, K] x [K, N]")
    module = compiled(batch, "strassen")
    (name,) = batch.weights
    other: Array = array(256, 64, seed=9)
    module = module.bind({name: other})
    (result,) = module.run(batch.inputs).values()
    (x,) = batch.inputs.values()
    np.testing.assert_allclose(result, x @ other, rtol=1e-4, atol=1e-4)


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(BackendError, match="fast_math has no 'karatsuba'; there is 'strassen'"):
        compiled(product("[M, K] x [K, N]"), "karatsuba")
