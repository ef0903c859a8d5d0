"""Code for other processors: right on those that this one can stand in for; for others it compiles."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from batch import Batch
from harness import array

import partita
from partita.backends.cpu.target import target_of
from partita.errors import CompilerError
from partita.runtime.toolchain import Toolchain

# Every kernel whose tiles follow the target, at sizes that fill tiles and leave rests.
NETWORKS = {
    "1x1": ("y = Conv(x, w)", (1, 40, 7, 9), (56, 40, 1, 1)),
    "3x3": ("y = Conv <pads = [1, 1, 1, 1]> (x, w)", (2, 9, 9, 7), (13, 9, 3, 3)),
    "5x5": ("c = Conv <strides = [2, 2], pads = [2, 2, 2, 2]> (x, w); y = Relu(c)", (1, 8, 11, 29), (16, 8, 5, 5)),
    "planar": ("y = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", (1, 3, 31, 31), (24, 3, 3, 3)),
    "groups": ("y = Conv <group = 2> (x, w)", (2, 32, 5, 5), (32, 16, 3, 3)),
    "groups in one block": ("y = Conv <group = 3> (x, w)", (1, 15, 5, 41), (21, 5, 3, 3)),
    "wide depthwise": ("y = Conv <group = 9, pads = [1, 1, 1, 1]> (x, w)", (1, 9, 4, 43), (9, 1, 3, 3)),
    "turned": ("a = MatMul(x, w); b = Relu(a); y = Transpose(b)", (33, 9), (9, 37)),
    "depthwise": ("y = Conv <group = 19, pads = [1, 1, 1, 1]> (x, w)", (1, 19, 6, 5), (19, 1, 3, 3)),
    "Winograd": ("c = Conv <pads = [1, 1, 1, 1]> (x, w); y = HardSwish(c)", (1, 64, 14, 14), (72, 64, 3, 3)),
    "pool": ("c = Conv(x, w); y = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (c)", (1, 5, 9, 9), (16, 5, 1, 1)),
    "product": ("y = MatMul(x, w)", (29, 37), (37, 70)),
    "large product": ("y = MatMul(x, w)", (2, 20, 256), (256, 64)),
    "one row": ("y = MatMul(x, w)", (1, 67), (67, 65)),
    "batches": ("y = MatMul(x, w)", (3, 13, 9), (3, 9, 33)),
    "chain": ("s = MatMul(x, w); p = Softmax(s); y = MatMul(p, x)", (3, 5, 6, 5), (3, 5, 5, 6)),
    "normalized": ("c = MatMul(x, w); y = Softmax(c)", (5, 9), (9, 31)),
    "gelu": ("c = MatMul(x, w); y = Gelu(c)", (5, 9), (9, 31)),
}  # fmt: skip


def batch() -> Batch:
    networks = Batch()
    for text, x, w in NETWORKS.values():
        networks.add(text, {"x": array(*x)}, {"w": array(*w, seed=1)})
    return networks


def build_for(mcpu: str) -> partita.BuildOptions:
    """Options for a processor, whose code this one must be able to run."""
    build = partita.BuildOptions(mcpu=mcpu, optimization="-O0")
    try:
        features = Toolchain(build).features()
    except CompilerError as error:
        pytest.skip(f"the C compiler does not know {mcpu!r}: {str(error).splitlines()[0]}")
    flags = next(
        (line.split() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), []
    )
    missing = set(features) - set(flags)
    if missing:
        pytest.skip(f"this machine lacks {', '.join(sorted(missing))}")
    return build


@pytest.mark.parametrize("mcpu", ["x86-64-v3", "x86-64", ""])
def test_right_numbers_for_every_target(mcpu):
    networks = batch()
    networks.compare(networks.compile(build_for(mcpu)))


@pytest.mark.parametrize("mcpu", ["x86-64-v3", "x86-64", ""])
def test_right_numbers_for_every_target_by_strassen_s_products(mcpu):
    networks = Batch()
    text, x, w = NETWORKS["large product"]
    networks.add(text, {"x": array(*x)}, {"w": array(*w, seed=1)})
    module = partita.compile(networks.model(), name="batch", build=build_for(mcpu), fast_math=["strassen"])
    assert any("StrassenMatMul" in source.text for source in module.sources())
    networks.compare(module)


@pytest.mark.parametrize(
    ("mcpu", "block", "sums"),
    [
        *[("x86-64-v4", 16, 28), ("znver4", 16, 28), ("skylake-avx512", 16, 28)],
        *[("x86-64-v3", 8, 12), ("znver3", 8, 12), ("skylake", 8, 12)],
        *[("x86-64-v2", 8, 6), ("x86-64", 8, 6), ("armv8-a", 8, 14), ("neoverse-n1", 8, 14)],
    ],
)
def test_sums_fit_the_registers(mcpu, block, sums):
    target = target_of(mcpu)
    assert (target.block, target.sums) == (block, sums)
    assert target.sums * target.block < target.registers * target.width


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")
def test_compiles_for_another_architecture():
    zig = f"{sys.executable} -m ziglang cc -target aarch64-linux-gnu"
    build = partita.BuildOptions(cc=zig, mcpu="", optimization="-O0")
    for source in batch().compile(build).sources():
        code = Toolchain(build).compile_source(source)
        assert code[:4] == b"\x7fELF"
        assert int.from_bytes(code[18:20], "little") == 183, source.name  # EM_AARCH64
