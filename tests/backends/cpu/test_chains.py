"""Chains: products of many matrices, and rows between them, one matrix after the other."""

from __future__ import annotations

import numpy as np
import pytest
from batch import Batch
from harness import array

import partita
from partita.backends.cpu import chains

ATTENTION = "s = MatMul(q, k); a = Mul(s, f); b = Add(a, m); p = Softmax(b); y = MatMul(p, v)"
ATTENTION_IN_ONE = "MatMul + Mul + Add + ReduceMax + ExpBelow + ReduceSum + Div + MatMul"


def attention(lead: tuple[int, ...], queries: int, keys: int, depth: int, width: int) -> dict[str, np.ndarray]:
    """Operands of `ATTENTION`; the mask is the first axis' alone."""
    return {
        "q": array(*lead, queries, depth, seed=1),
        "k": array(*lead, depth, keys, seed=2),
        "v": array(*lead, keys, width, seed=3),
        "m": array(lead[0], *[1] * len(lead), keys, seed=4),
        "f": np.array(0.25, np.float32),
    }


def code(module: partita.MetadataModule) -> str:
    return "".join(source.text for source in module.sources())


@pytest.mark.parametrize(
    ("lead", "sizes"),
    [((2, 4), (9, 7, 5, 3)), ((8,), (16, 16, 32, 32)), ((1, 9), (5, 33, 17, 70)), ((3, 1, 3), (4, 1, 8, 1))],
)
def test_attention_is_one_kernel(lead, sizes):
    batch = Batch()
    batch.add(ATTENTION, attention(lead, *sizes))
    module = batch.check()
    assert ATTENTION_IN_ONE in code(module)


@pytest.mark.parametrize("operand", [(), (6,), (5, 1), (5, 6), (1, 1, 1), (4, 1, 6), (2, 1, 1, 1), (2, 4, 5, 6)])
def test_operands_of_every_shape_meet_the_last_product(operand):
    batch = Batch()
    inputs = attention((2, 4), 5, 7, 3, 6) | {"r": array(*operand, seed=7)}
    text = ATTENTION.replace("y = MatMul(p, v)", "c = MatMul(p, v); y = Sub(r, c)")
    batch.add(text, inputs)
    assert f"{ATTENTION_IN_ONE} + Sub" in code(batch.check())


def test_products_alone_make_a_chain():
    inputs = {
        "x": array(8, 5, 7),
        "w": array(8, 7, 9, seed=1),
        "v": array(8, 9, 4, seed=2),
        "u": array(8, 6, 5, seed=3),
    }
    batch = Batch()
    batch.add("a = MatMul(x, w); b = Relu(a); c = MatMul(b, v); y = MatMul(u, c)", inputs)
    assert "MatMul + Relu + MatMul + MatMul" in code(batch.check())


@pytest.mark.parametrize("layers", [1, 5])
def test_networks_of_one_file_and_of_several(layers):
    batch = Batch()
    for seed in range(layers):
        operands = attention((2, 4), 6, 5, 4, 3)
        batch.add(ATTENTION, {name: np.asarray(value + np.float32(seed / 8)) for name, value in operands.items()})
        sizes = (seed + 1, 2, 3)
        batch.add("y = Softmax(x)", {"x": array(*sizes)})
        batch.add("a = Exp(x); y = ReduceSum(a)", {"x": array(*sizes)})
    assert code(batch.check()).count(f"{ATTENTION_IN_ONE} */") == layers


@pytest.mark.parametrize(
    ("text", "outputs", "why"),
    [
        (ATTENTION, ("p", "y"), "the shares are an output"),
        (ATTENTION.replace("y =", "z =") + "; o = ReduceSum(p); y = Add(o, z)", ("y",), "others read the shares"),
        (ATTENTION.replace("Softmax(b)", "Softmax <axis = 1> (b)"), ("y",), "shares of rows of other matrices"),
        (ATTENTION.replace("MatMul(p, v)", "MatMul(v, p)"), ("y",), "the last product has matrices of its own"),
    ],
)  # fmt: skip
def test_what_others_read_is_passed_on_whole(text, outputs, why):
    inputs = attention((2, 4), 5, 5, 5, 5)
    if "MatMul(v, p)" in text:
        inputs["v"] = array(3, 2, 4, 5, 5, seed=3)  # more results than shares
    batch = Batch()
    batch.add(text, inputs, outputs=outputs)
    assert ATTENTION_IN_ONE not in code(batch.check()), why


def test_large_matrices_are_passed_on_whole(monkeypatch):
    monkeypatch.setattr(chains, "LARGEST", 4 * 5 * 7 - 1)
    batch = Batch()
    batch.add(ATTENTION, attention((2, 4), 5, 7, 3, 6))
    assert ATTENTION_IN_ONE not in code(batch.check())
