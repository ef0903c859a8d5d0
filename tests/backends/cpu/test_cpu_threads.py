"""Results do not depend on the number of threads: not in a single bit."""

from __future__ import annotations

import onnx
import pytest
from batch import Batch
from harness import array
from onnx import numpy_helper

import partita
from benchmarks import zoo

THREADS = (1, 2, 3, 8)
BUILD = partita.BuildOptions(optimization="-O1")

# Large enough to be shared out: a kernel of a few microseconds runs on one thread.
NETWORKS = {
    "1x1": ("y = Conv(x, w)", (1, 40, 28, 28), (72, 40, 1, 1)),
    "3x3": ("c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w); y = Relu(c)", (2, 40, 27, 27), (40, 40, 3, 3)),
    "1x1, in bands": ("y = Conv(x, w)", (1, 40, 57, 41), (72, 40, 1, 1)),
    "3x3, in bands": ("y = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", (2, 40, 67, 51), (40, 40, 3, 3)),
    "planar, in bands": ("y = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", (1, 3, 195, 191), (40, 3, 3, 3)),
    "planar": ("y = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", (1, 3, 95, 95), (40, 3, 3, 3)),
    "groups": ("y = Conv <group = 2> (x, w)", (2, 32, 17, 17), (64, 16, 3, 3)),
    "depthwise": ("y = Conv <group = 56, pads = [1, 1, 1, 1]> (x, w)", (1, 56, 27, 27), (56, 1, 3, 3)),
    "Winograd": ("y = Conv <pads = [1, 1, 1, 1]> (x, w)", (1, 64, 29, 29), (72, 64, 3, 3)),
    "Winograd, in groups": ("y = Conv <pads = [1, 1, 1, 1]> (x, w)", (1, 24, 57, 53), (40, 24, 3, 3)),
    "pool": ("c = Conv(x, w); y = MaxPool <kernel_shape = [3, 3]> (c)", (1, 16, 31, 31), (48, 16, 1, 1)),
    "product": ("c = MatMul(x, w); y = Gelu(c)", (131, 257), (257, 290)),
    "one row": ("y = MatMul(x, w)", (1, 1030), (1030, 515)),
    "batches": ("y = MatMul(x, w)", (7, 61, 65), (7, 65, 67)),
    "chain": ("s = MatMul(x, w); p = Softmax(s); y = MatMul(p, x)", (3, 5, 61, 65), (3, 5, 65, 61)),
    "softmax": ("c = Mul(x, w); y = Softmax(c)", (300, 515), (515,)),
    "sum": ("c = Mul(x, w); y = ReduceSum(c)", (300, 515), (515,)),
    "mean of rows": ("c = Mul(x, w); y = LayerNormalization(c, w)", (300, 515), (515,)),
    "pointwise": ("c = Mul(x, w); d = Tanh(c); y = Add(d, x)", (300, 515), (515,)),
    "turned": ("c = Mul(x, w); y = Transpose(c)", (300, 515), (515,)),
}


def assert_same_bits(module, inputs) -> None:
    results = []
    for threads in THREADS:
        instance = module.open_instance(threads)
        assert instance.thread_count() == threads
        results += [instance.run(inputs) for _ in range(3)]
        instance.close()
    first = results[0]
    different = [name for result in results[1:] for name in first if first[name].tobytes() != result[name].tobytes()]
    assert not different


def test_kernels():
    batch = Batch()
    for text, x, w in NETWORKS.values():
        batch.add(text, {"x": array(*x)}, {"w": array(*w, seed=1)})
    module = batch.compile(BUILD)
    assert_same_bits(module, batch.inputs)
    batch.compare(module, 2e-5)


@pytest.mark.parametrize("name", ["ds-cnn", "mobilenet-v2@64", "squeezenet@64"])
def test_networks(name):
    entry = zoo.get(name)
    assert_same_bits(partita.compile(entry.model(), build=BUILD), entry.inputs(0))


def test_products_of_rows_known_at_run_time():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 22]> net (float[N,257] x) => (float[N,290] y) { y = MatMul (x, w) }'
    )
    model.graph.initializer.append(numpy_helper.from_array(array(257, 290), "w"))
    module = partita.compile(model, build=BUILD)
    for rows in (1, 5, 130):
        assert_same_bits(module, {"x": array(rows, 257)})
