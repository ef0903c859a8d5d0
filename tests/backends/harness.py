"""What tests of a backend share: small models, compiled for it and compared with ONNX's reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import partita

Array = np.ndarray[Any, Any]
OPSET = 22
BUILD = partita.BuildOptions(optimization="-O0")  # what is tested computes elsewhere


def array(*shape: int, seed: int = 0) -> Array:
    """Reproducible normal numbers."""
    return np.asarray(np.random.default_rng((seed, *shape)).normal(size=shape), np.float32)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array | Sequence[Any]],
    weights: Mapping[str, Array],
    outputs: Sequence[str] = ("y",),
    *,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """A model of these nodes. Inputs are arrays, or shapes of float32 tensors."""
    infos = [_info(name, like) for name, like in inputs.items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        infos,
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 5)]
    untyped = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return onnx.shape_inference.infer_shapes(untyped, strict_mode=True)


def _info(name: str, like: Array | Sequence[Any]) -> onnx.ValueInfoProto:
    if isinstance(like, np.ndarray):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(like.dtype), like.shape)
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(like))


def expected(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    evaluator: Any = ReferenceEvaluator(proto)
    return [np.asarray(result) for result in evaluator.run(None, dict(inputs))]


def decisions(module: partita.runtime.MetadataModule) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """(operator, backend, refusals) of every node."""
    return [(op_type, backend, refusals) for _, op_type, backend, refusals in module.extras["decisions"]]


def check(
    backend: str,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Array],
    weights: Mapping[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    *,
    opset: int = OPSET,
    tolerance: float = 1e-5,
    wanted: Sequence[Array] | None = None,
) -> partita.runtime.MetadataModule:
    """Compiles; every node must be the backend's, and a first and a second run give what the evaluator gives, or
    `wanted`."""
    proto = model(nodes, inputs, weights or {}, outputs, opset=opset)
    module = compile_for(backend, proto)
    assert {owner for _, owner, _ in decisions(module)} == {backend}, decisions(module)
    compare(module, proto, inputs, tolerance, wanted)
    return module


def compile_for(backend: str, proto: onnx.ModelProto) -> partita.runtime.MetadataModule:
    return partita.compile(proto, targets=[backend], build=BUILD)


def compare(
    module: partita.runtime.MetadataModule,
    proto: onnx.ModelProto,
    inputs: Mapping[str, Array],
    tolerance: float = 1e-5,
    wanted: Sequence[Array] | None = None,
) -> None:
    """Runs the module twice and compares with the evaluator, relative to each output's largest element."""
    wanted = expected(proto, inputs) if wanted is None else wanted
    for _ in range(2):
        results = module.run(dict(inputs))
        for info, reference in zip(proto.graph.output, wanted, strict=True):
            found = results[info.name]
            assert found.shape == reference.shape
            assert found.dtype == reference.dtype
            scale = max(1.0, float(np.abs(reference[np.isfinite(reference)]).max(initial=0)))
            np.testing.assert_allclose(found, reference, rtol=tolerance, atol=tolerance * scale)


def refusal(backend: str, proto: onnx.ModelProto) -> str:
    """Why the backend refused a model's first node that it refused."""
    module = compile_for(backend, proto)
    for _, _, refusals in decisions(module):
        for owner, reason in refusals:
            if owner == backend:
                return reason
    raise AssertionError("nothing was refused")


node = helper.make_node
