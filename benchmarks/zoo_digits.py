"""A small network trained on scikit-learn's digits, in NumPy: real weights and a test split in a few seconds.

Three 3×3 convolutions (16, 32, 32 channels), a 2×2 maximum and one dense layer, trained by Adam on four
fifths of the 1797 images of 8×8 pixels. The rest is the test split.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

from benchmarks.extras import need

EPOCHS = 12
BATCH = 64
CHANNELS = [(1, 16), (16, 32), (32, 32)]


@dataclass(frozen=True)
class Split:
    """Images `[N, 1, 8, 8]`, centred on zero, and their classes `[N]`."""

    images: np.ndarray
    labels: np.ndarray


def digits(seed: int = 0) -> tuple[Split, Split]:
    """The training split and the test split."""
    data = need("sklearn.datasets", "scikit-learn").load_digits()
    images = ((data.images - 8) / 8).astype(np.float32)[:, None]
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = np.split(order, [len(order) * 4 // 5])
    return Split(images[train], data.target[train]), Split(images[test], data.target[test])


def digits_cnn(batch: int = 1, seed: int = 0) -> ModelProto:
    """The trained network: images `[batch, 1, 8, 8]` to logits `[batch, 10]`."""
    parameters = train(digits(seed)[0], seed)
    nodes, x = [], "input"
    for layer in range(3):
        nodes.append(helper.make_node("Conv", [x, f"w{layer}", f"b{layer}"], [f"c{layer}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        x = f"r{layer}"
        if layer == 1:
            nodes.append(helper.make_node("MaxPool", [x], ["pool"], kernel_shape=[2, 2], strides=[2, 2]))
            x = "pool"
    nodes.append(helper.make_node("Flatten", [x], ["flat"], axis=1))
    nodes.append(helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"]))
    tensors = [numpy_helper.from_array(value, name) for name, value in parameters.items()]
    x_info = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 1, 8, 8])
    y_info = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 10])
    graph = helper.make_graph(nodes, "digits", [x_info], [y_info], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    return model


def train(split: Split, seed: int) -> dict[str, np.ndarray]:
    """Adam on the cross entropy; returns the parameters by name."""
    rng = np.random.default_rng(seed)
    parameters = _initial(rng)
    first = {name: np.zeros_like(value) for name, value in parameters.items()}
    second = {name: np.zeros_like(value) for name, value in parameters.items()}
    step = 0
    for epoch in range(EPOCHS):
        rate = np.float32(2e-3 * (1 - epoch / EPOCHS))
        order = rng.permutation(len(split.labels))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            step += 1
            for name, slope in _gradients(parameters, split.images[chosen], split.labels[chosen]).items():
                first[name] += 0.1 * (slope - first[name])
                second[name] += 0.001 * (slope**2 - second[name])
                size = np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8
                parameters[name] -= (rate * (first[name] / (1 - 0.9**step)) / size).astype(np.float32)
    return parameters


def _initial(rng: np.random.Generator) -> dict[str, np.ndarray]:
    parameters = {}
    for layer, (inputs, outputs) in enumerate(CHANNELS):
        shape = (outputs, inputs, 3, 3)
        parameters[f"w{layer}"] = rng.normal(0, np.sqrt(2 / (9 * inputs)), shape).astype(np.float32)
        parameters[f"b{layer}"] = np.zeros(outputs, np.float32)
    parameters["w3"] = rng.normal(0, np.sqrt(1 / 512), (512, 10)).astype(np.float32)
    parameters["b3"] = np.zeros(10, np.float32)
    return parameters


def _gradients(p: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Forward and backward through the network; the cross entropy's slope for every parameter."""
    columns, active, x = [], [], images
    for layer in range(3):
        columns.append(_patches(x))
        x = columns[-1] @ p[f"w{layer}"].reshape(len(p[f"b{layer}"]), -1).T + p[f"b{layer}"]
        x = np.maximum(x, 0).transpose(0, 3, 1, 2)
        active.append(x > 0)
        if layer == 1:
            x, winners = _pool(x)
    flat = x.reshape(len(x), -1)
    scores = flat @ p["w3"] + p["b3"]
    slope = np.exp(scores - scores.max(1, keepdims=True))
    slope /= slope.sum(1, keepdims=True)
    slope[np.arange(len(labels)), labels] -= 1
    slope /= len(labels)

    slopes = {"w3": flat.T @ slope, "b3": slope.sum(0)}
    back = (slope @ p["w3"].T).reshape(x.shape)
    for layer in (2, 1, 0):
        if layer == 1:
            back = winners * back.repeat(2, 2).repeat(2, 3)
        back = back * active[layer]
        weight = p[f"w{layer}"]
        slopes[f"b{layer}"] = back.sum((0, 2, 3))
        by_output = back.transpose(1, 0, 2, 3).reshape(len(weight), -1)
        slopes[f"w{layer}"] = (by_output @ columns[layer].reshape(by_output.shape[1], -1)).reshape(weight.shape)
        turned = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3).reshape(weight.shape[1], -1)
        back = (_patches(back) @ turned.T).transpose(0, 3, 1, 2)
    return slopes


def _patches(x: np.ndarray) -> np.ndarray:
    """The 3×3 neighbourhoods of `[N, C, H, W]`, zero outside: `[N, H, W, C * 9]`."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), (2, 3)).transpose(0, 2, 3, 1, 4, 5)
    return windows.reshape(*windows.shape[:3], -1)


def _pool(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maximum of every 2×2 block of `[N, C, H, W]`, and which pixels attained it."""
    n, c, h, w = x.shape
    best = x.reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))
    return best, x == best.repeat(2, 2).repeat(2, 3)
