"""Small models for the tests of the whole compiler, and what they should compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import partita

Array = np.ndarray[Any, Any]
BUILD = partita.BuildOptions(optimization="-O0", flags=("-Wall", "-Wextra", "-Werror"))

NETWORK = """
<ir_version: 10, opset_import: ["" : 21]>
network (float[N, 3, 6, 6] x) => (float[N, 5] y, float[N, 5] z) {
    c = Conv <pads = [1, 1, 1, 1]> (x, conv_w, conv_b)
    n = BatchNormalization (c, scale, shift, mean, variance)
    r = Relu (n)
    f = Reshape (r, shape)
    y = Gemm (f, gemm_w, gemm_b)
    z = Softmax (y)
}
"""
SHAPES = {
    "conv_w": (4, 3, 3, 3),
    "conv_b": (4,),
    "scale": (4,),
    "shift": (4,),
    "mean": (4,),
    "variance": (4,),
    "gemm_w": (144, 5),
    "gemm_b": (5,),
}


def weights(seed: int = 0) -> dict[str, Array]:
    """The network's parameters; `shape`, at whose value the compiler has to look, is always the same."""
    random = np.random.default_rng(seed)
    drawn = {name: random.uniform(0.5, 1.5, size).astype(np.float32) for name, size in SHAPES.items()}
    return {**drawn, "shape": np.array([0, -1], np.int64)}


def network(seed: int = 0, **changed: Array) -> onnx.ModelProto:
    """A convolution, a normalization that binding folds into it, and a classifier, for any batch N."""
    return parsed(NETWORK, weights(seed) | changed)


def parsed(text: str, parameters: Mapping[str, Array] | None = None) -> onnx.ModelProto:
    """The model of a text, with these initializers."""
    model = onnx.parser.parse_model(text)
    for name, array in (parameters or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def images(batch: int = 2, seed: int = 9) -> Array:
    """Input of the network."""
    return np.random.default_rng(seed).standard_normal((batch, 3, 6, 6), dtype=np.float32)


def compiled(model: Any, targets: Sequence[str] = (), **options: Any) -> Any:
    """The model, compiled quickly and with every warning an error."""
    return partita.compile(model, targets, **{"build": BUILD, **options})


def expected(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What ONNX's reference evaluator computes."""
    evaluator: Any = ReferenceEvaluator(model)
    names = [output.name for output in model.graph.output]
    return dict(zip(names, evaluator.run(names, dict(inputs)), strict=True))


def assert_computes(runnable: Any, model: onnx.ModelProto, inputs: Mapping[str, Array]) -> None:
    """The runnable gives what the reference evaluator gives."""
    results = runnable.run(inputs)
    wanted = expected(model, inputs)
    assert list(results) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_allclose(results[name], array, rtol=1e-4, atol=1e-4)


def identity_model(data_type: int, parameter: Array) -> onnx.ModelProto:
    """(x) -> (w as it is, w flattened, x): what goes through untouched, of one element type."""
    nodes = [
        helper.make_node("Identity", ["w"], ["same"]),
        helper.make_node("Flatten", ["w"], ["flat"]),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    flat = [parameter.shape[0], int(np.prod(parameter.shape[1:]))]
    outputs = [("same", list(parameter.shape)), ("flat", flat), ("y", [2])]
    graph = helper.make_graph(
        nodes,
        "identity",
        [helper.make_tensor_value_info("x", data_type, [2])],
        [helper.make_tensor_value_info(name, data_type, shape) for name, shape in outputs],
        [numpy_helper.from_array(parameter, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=12)
