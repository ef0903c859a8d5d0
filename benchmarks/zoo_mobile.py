"""MobileNetV2, the keyword-spotting DS-CNN and the MLPerf Tiny autoencoder, as torch exports them."""

import itertools

import numpy as np
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper

OPSET = 17

#: MobileNetV2's rows: expansion, output channels, repeats, stride of the first repeat
INVERTED_RESIDUALS = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


class Builder:
    """Appends layers to a graph; every method takes and returns a value's name."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes = []
        self.tensors = []

    def parameter(self, name: str, value: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        output = f"/{kind}_{len(self.nodes)}_output_0"
        name = f"/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output

    def constant(self, value: float) -> str:
        return self.op("Constant", value=numpy_helper.from_array(np.array(value, np.float32)))

    def conv(
        self,
        x: str,
        layer: str,
        channels: tuple[int, int],
        kernel: tuple[int, int],
        *,
        gain: float,
        stride: tuple[int, int] = (1, 1),
        pads: tuple[int, int] = (0, 0),
        group: int = 1,
    ) -> str:
        """Conv without bias: `[N, channels[0], H, W]` to `[N, channels[1], H', W']`."""
        shape = (channels[1], channels[0] // group, *kernel)
        deviation = np.sqrt(gain / np.prod(shape[1:]))
        weight = self.parameter(f"{layer}.weight", self.rng.normal(0, deviation, shape))
        return self.op(
            "Conv",
            x,
            weight,
            dilations=[1, 1],
            group=group,
            kernel_shape=kernel,
            pads=[*pads, *pads],
            strides=stride,
        )

    def norm(self, x: str, layer: str, channels: int, scale: float = 1.0) -> str:
        """BatchNormalization over `[N, channels, ...]` with statistics near those of a trained network."""
        rng = self.rng
        inputs = [
            self.parameter(f"{layer}.weight", scale * rng.uniform(0.8, 1.2, channels)),
            self.parameter(f"{layer}.bias", rng.normal(0, 0.1, channels)),
            self.parameter(f"{layer}.running_mean", rng.normal(0, 0.1, channels)),
            self.parameter(f"{layer}.running_var", rng.uniform(0.8, 1.25, channels)),
        ]
        return self.op("BatchNormalization", x, *inputs, epsilon=1e-5, momentum=0.9, training_mode=0)

    def linear(self, x: str, layer: str, features: tuple[int, int], gain: float) -> str:
        """Gemm as `torch.nn.Linear` exports it: the weight is `[features[1], features[0]]`."""
        values = self.rng.normal(0, np.sqrt(gain / features[0]), features[::-1])
        weight = self.parameter(f"{layer}.weight", values)
        bias = self.parameter(f"{layer}.bias", self.rng.normal(0, 0.1, features[1]))
        return self.op("Gemm", x, weight, bias, alpha=1.0, beta=1.0, transB=1)

    def relu6(self, x: str) -> str:
        return self.op("Clip", x, self.constant(0.0), self.constant(6.0))

    def model(self, name: str, x: tuple[str, tuple[int, ...]], y: tuple[str, tuple[int, ...]]) -> ModelProto:
        """The finished model with one input and one output, each a name and a shape."""
        self.nodes[-1].output[0] = y[0]
        inputs = [helper.make_tensor_value_info(x[0], TensorProto.FLOAT, x[1])]
        outputs = [helper.make_tensor_value_info(y[0], TensorProto.FLOAT, y[1])]
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.tensors)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="partita-zoo")
        checker.check_model(model)
        return model


def mobilenet_v2(size: int = 224, seed: int = 0) -> ModelProto:
    """MobileNetV2 1.0: images `[1, 3, size, size]` to logits `[1, 1000]`."""
    b = Builder(seed)
    x = b.conv("input", "features.0.0", (3, 32), (3, 3), gain=1, stride=(2, 2), pads=(1, 1))
    x = b.relu6(b.norm(x, "features.0.1", 32))
    channels, index = 32, 1
    for expansion, outputs, repeats, stride in INVERTED_RESIDUALS:
        for repeat in range(repeats):
            first = stride if repeat == 0 else 1
            x = _inverted_residual(b, x, f"features.{index}", (channels, outputs), expansion, first)
            channels, index = outputs, index + 1
    x = b.conv(x, f"features.{index}.0", (channels, 1280), (1, 1), gain=1)
    x = b.relu6(b.norm(x, f"features.{index}.1", 1280))
    x = b.op("Flatten", b.op("GlobalAveragePool", x), axis=1)
    b.linear(x, "classifier.1", (1280, 1000), gain=2)
    return b.model("mobilenet_v2", ("input", (1, 3, size, size)), ("output", (1, 1000)))


def _inverted_residual(b: Builder, x: str, layer: str, channels: tuple[int, int], expansion: int, stride: int) -> str:
    """Expand 1×1, depthwise 3×3, project 1×1 without activation; added to its input where shapes agree."""
    inputs, outputs = channels
    hidden, y, part = inputs * expansion, x, 0
    if expansion != 1:
        y = b.conv(y, f"{layer}.conv.0.0", (inputs, hidden), (1, 1), gain=1)
        y = b.relu6(b.norm(y, f"{layer}.conv.0.1", hidden))
        part = 1
    depthwise = f"{layer}.conv.{part}"
    strides = (stride, stride)
    y = b.conv(y, f"{depthwise}.0", (hidden, hidden), (3, 3), gain=2, stride=strides, pads=(1, 1), group=hidden)
    y = b.relu6(b.norm(y, f"{depthwise}.1", hidden))
    y = b.conv(y, f"{layer}.conv.{part + 1}", (hidden, outputs), (1, 1), gain=2)
    residual = stride == 1 and inputs == outputs
    y = b.norm(y, f"{layer}.conv.{part + 2}", outputs, 0.5 if residual else 1.0)
    return b.op("Add", x, y) if residual else y


def ds_cnn(seed: int = 0) -> ModelProto:
    """DS-CNN for keyword spotting: spectrograms `[1, 1, 49, 10]` to 12 probabilities `[1, 12]`."""
    b = Builder(seed)
    x = b.conv("input", "conv1", (1, 64), (10, 4), gain=1, stride=(2, 2), pads=(5, 1))
    x = b.op("Relu", b.norm(x, "bn1", 64))
    for block in range(4):
        layer = f"blocks.{block}"
        x = b.conv(x, f"{layer}.dw", (64, 64), (3, 3), gain=2, pads=(1, 1), group=64)
        x = b.op("Relu", b.norm(x, f"{layer}.bn1", 64))
        x = b.conv(x, f"{layer}.pw", (64, 64), (1, 1), gain=2)
        x = b.op("Relu", b.norm(x, f"{layer}.bn2", 64))
    x = b.op("AveragePool", x, ceil_mode=0, count_include_pad=1, kernel_shape=[25, 5], strides=[25, 5])
    x = b.linear(b.op("Flatten", x, axis=1), "fc", (64, 12), gain=2)
    b.op("Softmax", x, axis=1)
    return b.model("ds_cnn", ("input", (1, 1, 49, 10)), ("output", (1, 12)))


def autoencoder(seed: int = 0) -> ModelProto:
    """The anomaly-detection autoencoder, 640-128×4-8-128×4-640: `[1, 640]` to `[1, 640]`."""
    b = Builder(seed)
    widths = [640, 128, 128, 128, 128, 8, 128, 128, 128, 128]
    x = "input"
    for index, features in enumerate(itertools.pairwise(widths)):
        x = b.linear(x, f"layers.{index}.fc", features, gain=1 if index == 0 else 2)
        x = b.op("Relu", b.norm(x, f"layers.{index}.bn", features[1]))
    b.linear(x, "out", (128, 640), gain=2)
    return b.model("autoencoder", ("input", (1, 640)), ("output", (1, 640)))
