"""Who is measured: one class for each runtime, all behind the same three calls.

A runner is loaded once from a model's file and then run many times. A new peer is one more class in `RUNNERS`.
"""

import importlib.metadata
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.extras import need

Inputs = dict[str, np.ndarray]


class Runner(ABC):
    """One runtime with one model: float32 throughout, every optimization on."""

    name: ClassVar[str]
    package: ClassVar[str]

    @abstractmethod
    def __init__(self, path: Path, inputs: Inputs, threads: int) -> None:
        """Load and compile the model; `inputs` tell the shapes it will be run on."""

    @abstractmethod
    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Every output by name."""

    def close(self) -> None:  # noqa: B027 - most runners hold nothing
        """Let go of what the runner holds outside the process's memory."""

    @classmethod
    def version(cls) -> str:
        """The installed version; raises `MissingExtraError` where there is none."""
        need(cls.package, cls.package)
        try:
            return importlib.metadata.version(cls.package)
        except importlib.metadata.PackageNotFoundError:
            return "from source"


class Partita(Runner):
    """The exported artifact, loaded again as a user would load it."""

    name = "partita"
    package = "partita"
    fast_math: ClassVar[tuple[str, ...]] = ()  # what `compile` is allowed

    def __init__(self, path: Path, inputs: Inputs, threads: int) -> None:
        import partita

        self.folder = tempfile.TemporaryDirectory(prefix="partita-benchmark-")
        artifact = Path(self.folder.name) / "model.so"
        partita.compile(path, fast_math=self.fast_math).export_library(artifact)
        self.module = partita.load_module(artifact, threads=threads)

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return self.module.run(inputs)

    def close(self) -> None:
        del self.module
        self.folder.cleanup()


class OnnxRuntime(Runner):
    """ONNX Runtime's CPU provider with all graph optimizations."""

    name = "onnxruntime"
    package = "onnxruntime"

    def __init__(self, path: Path, inputs: Inputs, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        return dict(zip(self.names, self.session.run(self.names, inputs), strict=True))


class OpenVino(Runner):
    """OpenVINO's CPU plugin, for latency, in float32; inputs and outputs are shared, not copied."""

    name = "openvino"
    package = "openvino"

    def __init__(self, path: Path, inputs: Inputs, threads: int) -> None:
        import openvino

        core = openvino.Core()
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.request = core.compile_model(core.read_model(path), "CPU", options).create_infer_request()
        self.names = [output.get_any_name() for output in self.request.model_outputs]

    def run(self, inputs: Inputs) -> dict[str, np.ndarray]:
        results = self.request.infer(inputs, share_inputs=True, share_outputs=True)
        return dict(zip(self.names, results.values(), strict=True))


RUNNERS: dict[str, type[Runner]] = {runner.name: runner for runner in (Partita, OnnxRuntime, OpenVino)}
