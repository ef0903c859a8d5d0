"""The yardstick: a model evaluated in double precision, independently of any runtime.

`to_float64` rewrites a float32 model to float64; `Float64Model` evaluates it with onnx's reference evaluator. Some
of that evaluator's operators are replaced here: convolution and pooling, which take minutes for real networks;
`Erf`, which rounds to float32; `LRN`, which is wrong for most channels; and `BatchNormalization`, which mixes in
the batch's own statistics in opsets 9 to 13.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

#: attributes that name an element type
TYPE_ATTRIBUTES = {"to", "dtype"}


def to_float64(model: ModelProto) -> ModelProto:
    """The same model with every float32 in it a float64: inputs, outputs, weights, constants and casts."""
    double = ModelProto()
    double.CopyFrom(model)
    _convert_graph(double.graph)
    for function in double.functions:
        for node in function.node:
            _convert_node(node)
    return double


class Float64Model:
    """A model converted once, to be run on many inputs."""

    def __init__(self, model: ModelProto) -> None:
        self.evaluator = ReferenceEvaluator(to_float64(model), new_ops=FAST_AND_EXACT)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by name, computed in float64 from float32 inputs."""
        doubles = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in inputs.items()}
        return dict(zip(self.evaluator.output_names, self.evaluator.run(None, doubles), strict=True))


def run_float64(model: ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of the model by name, computed in float64 from float32 inputs."""
    return Float64Model(model).run(inputs)


def _convert_graph(graph: GraphProto) -> None:
    for value in itertools.chain(graph.input, graph.output, graph.value_info):
        _convert_value(value)
    for tensor in graph.initializer:
        _convert_tensor(tensor)
    for node in graph.node:
        _convert_node(node)


def _convert_value(value: ValueInfoProto) -> None:
    if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type == TensorProto.FLOAT:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE


def _convert_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        values = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _convert_node(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name in TYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.DOUBLE
        if attribute.type == AttributeProto.TENSOR:
            _convert_tensor(attribute.t)
        if attribute.type == AttributeProto.GRAPH:
            _convert_graph(attribute.g)
        for graph in attribute.graphs:
            _convert_graph(graph)
        if node.op_type == "Constant" and attribute.name in {"value_float", "value_floats"}:
            values = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            attribute.Clear()
            attribute.name, attribute.type = "value", AttributeProto.TENSOR
            attribute.t.CopyFrom(numpy_helper.from_array(np.array(values, np.float64)))


class _Windows:
    """The places a kernel visits on `[N, C, *spatial]`, as one strided view for each kernel element."""

    def __init__(
        self,
        x: np.ndarray,
        kernel: tuple[int, ...],
        fill: float,
        *,
        strides: list[int] | None,
        pads: list[int] | None,
        dilations: list[int] | None = None,
        unsupported: tuple[object, ...] = (),
    ) -> None:
        if any(value not in (None, 0, "NOTSET") for value in unsupported):
            raise NotImplementedError(f"the float64 evaluator has no auto_pad, ceil_mode, storage_order: {unsupported}")
        rank = len(kernel)
        self.kernel = kernel
        self.strides = strides or [1] * rank
        self.dilations = dilations or [1] * rank
        pads = pads or [0] * 2 * rank
        width = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
        self.padded = np.pad(x, width, constant_values=fill)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, self.dilations, strict=True)]
        sizes = zip(self.padded.shape[2:], reach, self.strides, strict=True)
        self.shape = tuple((size - r) // s + 1 for size, r, s in sizes)

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """Pairs of a kernel element's index and the input elements it meets, `[N, C, *self.shape]`."""
        for index in itertools.product(*map(range, self.kernel)):
            starts = [i * d for i, d in zip(index, self.dilations, strict=True)]
            steps = zip(starts, self.shape, self.strides, strict=True)
            yield index, self.padded[:, :, *(slice(a, a + (n - 1) * s + 1, s) for a, n, s in steps)]


class Conv(OpRun):
    """Convolution as one matrix product for each kernel element."""

    op_domain = ""

    def _run(
        self,
        x,
        w,
        b=None,
        auto_pad=None,
        dilations=None,
        group=None,
        kernel_shape=None,
        pads=None,
        strides=None,
    ):
        group = group or 1
        kernel = w.shape[2:]
        windows = _Windows(x, kernel, 0, strides=strides, pads=pads, dilations=dilations, unsupported=(auto_pad,))
        n, m = x.shape[0], w.shape[0]
        weights = w.reshape(group, m // group, w.shape[1], *kernel)
        y = np.zeros((n, group, m // group, math.prod(windows.shape)), x.dtype)
        for index, window in windows:
            y += weights[:, :, :, *index] @ window.reshape(n, group, w.shape[1], -1)
        y = y.reshape(n, m, *windows.shape)
        return (y if b is None else y + b.reshape(-1, *[1] * len(kernel)),)


class MaxPool(OpRun):
    """The maximum over every window; no indices."""

    op_domain = ""

    def _run(
        self,
        x,
        auto_pad=None,
        ceil_mode=None,
        dilations=None,
        kernel_shape=None,
        pads=None,
        storage_order=None,
        strides=None,
    ):
        unsupported = (auto_pad, ceil_mode, storage_order)
        options = {"strides": strides, "pads": pads, "dilations": dilations, "unsupported": unsupported}
        windows = _Windows(x, tuple(kernel_shape), -np.inf, **options)
        y = np.full((*x.shape[:2], *windows.shape), -np.inf)
        for _, window in windows:
            np.maximum(y, window, out=y)
        return (y,)


class AveragePool(OpRun):
    """The mean over every window, with or without the padding."""

    op_domain = ""

    def _run(
        self,
        x,
        auto_pad=None,
        ceil_mode=None,
        count_include_pad=None,
        dilations=None,
        kernel_shape=None,
        pads=None,
        strides=None,
    ):
        options = {
            "strides": strides,
            "pads": pads,
            "dilations": dilations,
            "unsupported": (auto_pad, ceil_mode),
        }
        windows = _Windows(x, tuple(kernel_shape), 0, **options)
        total = sum(window for _, window in windows)
        if count_include_pad:
            return (total / math.prod(kernel_shape),)
        ones = _Windows(np.ones_like(x[:1, :1]), tuple(kernel_shape), 0, **options)
        return (total / sum(window for _, window in ones),)


class LRN(OpRun):
    """Normalization by the squares of neighbouring channels."""

    op_domain = ""

    def _run(self, x, alpha=None, beta=None, bias=None, size=None):
        before, after = (size - 1) // 2, size // 2
        squares = np.pad(x**2, [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
        total = sum(squares[:, i : i + x.shape[1]] for i in range(size))
        return (x / (bias + float(alpha) / size * total) ** beta,)  # attributes come as float32 scalars


class Erf(OpRun):
    """The error function, in double precision."""

    op_domain = ""

    def _run(self, x):
        return (np.vectorize(math.erf, otypes=["d"])(x),)


class BatchNormalization(OpRun):
    """Normalization by the given statistics, never by those of the batch."""

    op_domain = ""

    def _run(self, x, scale, bias, mean, var, epsilon=None, momentum=None, spatial=None, training_mode=None):
        if training_mode or len(self.onnx_node.output) > 1:
            raise NotImplementedError("the float64 evaluator runs BatchNormalization for inference only")
        scale, bias, mean, var = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, var))
        return (scale * (x - mean) / np.sqrt(var + epsilon) + bias,)


FAST_AND_EXACT = [Conv, MaxPool, AveragePool, LRN, Erf, BatchNormalization]
