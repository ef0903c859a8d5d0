"""Networks of several kernels on the host: what is fused, viewed, overwritten or computed at bind time, in any mix."""

from __future__ import annotations

import numpy as np
import pytest
from batch import Batch
from harness import array
from random_networks import random_network

from partita.backends.cpu import lower

NETWORKS = 40


def random_batch(seed: int, nodes: int) -> Batch:
    batch = Batch()
    for number in range(seed, seed + NETWORKS):
        batch.add(*random_network(number, nodes))
    return batch


@pytest.mark.parametrize(("seed", "nodes"), [(0, 6), (5000, 20), (5040, 20), (5240, 20), (400, 9), (560, 9)])
def test_random_networks(seed, nodes):
    random_batch(seed, nodes).check(2e-5)


def test_fused_and_unfused_agree(monkeypatch):
    batch = random_batch(100, 10)
    fused = batch.compile().run(batch.inputs)
    monkeypatch.setattr(lower, "fuse", lambda graph, fusion: False)
    plain = batch.compile()
    batch.compare(plain, 2e-5)
    for name, value in plain.run(batch.inputs).items():
        np.testing.assert_allclose(fused[name], value, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(value).max())))


def test_an_operand_read_as_a_view_too_is_not_overwritten():
    """q could take a's memory, but for the transposed view of it that is still being read."""
    batch = Batch()
    batch.add(
        "a = Relu(x); v = Reshape(a, s); t = Transpose(v); q = Add(a, t); y = MatMul(q, w)",
        {"x": array(40, 30)},
        {"s": np.array([30, 40]), "w": array(30, 8)},
    )
    batch.check()


def test_a_view_of_a_parameter_may_be_an_output():
    batch = Batch()
    for rest in ("", "; z = Exp(y)", "; z = Add(x, y)"):
        outputs = ["y", "z"] if rest else ["y"]
        batch.add(f"y = Reshape(w, s){rest}", {"x": array(6)}, {"w": array(2, 3), "s": np.array([6])}, outputs)
    batch.inputs = {name: value for name, value in batch.inputs.items() if any(name in n.input for n in batch.nodes)}
    batch.check()


def test_empty_tensors():
    batch = Batch()
    batch.add("y = MatMul(x, w)", {"x": array(5, 0)}, {"w": array(0, 70)})
    batch.add("y = MatMul(x, w)", {"x": array(0, 5)}, {"w": array(5, 70)})
    batch.add("y = Conv(x, w)", {"x": array(0, 3, 5, 5)}, {"w": array(8, 3, 3, 3)})
    batch.add("a = Relu(x); y = Add(a, x)", {"x": array(0, 3)})
    batch.check()
