"""Engines run interpreted regions: ONNX graphs that no backend printed as C.

An engine is made from the bytes of a model and then called with the model's inputs, in order. Further engines are
given to `load_module(engines=...)`, beside the ones here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

import numpy as np

from partita.errors import ParameterError
from partita.runtime.table import Array

Engine = Callable[[Sequence[Array]], Sequence[Array]]
EngineFactory = Callable[[bytes], Engine]


def reference_engine(model: bytes) -> Engine:
    """ONNX's own reference evaluator: slow, and complete."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    evaluator: Any = ReferenceEvaluator(onnx.load_model_from_string(model))
    names = list(evaluator.input_names)

    def run(inputs: Sequence[Array]) -> Sequence[Array]:
        results = evaluator.run(None, dict(zip(names, inputs, strict=True)))
        return [np.asarray(result) for result in results]

    return run


def onnxruntime_engine(model: bytes) -> Engine:
    """ONNX Runtime, where it is installed."""
    onnxruntime: Any = import_module("onnxruntime")

    session: Any = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(inputs: Sequence[Array]) -> Sequence[Array]:
        results: Sequence[Array] = session.run(None, dict(zip(names, inputs, strict=True)))
        return results

    return run


ENGINES: Mapping[str, EngineFactory] = MappingProxyType(
    {"reference": reference_engine, "onnxruntime": onnxruntime_engine}
)


def make_engine(name: str, model: bytes, further: Mapping[str, EngineFactory]) -> Engine:
    """The engine of a name, for a model; a name in `further` goes before the ones here.

    Raises:
        ParameterError: there is no engine of this name.
    """
    factory = further.get(name) or ENGINES.get(name)
    if factory is None:
        known = ", ".join(sorted({*further, *ENGINES}))
        raise ParameterError(f"no engine {name!r}: there are {known}; pass others as engines= to load_module")
    return factory(model)
