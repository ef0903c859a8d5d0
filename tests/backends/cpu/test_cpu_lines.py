"""Convolutions along one axis: of signals, and of images of one column, as images of one line."""

from __future__ import annotations

import pytest
from batch import Batch
from epilogues import add_all
from harness import array
from test_cpu_targets import build_for

# attributes, weights [outputs, channels a group, kernel], length
CASES = {
    "plain": ("group = 1", (24, 16, 3), 13),
    "padded": ("pads = [2, 1]", (16, 16, 4), 17),
    "in steps": ("strides = [2], pads = [1, 1]", (33, 16, 5), 30),
    "dilated": ("dilations = [3], pads = [3, 3]", (16, 16, 3), 16),
    "in groups": ("group = 2, pads = [1, 1]", (32, 16, 3), 31),
    "depthwise": ("group = 40, pads = [16, 16]", (40, 1, 33), 50),
    "same": ('auto_pad = "SAME_UPPER", strides = [2]', (20, 16, 3), 15),
    "of one place": ("group = 1", (48, 40, 1), 64),
    "of few channels": ("strides = [4]", (32, 2, 40), 200),
    "to one": ("group = 1", (16, 16, 5), 5),
}


def signal(name):
    attributes, weights, length = CASES[name]
    group = next((int(n) for n in (2, 40) if f"group = {n}" in attributes), 1)
    inputs = {"x": array(2, weights[1] * group, length, seed=1)}
    return f"c = Conv <{attributes}> (x, w, h)", inputs, {"w": array(*weights, seed=2), "h": array(weights[0], seed=3)}


def column(name):
    """The same of an image [N, C, H, 1]; what is said of the axis is said of a second one."""
    text, inputs, weights = signal(name)
    for old, new in (("strides = [2]", "strides = [2, 3]"), ("strides = [4]", "strides = [4, 1]"),
                     ("dilations = [3]", "dilations = [3, 2]"), ("pads = [2, 1]", "pads = [2, 0, 1, 0]")):  # fmt: skip
        text = text.replace(old, new)
    for n in (1, 3, 16):
        text = text.replace(f"pads = [{n}, {n}]", f"pads = [{n}, 0, {n}, 0]")
    return text, {"x": inputs["x"][..., None]}, {"w": weights["w"][..., None], "h": weights["h"]}


@pytest.mark.parametrize("name", CASES)
def test_with_every_epilogue(name):
    batch = Batch()
    add_all(batch, *signal(name))
    add_all(batch, *column(name))
    batch.check()


@pytest.mark.parametrize("mcpu", ["x86-64-v3", "x86-64"])
def test_on_other_targets(mcpu):
    batch = Batch()
    for name in CASES:
        for text, inputs, weights in (signal(name), column(name)):
            batch.add(text, inputs, weights, outputs=["c"])
    batch.compare(batch.compile(build_for(mcpu)))


def test_what_reads_columns_finds_them():
    """Blocked and plain readers, columns that two convolutions share, and images that are both a column and a line."""
    weights = {"w": array(32, 16, 3, 1, seed=4), "v": array(32, 32, 5, 1, seed=5)}
    first = "c = Conv <pads = [1, 0, 1, 0]> (x, w)"
    x = {"x": array(2, 16, 21, 1, seed=6)}
    batch = Batch()
    for text in (
        "d = Conv(c, v); y = Relu(d)",
        "r = Relu(c); d = Conv <pads = [2, 0, 2, 0]> (r, v); y = Add(d, c)",
        "p = MaxPool <kernel_shape = [3, 1], strides = [2, 1]> (c); y = Conv(p, v)",
        "p = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (c); y = Conv(p, v)",
        "d = Conv <pads = [2, 0, 2, 0]> (c, v); e = Concat <axis = 1> (c, d); y = GlobalAveragePool(e)",
        "y = Transpose <perm = [0, 3, 2, 1]> (c)",
        "d = Conv <pads = [2, 1, 2, 1]> (c, v); y = Conv(d, v)",
    ):
        batch.add(
            f"{first}; {text}", x, {name: value for name, value in weights.items() if name in "w" or "v)" in text}
        )
    batch.add("y = Conv(x, w)", {"x": array(1, 16, 3, 1)}, {"w": array(16, 16, 3, 1)})
    batch.add("y = Conv(x, w)", {"x": array(1, 64, 1, 1)}, {"w": array(16, 64, 1, 1)})
    batch.add("y = Conv(x, w)", {"x": array(1, 64, 1)}, {"w": array(16, 64, 1)})
    batch.check()
