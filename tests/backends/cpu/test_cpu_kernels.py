"""Every kernel of the host, with every epilogue, at odd sizes: what the reference evaluator computes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from batch import Batch
from epilogues import add_all
from harness import array

import partita

CONVOLUTIONS = {
    "1x1": ("c = Conv(x, w)", (1, 5, 7, 9), (7, 5, 1, 1)),
    "3x3": ("c = Conv <pads = [1, 1, 1, 1]> (x, w)", (2, 3, 9, 7), (13, 3, 3, 3)),
    "stride 2": ("c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", (1, 4, 8, 11), (8, 4, 3, 3)),
    "1x1, stride 2": ("c = Conv <strides = [2, 3]> (x, w)", (1, 4, 8, 11), (8, 4, 1, 1)),
    "asymmetric": ("c = Conv <strides = [1, 2], pads = [0, 1, 2, 3]> (x, w)", (1, 2, 5, 6), (5, 2, 2, 3)),
    "dilated": ("c = Conv <dilations = [2, 3], pads = [2, 3, 2, 3]> (x, w)", (1, 3, 9, 10), (4, 3, 3, 3)),
    "same": ('c = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)', (1, 3, 6, 7), (4, 3, 3, 2)),
    "same lower": ('c = Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (x, w)', (1, 3, 6, 7), (4, 3, 2, 3)),
    "groups": ("c = Conv <group = 3> (x, w)", (2, 6, 5, 5), (15, 2, 3, 3)),
    "few channels a group": ("c = Conv <group = 2> (x, w)", (1, 4, 5, 5), (6, 2, 3, 3)),
    "depthwise": ("c = Conv <group = 7, pads = [1, 1, 1, 1]> (x, w)", (1, 7, 6, 5), (7, 1, 3, 3)),
    "depthwise, wide": ("c = Conv <group = 17, pads = [1, 1, 1, 1]> (x, w)", (1, 17, 3, 61), (17, 1, 3, 3)),
    "depthwise, padded far": (
        "c = Conv <group = 5, pads = [5, 13, 1, 14], dilations = [2, 3], strides = [1, 2]> (x, w)",
        (2, 5, 7, 33),
        (5, 1, 3, 4),
    ),
    "depthwise, long": ("c = Conv <group = 9, pads = [0, 9, 0, 8]> (x, w)", (1, 9, 2, 37), (9, 1, 1, 19)),
    "depthwise, two each": ("c = Conv <group = 3> (x, w)", (1, 3, 6, 5), (6, 1, 3, 3)),
    "1-D": ("c = Conv <pads = [2, 1], strides = [2]> (x, w)", (2, 3, 67), (6, 3, 4)),
    "3-D": ("c = Conv <pads = [1, 0, 1, 1, 1, 0]> (x, w)", (1, 2, 4, 5, 3), (6, 2, 2, 3, 2)),
    "one output": ("c = Conv(x, w)", (1, 3, 5, 5), (1, 3, 5, 5)),
    "one pixel": ("c = Conv(x, w)", (1, 65, 1, 1), (7, 65, 1, 1)),
    "deep": ("c = Conv(x, w)", (1, 131, 3, 3), (5, 131, 2, 2)),
    "exactly a tile": ("c = Conv(x, w)", (1, 2, 8, 8), (6, 2, 1, 1)),
    "a tile and one": ("c = Conv(x, w)", (1, 2, 5, 13), (7, 2, 1, 1)),
    "tiles in bands": ("c = Conv(x, w)", (1, 17, 57, 41), (33, 17, 1, 1)),
    "lines in bands": ("c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", (1, 5, 69, 51), (9, 5, 3, 3)),
}

PRODUCTS = {
    "matrix by matrix": ("c = MatMul(x, w)", (7, 5), (5, 11)),
    "one row": ("c = MatMul(x, w)", (1, 67), (67, 65)),
    "three rows": ("c = MatMul(x, w)", (3, 5), (5, 63)),
    "one column": ("c = MatMul(x, w)", (13, 5), (5, 1)),
    "depth 1": ("c = MatMul(x, w)", (13, 1), (1, 65)),
    "a tile less one": ("c = MatMul(x, w)", (5, 9), (9, 63)),
    "exactly tiles": ("c = MatMul(x, w)", (12, 128), (128, 64)),
    "tiles and one": ("c = MatMul(x, w)", (13, 129), (129, 129)),
    "a batch": ("c = MatMul(x, w)", (2, 3, 5, 7), (2, 3, 7, 9)),
    "a batch of left": ("c = MatMul(x, w)", (2, 3, 5, 7), (7, 9)),
    "a batch of right": ("c = MatMul(x, w)", (5, 7), (2, 7, 9)),
    "broadcast batches": ("c = MatMul(x, w)", (2, 1, 5, 7), (3, 7, 9)),
    "matrix by vector": ("c = MatMul(x, w)", (5, 7), (7,)),
    "vector by matrix": ("c = MatMul(x, w)", (7,), (7, 9)),
    "Gemm": ("c = Gemm(x, w)", (5, 7), (7, 9)),
    "Gemm, transposed right": ("c = Gemm <transB = 1> (x, w)", (5, 7), (9, 7)),
    "Gemm, transposed left": ("c = Gemm <transA = 1> (x, w)", (7, 5), (7, 9)),
    "Gemm, both, scaled": ("c = Gemm <transA = 1, transB = 1, alpha = 0.5> (x, w)", (7, 5), (9, 7)),
    "MatMul, a matrix each": ("c = MatMul(x, w)", (2, 5, 9, 7), (2, 5, 7, 35)),
    "MatMul, rows in groups": ("c = MatMul(x, w)", (2, 270, 200), (200, 33)),
    "Gemm, one row": ("c = Gemm <transB = 1> (x, w)", (1, 65), (67, 65)),
}

ROWS = {
    "softmax": "c = Softmax(x)",
    "softmax of axis 1": "c = Softmax <axis = 1> (x)",
    "log softmax": "c = LogSoftmax(x)",
    "layer normalization": "c = LayerNormalization(x, g, h)",
    "layer normalization of two axes": "c = LayerNormalization <axis = 1> (x, g2, h2)",
    "RMS normalization": "c = RMSNormalization(x, g)",
    "instance normalization": "c = InstanceNormalization(x, gc, hc)",
    "batch normalization": "c = BatchNormalization(x, gc, hc, hc, vc)",
    "mean": "c = ReduceMean(x, last)",
    "sum of all": "c = ReduceSum(x)",
    "maximum": "c = ReduceMax(x, last)",
    "norm": "c = ReduceL2(x, middle)",
    "log of a sum": "c = ReduceLogSumExp(x, last)",
}

POOLS = {
    "max": "c = MaxPool <kernel_shape = [3, 2], strides = [2, 1]> (x)",
    "max, padded": "c = MaxPool <kernel_shape = [3, 3], pads = [1, 0, 1, 2], strides = [2, 2]> (x)",
    "max, dilated": "c = MaxPool <kernel_shape = [2, 2], dilations = [2, 3]> (x)",
    "max, rounded up": "c = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)",
    "average": "c = AveragePool <kernel_shape = [2, 3]> (x)",
    "average, padded": "c = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)",
    "average, pads counted": "c = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 0, 1], count_include_pad = 1> (x)",
    "global average": "c = GlobalAveragePool(x)",
    "global max": "c = GlobalMaxPool(x)",
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name):
    text, x, w = CONVOLUTIONS[name]
    batch = Batch()
    add_all(batch, text, {"x": array(*x)}, {"w": array(*w)})
    with_bias = text.replace("(x, w)", "(x, w, bias)")
    add_all(batch, with_bias, {"x": array(*x)}, {"w": array(*w), "bias": array(w[0], seed=3)}, as_inputs=True)
    batch.check(2e-5 if name == "deep" else 1e-5)  # Exp makes of the error of c one that is c times as large


@pytest.mark.parametrize("name", PRODUCTS)
def test_product(name):
    text, x, w = PRODUCTS[name]
    batch = Batch()
    add_all(batch, text, {"x": array(*x)}, {"w": array(*w)})
    add_all(batch, text, {"x": array(*x), "w": array(*w)}, {}, as_inputs=True)
    batch.check()


@pytest.mark.parametrize("addend", [(9,), (1,), (), (5, 1), (1, 9), (5, 9)])
def test_gemm_takes_any_addend(addend):
    batch = Batch()
    for text in ("c = Gemm(x, w, z)", "c = Gemm <alpha = 2.0, beta = 0.5> (x, w, z)"):
        add_all(batch, text, {"x": array(5, 7)}, {"w": array(7, 9), "z": array(*addend, seed=4)})
    batch.check()


@pytest.mark.parametrize("name", ROWS)
def test_rows(name):
    parameters = {
        "g": array(7, seed=1),
        "h": array(7, seed=2),
        "g2": array(5, 7, seed=1),
        "h2": array(5, 7, seed=2),
        "gc": array(5, seed=1),
        "hc": array(5, seed=2),
        "vc": np.abs(array(5, seed=3)) + 0.5,
        "last": np.array([-1]),
        "middle": np.array([1]),
    }
    used = {key: parameters[key] for key in onnx.parser.parse_node(ROWS[name]).input if key in parameters}
    batch = Batch()
    for shape in [(3, 5, 7), (1, 5, 7)]:
        add_all(batch, ROWS[name], {"x": array(*shape)}, used)
    batch.check()


@pytest.mark.parametrize("name", POOLS)
def test_pool(name):
    batch = Batch()
    add_all(batch, POOLS[name], {"x": array(2, 3, 7, 8)}, {})
    batch.check()


@pytest.mark.parametrize("name", POOLS)
def test_pool_of_blocks(name):
    """What a convolution leaves is in blocks of channels."""
    text = "m = Conv(x, w); " + POOLS[name].replace("(x)", "(m)")
    batch = Batch()
    for size in ((7, 8), (7, 43)):
        add_all(batch, text, {"x": array(2, 5, *size)}, {"w": array(19, 5, 1, 1)})
    batch.check()


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("channels", [19, 32])
def test_blocked_channels_weigh_blocked_images(images, channels):
    """Squeeze and excitation: an image of one pixel meets one of many."""
    text = "m = Conv(x, w); o = GlobalAveragePool(m); n = Conv(o, v); f = Sigmoid(n); c = Mul(m, f)"
    batch = Batch()
    weights = {"w": array(channels, 5, 1, 1), "v": array(channels, channels, 1, 1)}
    add_all(batch, text, {"x": array(images, 5, 7, 6)}, weights)
    add_all(batch, text.replace("m, f", "f, m"), {"x": array(images, 5, 1, 1)}, weights)
    batch.check()


def test_pool_of_blocks_keeps_nan():
    """The largest of numbers and NaN is NaN, as for Max; the reference evaluator passes NaN over."""
    x = array(1, 8, 5, 5)
    x[0, 3, 2, 2] = np.nan
    batch = Batch()
    batch.add("m = Conv(x, w); y = MaxPool <kernel_shape = [2, 2]> (m)", {"x": x}, {"w": array(8, 8, 1, 1)})
    (result,) = batch.compile().run(batch.inputs).values()
    wanted = np.zeros((4, 4), bool)
    wanted[1:3, 1:3] = True
    np.testing.assert_array_equal(np.isnan(result[0]), np.broadcast_to(wanted, (8, 4, 4)))


@pytest.mark.parametrize(("columns", "depth"), [(3, 4), (33, 7), (70, 16), (33, 1000)])
def test_product_with_any_number_of_rows(columns, depth):
    text = f"g (float[N, {depth}] x, float[{depth}, {columns}] w) => (float[N, {columns}] y) {{ y = MatMul (x, w) }}"
    graph = onnx.parser.parse_graph(text)
    w = array(depth, columns, seed=1)
    graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    del graph.input[1]
    module = partita.compile(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)]))
    for rows in (*range(1, 60), 113):
        x = array(rows, depth, seed=rows)
        np.testing.assert_allclose(module.run({"x": x})["y"], x @ w, rtol=1e-4, atol=1e-4)


def compiled(text: str) -> partita.MetadataModule:
    opsets = [onnx.helper.make_opsetid("", 21)]
    return partita.compile(onnx.helper.make_model(onnx.parser.parse_graph(text), opset_imports=opsets))


@pytest.mark.parametrize(("lead", "columns"), [("", 33), ("2, 3, ", 40), ("1, 12, ", 32)])
def test_product_of_any_depth(lead, columns):
    module = compiled(f"""g (float[{lead}M, K] x, float[{lead}K, {columns}] w, float[{columns}] b)
        => (float[{lead}M, {columns}] y) {{ c = MatMul (x, w) s = Add (c, b) y = Relu (s) }}""")
    sizes = [int(size) for size in lead.split(", ") if size]
    for rows in (1, 4, 13, 29):
        for depth in (0, 1, 5, 16, 17, 129, 513, 1200):
            x, w = array(*sizes, rows, depth), array(*sizes, depth, columns, seed=1)
            b = array(columns, seed=2)
            wanted = np.maximum(x.astype(np.float64) @ w + b, 0)
            np.testing.assert_allclose(module.run({"x": x, "w": w, "b": b})["y"], wanted, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("body", ["y = Softmax (x)", "y = LogSoftmax (x)", "s = Softmax (x) y = Add (s, r)"])
@pytest.mark.parametrize("columns", ["n", "1500", "5000"])
def test_rows_of_any_length(body, columns):
    """Short rows are taken together; what long ones keep, and those of unknown length, is in the output."""
    module = compiled(f"g (float[m, {columns}] x, float[m, {columns}] r) => (float[m, {columns}] y) {{ {body} }}")
    for rows in (1, 3, 4, 9):
        for size in (1, 2, 16, 17, 130, 3000) if columns == "n" else (int(columns),):
            x, r = array(rows, size) * 9, array(rows, size, seed=1)
            x[-1, 0] = -np.inf if size > 1 else x[-1, 0]
            e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
            wanted = e / e.sum(1, keepdims=True) + (r if "r)" in body else 0)
            if "Log" in body:
                with np.errstate(divide="ignore"):
                    wanted = x - x.max(1, keepdims=True) - np.log(e.sum(1, keepdims=True))
            np.testing.assert_allclose(module.run({"x": x, "r": r})["y"], wanted, rtol=1e-5, atol=1e-5)
