"""Blocked tensors whose channels are shuffled, or have padding between them: every reader finds its channels."""

from __future__ import annotations

import numpy as np
import pytest
from batch import Batch
from epilogues import add_all
from harness import Array, array
from test_cpu_targets import build_for

# What makes `u` of 136 channels, from `m` of 136 channels and `o` of 68, which are blocked.
ORDERS = {
    "in order": "u = Relu(m)",
    "shuffled": "f = Reshape(m, wide); g = Transpose <perm = [0, 2, 1, 3, 4]> (f); u = Reshape(g, narrow)",
    "shuffled by three": "f = Reshape(m, three); g = Transpose <perm = [0, 3, 1, 2, 4, 5]> (f); u = Reshape(g, narrow)",
    "joined": "u = Concat <axis = 1> (o, o)",
    "joined and shuffled": (
        "p = Concat <axis = 1> (o, o); f = Reshape(p, wide); g = Transpose <perm = [0, 2, 1, 3, 4]> (f); "
        "u = Reshape(g, narrow)"
    ),
}

READERS: dict[str, tuple[str, dict[str, Array]]] = {
    "nothing": ("c = Relu(u)", {}),
    "1x1": ("c = Conv(u, v)", {"v": array(24, 136, 1, 1)}),
    "3x3": ("c = Conv <pads = [1, 1, 1, 1]> (u, v)", {"v": array(20, 136, 3, 3)}),
    "stride 2": ("c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (u, v)", {"v": array(20, 136, 3, 3)}),
    "depthwise": ("c = Conv <group = 136, pads = [1, 1, 1, 1]> (u, v)", {"v": array(136, 1, 3, 3)}),
    "groups": ("c = Conv <group = 4> (u, v, h)", {"v": array(20, 34, 1, 1), "h": array(20)}),
    "many groups": ("c = Conv <group = 68, pads = [1, 1, 1, 1]> (u, v)", {"v": array(204, 2, 3, 3)}),
    "groups, padded and added": (
        "i = Conv <group = 2, pads = [1, 1, 1, 1]> (u, v); c = Add(i, u)",
        {"v": array(136, 68, 3, 3)},
    ),
    "pool": ("c = MaxPool <kernel_shape = [3, 2], strides = [2, 1]> (u)", {}),
    "global pool": ("c = GlobalAveragePool(u)", {}),
    "resized": ("c = Resize(u, , twice)", {"twice": np.array([1, 1, 2, 1.5], np.float32)}),
    "resized by lines": ('c = Resize <mode = "linear"> (u, , , sides)', {"sides": np.array([2, 136, 7, 4])}),
    "resized by curves": (
        'c = Resize <mode = "cubic", antialias = 1> (u, , , sides)',
        {"sides": np.array([2, 136, 3, 9])},
    ),
    "transposed": (
        "i = ConvTranspose <strides = [2, 3], pads = [1, 0, 2, 1]> (u, v); c = Relu(i)",
        {"v": array(136, 24, 3, 4)},
    ),
    "columns of depth": (
        'i = Conv(u, v); c = DepthToSpace <blocksize = 2, mode = "CRD"> (i)',
        {"v": array(60, 136, 1, 1)},
    ),
    "depth of columns": ("i = Conv(u, v); c = DepthToSpace <blocksize = 2> (i)", {"v": array(64, 136, 1, 1)}),
    "little depth": ("i = Conv(u, v); c = DepthToSpace <blocksize = 2> (i)", {"v": array(12, 136, 1, 1)}),
    "another order": ("c = Add(m, u)", {}),
    "the other first": ("c = Sub(u, m)", {}),
    "concat": ("c = Concat <axis = 1> (u, o)", {}),
    "weighed": ("i = GlobalAveragePool(m); j = Sigmoid(i); c = Mul(u, j)", {}),
    "slopes": ("c = PRelu(u, v)", {"v": array(136, 1, 1)}),
    "another shuffle": (
        "i = Reshape(u, wide); j = Transpose <perm = [0, 2, 1, 3, 4]> (i); c = Reshape(j, narrow)",
        {},
    ),
    "half a shuffle": ("c = Reshape(u, wide)", {}),
}


def network(order: str, reader: str) -> tuple[str, dict[str, Array], dict[str, Array]]:
    text, weights = READERS[reader]
    sizes = {
        "wide": np.array([2, 4, 34, 5, 6]),
        "three": np.array([2, 2, 17, 4, 5, 6]),
        "narrow": np.array([2, 136, 5, 6]),
    }
    weights = {"w": array(136, 6, 1, 1, seed=1), "w2": array(68, 6, 1, 1, seed=2)} | sizes | weights
    text = f"m = Conv(x, w); o = Conv(x, w2); {ORDERS[order]}; {text}"
    return text, {"x": array(2, 6, 5, 6)}, {name: value for name, value in weights.items() if name in text}


@pytest.mark.parametrize("order", ORDERS)
def test_order(order):
    """Every reader, with what may follow it, finds the channels of each order."""
    batch = Batch()
    for reader in READERS:
        text, inputs, weights = network(order, reader)
        batch.add(text, inputs, weights, outputs=["c"])
        batch.add(f"{text}; y = Relu(c)", inputs, weights, outputs=["y", "u"])
    batch.check()


@pytest.mark.parametrize("mcpu", ["x86-64-v3", "x86-64"])
def test_order_on_other_targets(mcpu):
    batch = Batch()
    for order in ("shuffled", "joined and shuffled"):
        for reader in READERS:
            text, inputs, weights = network(order, reader)
            batch.add(text, inputs, weights, outputs=["c"])
    batch.compare(batch.compile(build_for(mcpu)))


@pytest.mark.parametrize("reader", ["groups", "many groups"])
def test_groups_with_every_epilogue(reader):
    batch = Batch()
    add_all(batch, *network("joined and shuffled", reader))
    batch.check()


@pytest.mark.parametrize(
    ("group", "inner", "outer", "size", "attributes"),
    [
        (3, 5, 7, (9, 61), ""),
        (2, 17, 34, (5, 5), "pads = [1, 1, 1, 1], strides = [2, 2],"),
        (5, 3, 4, (8, 33), "pads = [0, 2, 1, 3], dilations = [1, 2], strides = [1, 2],"),
        (4, 150, 6, (3, 4), "pads = [1, 1, 1, 1],"),
    ],
)
def test_groups(group, inner, outer, size, attributes):
    batch = Batch()
    for window in ((1, 1), (3, 3)):
        weights = {"w": array(group * outer, inner, *window), "h": array(group * outer)}
        text = f"y = Conv <{attributes} group = {group}> (x, w, h)"
        batch.add(text, {"x": array(2, group * inner, *size)}, weights)
    batch.check()


@pytest.mark.parametrize("order", ORDERS)
def test_local_response(order):
    """LRN by NumPy: the reference evaluator's own takes the batch for the channels."""
    text, inputs, weights = network(order, "nothing")
    alone = Batch()
    alone.add(text, inputs, weights, outputs=["c"])
    (x,) = alone.expected().values()
    batch = Batch()
    for size, alpha, beta, bias in [
        (5, 0.5, 0.75, 1.0),
        (4, 2.0, 0.5, 2.0),
        (1, 1.0, 0.25, 0.5),
        (31, 0.5, 1.0, 1.0),
        (3, 0.3, 1.3, 1.5),
    ]:
        response = f"{text}; y = LRN <size = {size}, alpha = {alpha}, beta = {beta}, bias = {bias}> (c)"
        padded = np.pad(x**2, ((0, 0), ((size - 1) // 2, size // 2), (0, 0), (0, 0)))
        near = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1).sum(-1)
        batch.add(response, inputs, weights, wanted=[x / (bias + alpha / size * near) ** beta])
        sigmoid = 1 / (1 + np.exp(-batch.known[list(batch.known)[-1]]))
        batch.add(f"{response.replace('y =', 'e =')}; y = Sigmoid(e)", inputs, weights, wanted=[sigmoid])
    batch.check()


def test_an_image_of_few_channels_that_is_blocked():
    """On processors with narrow vectors, four channels are a block's worth: read as blocked they are, once they are."""
    batch = Batch()
    weights = {"w": array(4, 9, 1, 1), "v": array(13, 4, 3, 3)}
    batch.add("c = Conv(x, w); y = Conv(c, v)", {"x": array(1, 9, 6, 7)}, weights)
    batch.compare(batch.compile(build_for("x86-64-v3")))
