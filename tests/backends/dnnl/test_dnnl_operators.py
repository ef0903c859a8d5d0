"""Every operator that the backend claims, at sizes around the width of a vector, against the reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from harness import array, check, node

CONVOLUTIONS = {
    "one_by_one": ((1, 3, 5, 7), (8, 3, 1, 1), {}),
    "one_element": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "three": ((2, 3, 13, 17), (15, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "vector_plus_one": ((1, 17, 9, 11), (17, 17, 3, 3), {"pads": [1, 1, 1, 1]}),
    "vector": ((1, 16, 9, 11), (32, 16, 3, 3), {"pads": [0, 1, 2, 1]}),
    "strided": ((1, 3, 19, 23), (16, 3, 5, 3), {"strides": [2, 3], "pads": [2, 0, 1, 1]}),
    "dilated": ((1, 4, 17, 19), (7, 4, 3, 3), {"dilations": [2, 3], "pads": [2, 3, 2, 3]}),
    "grouped": ((1, 6, 11, 7), (15, 2, 3, 3), {"group": 3}),
    "depthwise": ((2, 17, 9, 10), (17, 1, 3, 3), {"group": 17, "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "multiplied": ((1, 5, 9, 10), (10, 1, 3, 3), {"group": 5}),
    "same_upper": ((1, 3, 10, 11), (8, 3, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same_lower": ((1, 3, 10, 11), (8, 3, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "one_axis": ((2, 3, 31), (5, 3, 4), {"pads": [1, 2], "strides": [2]}),
    "three_axes": ((1, 3, 7, 8, 9), (5, 3, 3, 2, 3), {"pads": [1, 0, 1, 1, 1, 1]}),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv(case: str, bias: bool) -> None:
    shape, kernel, attributes = CONVOLUTIONS[case]
    weights = {"w": array(*kernel), "b": array(kernel[0])} if bias else {"w": array(*kernel)}
    check("dnnl", [node("Conv", ["x", *weights], ["y"], **attributes)], {"x": array(*shape)}, weights)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((1, 1), (1, 1)),
        ((5, 7), (7, 17)),
        ((31, 16), (16, 15)),
        ((2, 3, 5), (5, 9)),
        ((2, 1, 3, 5), (4, 5, 6)),
        ((4, 3, 5), (2, 1, 5, 6)),
        ((7,), (7, 3)),
        ((3, 7), (7,)),
        ((7,), (7,)),
        ((2, 3, 7), (7,)),
        ((7,), (2, 7, 3)),
    ],
)
@pytest.mark.parametrize("weights", ["right", "left", "none"])
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], weights: str) -> None:
    operands = {"a": array(*a), "b": array(*b, seed=1)}
    constant = {"right": {"b"}, "left": {"a"}, "none": set()}[weights]
    check(
        "dnnl",
        [node("MatMul", ["a", "b"], ["y"])],
        {name: content for name, content in operands.items() if name not in constant},
        {name: content for name, content in operands.items() if name in constant},
    )


@pytest.mark.parametrize("bias", ["none", "row", "vector"])
@pytest.mark.parametrize("flipped", [0, 1])
def test_gemm(bias: str, flipped: int) -> None:
    nodes, weights, widths = [], {}, (1, 15, 16, 17)
    for n in widths:
        own = {f"w{n}": array(n, 13) if flipped else array(13, n)}
        if bias != "none":
            own[f"b{n}"] = array(1, n) if bias == "row" else array(n)
        weights |= own
        nodes.append(node("Gemm", ["x", *own], [f"y{n}"], transB=flipped, alpha=0.5, beta=2.0))
    check("dnnl", nodes, {"x": array(3, 13)}, weights, [f"y{n}" for n in widths])


def test_gemm_of_a_constant_left() -> None:
    check("dnnl", [node("Gemm", ["w", "x"], ["y"], transA=1)], {"x": array(5, 7)}, {"w": array(5, 3)})


POOLS = {
    "plain": ((1, 3, 9, 11), {"kernel_shape": [2, 3]}),
    "strided": ((2, 17, 13, 11), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "uneven": ((1, 5, 10, 9), {"kernel_shape": [3, 4], "strides": [2, 3], "pads": [0, 1, 2, 1]}),
    "ceiling": ((1, 5, 10, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "dilated": ((1, 5, 14, 13), {"kernel_shape": [3, 2], "dilations": [2, 3]}),
    "same": ((1, 5, 10, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    "one_axis": ((1, 5, 20), {"kernel_shape": [3], "strides": [2]}),
    "three_axes": ((1, 5, 6, 7, 8), {"kernel_shape": [2, 2, 3], "strides": [2, 1, 2]}),
}


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("case", POOLS)
def test_pool(op_type: str, case: str) -> None:
    shape, attributes = POOLS[case]
    check("dnnl", [node(op_type, ["x"], ["y"], **attributes)], {"x": array(*shape)})


def test_average_that_counts_padding() -> None:
    attributes = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}
    check("dnnl", [node("AveragePool", ["x"], ["y"], **attributes)], {"x": array(1, 5, 7, 9)})


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 17, 7, 5), (1, 3, 11), (1, 3, 5, 4, 3)])
def test_global_pool(op_type: str, shape: tuple[int, ...]) -> None:
    # By NumPy: the evaluator's own GlobalMaxPool is wrong except on two spatial axes.
    x, axes = array(*shape), tuple(range(2, len(shape)))
    wanted = x.max(axes, keepdims=True) if op_type == "GlobalMaxPool" else x.mean(axes, keepdims=True)
    check("dnnl", [node(op_type, ["x"], ["y"])], {"x": x}, wanted=[wanted])


@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 17, 3, 3), (4, 5), (1, 3, 9), (1, 3, 4, 5, 6)])
def test_batch_normalization(shape: tuple[int, ...]) -> None:
    channels = shape[1]
    weights = {name: array(channels, seed=n) for n, name in enumerate(["scale", "bias", "mean"])}
    weights["variance"] = np.abs(array(channels, seed=9)) + 0.5
    nodes = [node("BatchNormalization", ["x", *weights], ["y"], epsilon=1e-3)]
    check("dnnl", nodes, {"x": array(*shape)}, weights)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize(("shape", "axis"), [((17,), 0), ((3, 15), -1), ((2, 5, 7), 1), ((1, 3, 4, 5), 0)])
def test_softmax(op_type: str, shape: tuple[int, ...], axis: int) -> None:
    check("dnnl", [node(op_type, ["x"], ["y"], axis=axis)], {"x": array(*shape)})


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(1, 7, 5, 3), (2, 17, 3, 3), (1, 7, 5)])
def test_lrn(size: int, shape: tuple[int, ...]) -> None:
    # By NumPy: the evaluator's own LRN mistakes the batch for the channels.
    x, channels = array(*shape), shape[1]
    near = [(max(0, c - (size - 1) // 2), min(channels, c + size // 2 + 1)) for c in range(channels)]
    sums = np.stack([(x[:, first:last] ** 2).sum(1) for first, last in near], 1)
    wanted = x / (2 + 0.1 / size * sums) ** 0.5
    nodes = [node("LRN", ["x"], ["y"], size=size, alpha=0.1, beta=0.5, bias=2.0)]
    check("dnnl", nodes, {"x": x}, wanted=[wanted.astype(np.float32)])


ELTWISE = {
    "Abs": {},
    "Elu": {"alpha": 0.7},
    "Gelu": {},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4},
    "HardSwish": {},
    "LeakyRelu": {"alpha": 0.2},
    "Mish": {},
    "Neg": {},
    "Relu": {},
    "Sigmoid": {},
    "Tanh": {},
}


@pytest.mark.parametrize("shape", [(1,), (17,), (3, 5), (1, 2, 3, 5, 7, 2), ()])
def test_eltwise(shape: tuple[int, ...]) -> None:
    nodes = [node(op_type, ["x"], [op_type], **attributes) for op_type, attributes in ELTWISE.items()]
    check("dnnl", nodes, {"x": np.asarray(3 * array(*shape))}, {}, list(ELTWISE), tolerance=3e-6)


def test_gelu_by_tanh() -> None:
    check("dnnl", [node("Gelu", ["x"], ["y"], approximate="tanh")], {"x": array(5, 7)})


def test_swish() -> None:
    check("dnnl", [node("Swish", ["x"], ["y"], alpha=1.5)], {"x": array(5, 7)}, opset=24)


@pytest.mark.parametrize("bounds", [(0.0, 6.0), (-0.5, 0.5), (None, 0.25), (-0.25, None)])
def test_clip(bounds: tuple[float | None, float | None]) -> None:
    names = [name if bound is not None else "" for name, bound in zip(("low", "high"), bounds, strict=True)]
    weights = {
        name: np.array(bound, np.float32) for name, bound in zip(names, bounds, strict=True) if bound is not None
    }
    check("dnnl", [node("Clip", ["x", *names], ["y"])], {"x": array(5, 7)}, weights)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((3, 5), (3, 5)),
        ((2, 17, 5, 7), (17, 1, 1)),
        ((2, 3, 5), (5,)),
        ((2, 3, 5), (1,)),
        ((2, 3, 5), ()),
        ((2, 3, 5), (2, 1, 5)),
        ((), ()),
    ],
)
@pytest.mark.parametrize("constant", [True, False])
def test_binary(first: tuple[int, ...], second: tuple[int, ...], constant: bool) -> None:
    x, other = {"x": array(*first)}, {"other": np.asarray(array(*second, seed=1) + np.float32(3))}
    op_types = ["Add", "Div", "Max", "Min", "Mul", "Sub", "Sum"]
    nodes = [node(op_type, ["x", "other"], [op_type]) for op_type in op_types]
    check("dnnl", nodes, x if constant else {**x, **other}, other if constant else {}, op_types)


def test_binary_swaps_where_it_may() -> None:
    check("dnnl", [node("Mul", ["w", "x"], ["y"])], {"x": array(2, 3, 5)}, {"w": array(5)})


def test_operand_used_twice() -> None:
    check("dnnl", [node("Add", ["x", "x"], ["y"])], {"x": array(2, 3, 5)})


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis: int) -> None:
    shapes = [(2, 3, 5), (2, 3, 5), (2, 3, 5)]
    inputs = {f"x{n}": array(*shape, seed=n) for n, shape in enumerate(shapes[:2])}
    check("dnnl", [node("Concat", ["x0", "c", "x1", "x0"], ["y"], axis=axis)], inputs, {"c": array(2, 3, 5, seed=7)})
