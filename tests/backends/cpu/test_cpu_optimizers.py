"""Training steps: two parameters at once, at the first step and later ones, against NumPy in float64."""

from __future__ import annotations

from typing import Any

import harness
import numpy as np
import onnx
import pytest
from onnx import helper

from partita import compile

Array = np.ndarray[Any, Any]
DOMAIN = "ai.onnx.preview.training"


def run(name: str, count: int, moments: int, **attributes: Any) -> tuple[list[Array], list[Array]]:
    """(operands, outputs) of a step on two parameters of other shapes; moments are positive."""
    shapes = [(3,), (2, 2)]
    kinds = ["x", "g", "m", "h"][: 2 + moments]
    operands = {
        f"{kind}{n}": harness.array(*shape, seed=7 * n + k)
        for k, kind in enumerate(kinds)
        for n, shape in enumerate(shapes)
    }
    for key in operands:
        operands[key] = np.abs(operands[key]) if key[0] in "mh" else operands[key]
    feeds: dict[str, Array] = {"r": np.float32(0.1).reshape(()), "t": np.asarray(count), **operands}
    outputs = [f"new_{key}" for key in operands if key[0] != "g"]
    node = helper.make_node(name, list(feeds), outputs, domain=DOMAIN, **attributes)
    infos = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()
    ]
    types = [helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, operands[k[4:]].shape) for k in outputs]
    graph = helper.make_graph([node], "g", infos, types)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22), helper.make_opsetid(DOMAIN, 1)])
    with compile(proto, build=harness.BUILD) as module:
        results = module.run(feeds)
    return list(feeds.values()), [results[key] for key in outputs]


def close(given: list[Array], wanted: list[Array]) -> None:
    for one, other in zip(given, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("mode", ["standard", "nesterov"])
def test_momentum(count: int, mode: str) -> None:
    operands, given = run("Momentum", count, 1, alpha=0.9, beta=0.5, norm_coefficient=0.01, mode=mode)
    r, _, x0, x1, g0, g1, m0, m1 = (o.astype(np.float64) for o in operands)
    news, moves = [], []
    for x, g, m in [(x0, g0, m0), (x1, g1, m1)]:
        slope = g + 0.01 * x
        new = 0.9 * m + (0.5 if count else 1) * slope
        news.append(new)
        moves.append(x - r * (slope + 0.9 * new if mode == "nesterov" else new))
    close(given, moves + news)


@pytest.mark.parametrize("count", [0, 1000])
def test_adam(count: int) -> None:
    operands, given = run("Adam", count, 2, norm_coefficient=0.02, norm_coefficient_post=0.1, epsilon=1e-3)
    r, _, x0, x1, g0, g1, m0, m1, h0, h1 = (o.astype(np.float64) for o in operands)
    columns = []
    for x, g, m, h in [(x0, g0, m0, h0), (x1, g1, m1, h1)]:
        slope = g + 0.02 * x
        first, second = 0.9 * m + 0.1 * slope, 0.999 * h + 0.001 * slope**2
        rate = r * np.sqrt(1 - 0.999**count) / (1 - 0.9**count) if count else r
        columns.append((0.9 * (x - rate * first / (np.sqrt(second) + 1e-3)), first, second))
    close(given, [column[n] for n in range(3) for column in columns])


@pytest.mark.parametrize("count", [0, 5])
def test_adagrad(count: int) -> None:
    operands, given = run("Adagrad", count, 1, norm_coefficient=0.02, decay_factor=0.1, epsilon=1e-3)
    r, _, x0, x1, g0, g1, h0, h1 = (o.astype(np.float64) for o in operands)
    columns = []
    for x, g, h in [(x0, g0, h0), (x1, g1, h1)]:
        slope = g + 0.02 * x
        squares = h + slope**2
        columns.append((x - r / (1 + 0.1 * count) * slope / (np.sqrt(squares) + 1e-3), squares))
    close(given, [column[n] for n in range(2) for column in columns])
