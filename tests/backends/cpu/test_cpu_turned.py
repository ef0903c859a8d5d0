"""Results whose neighbours lie far apart in an operand: any sizes, whatever else the loops compute."""

from __future__ import annotations

import numpy as np
import pytest
from batch import Batch
from harness import array
from test_cpu_targets import build_for

SHAPES = [
    (8, 8),
    (16, 16),
    (15, 17),
    (33, 8),
    (7, 40),
    (32, 65),
    (3, 16, 20),
    (20, 3, 16),
    (2, 9, 4, 11),
    (1, 50, 1, 9),
]

NETWORKS = {
    "alone": "y = Transpose <perm = {perm}> (x)",
    "pointwise": "a = Transpose <perm = {perm}> (x); b = Mul(a, s); y = Tanh(b)",
    "before": "a = Exp(x); y = Transpose <perm = {perm}> (a)",
    "beside one that goes along": "a = Transpose <perm = {perm}> (x); b = Relu(r); y = Sub(a, b)",
    "both across": "a = Transpose <perm = {perm}> (x); b = Transpose <perm = {perm}> (z); y = Sub(a, b)",
    "read twice": "a = Transpose <perm = {perm}> (x); b = Sigmoid(a); y = Mul(a, b)",
    "under a condition": "a = Transpose <perm = {perm}> (x); b = Concat <axis = -1> (a, r); y = Relu(b)",
    "chosen": "a = Transpose <perm = {perm}> (x); b = Greater(r, s); y = Where(b, a, r)",
    "turned and summed": "a = Transpose <perm = {perm}> (x); y = ReduceSum(a, last)",
    "compared": "a = Transpose <perm = {perm}> (x); y = Less(a, r)",
    "integers": "n = Cast <to = 6> (x); y = Transpose <perm = {perm}> (n)",
    "half precision": "n = Cast <to = 10> (x); a = Transpose <perm = {perm}> (n); y = Neg(a)",
    "a part": "a = Slice(x, one, far); y = Transpose <perm = {perm}> (a)",
}


def batch(*, is_dynamic: bool = False) -> Batch:
    networks = Batch(is_dynamic=is_dynamic)
    for shape in SHAPES:
        rank = len(shape)
        perms = [list(reversed(range(rank))), [*range(rank - 2), rank - 1, rank - 2], [rank - 1, *range(rank - 1)]]
        for perm in perms[: 2 if rank == 2 else 3]:
            x, z, result = array(*shape), array(*shape, seed=1), [shape[axis] for axis in perm]
            for name, text in NETWORKS.items():
                text = text.format(perm=perm)
                inputs = {"x": x, "z": z, "r": array(*result, seed=2)}
                weights = {"s": np.float32(0.5), "last": np.array([-1]), "one": np.array([1]), "far": np.array([99])}
                used = {n for part in text.split(";") for n in part.partition("(")[2].strip(" )").split(", ")}
                if not (is_dynamic and name == "a part"):
                    networks.add(
                        text,
                        {n: v for n, v in inputs.items() if n in used},
                        {n: np.asarray(v) for n, v in weights.items() if n in used},
                    )
    return networks


def test_turned():
    batch().check()


def test_turned_at_any_size():
    batch(is_dynamic=True).check()


@pytest.mark.parametrize("mcpu", ["x86-64-v3", "x86-64"])
def test_turned_on_other_targets(mcpu):
    networks = batch()
    networks.compare(networks.compile(build_for(mcpu)))


@pytest.mark.parametrize("size", [5, 8, 16])
def test_what_moves_elements_does_not_write_over_what_it_reads(size):
    """The shape is the same on both sides: nothing but the places of elements tells that they move."""
    batch = Batch()
    x, w = {"x": array(size, size)}, {"w": array(size, size), "k": array(size, 1)}
    batch.add("c = MatMul(x, w); m = Mul(c, k); y = Transpose <perm = [1, 0]> (m)", x, w)
    batch.add("c = MatMul(x, w); r = Relu(c); m = Mul(r, k); t = Transpose(m); y = Sub(t, k)", x, w)
    image = {"x": array(1, 32, size, size)}
    weights = {"w": array(24, 32, 3, 3), "v": array(24, 24, 1, 1)}
    text = "c = Conv <pads = [1, 1, 1, 1]> (x, w); p = GlobalAveragePool(c); q = Conv(p, v); h = HardSigmoid(q)"
    batch.add(f"{text}; y = Mul(c, h)", image, weights)
    batch.add(f"{text}; m = Mul(c, h); y = Add(c, m)", image, weights)
    batch.check()
