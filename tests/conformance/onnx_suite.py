"""The ONNX backend suite as cases: a model, inputs by name, and what the outputs must be.

The suite ships with the onnx package, in three forms: cases made by Python (node, simple), cases in files (pytorch-*),
and the nine light models, whose inputs are made by rule (`_ramp`).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

HERE = Path(__file__).parent
ROOT = Path(onnx.__file__).parents[1]
KINDS = ("node", "simple", "real", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class Case:
    """One case. `source` is a TestCase of onnx's; `number` is unique, for symbols."""

    name: str
    number: int
    kind: str
    rtol: float
    atol: float
    source: Any

    @property
    def is_random(self) -> bool:
        """Whether the outputs are one of many that are right: the suite says so of Bernoulli, whatever the seed."""
        return self.name.startswith("test_bernoulli")

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        if self.source.model is not None:
            return self.source.model
        if self.source.model_dir is not None:
            return onnx.load(Path(self.source.model_dir) / "model.onnx")
        return onnx.load(ROOT / self.source.url)

    def data(self) -> Iterator[tuple[dict[str, Any], list[Any]]]:
        """(inputs by name, outputs in order) of every data set."""
        weights = {tensor.name for tensor in self.model.graph.initializer}
        inputs = [value for value in self.model.graph.input if value.name not in weights]
        for given, wanted in self._data_sets(inputs):
            yield {value.name: array for value, array in zip(inputs, given, strict=False)}, list(wanted)

    def _data_sets(self, inputs: Sequence[onnx.ValueInfoProto]) -> Iterator[tuple[Sequence[Any], Sequence[Any]]]:
        if self.source.data_sets is not None:
            for given, wanted in self.source.data_sets:
                yield [_array(item) for item in given], [_array(item) for item in wanted]
        elif self.source.model_dir is not None:
            for folder in sorted(Path(self.source.model_dir).glob("test_data_set_*")):
                yield _read(folder, "input", inputs), _read(folder, "output", self.model.graph.output)
        else:
            path = ROOT / self.source.url
            outputs = [path.with_name(f"{path.stem}_output_{n}.pb") for n in range(len(self.model.graph.output))]
            yield [_ramp(value) for value in inputs], [numpy_helper.to_array(onnx.load_tensor(p)) for p in outputs]


@functools.cache
def cases() -> dict[str, Case]:
    """All cases by name, the light models last: they take longest."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own arithmetic overflows on purpose
        from onnx.backend.test.case.model import collect_testcases
        from onnx.backend.test.loader import load_model_tests

        sources = [test for kind in KINDS for test in load_model_tests(kind=kind)] + collect_testcases()
    found: dict[str, Case] = {}
    for number, test in enumerate(sources):
        found.setdefault(test.name, Case(test.name, number, test.kind, test.rtol, test.atol, test))
    return dict(sorted(found.items(), key=lambda item: (item[1].kind == "real", item[0])))


def _array(item: Any) -> Any:
    return numpy_helper.to_array(item) if isinstance(item, onnx.TensorProto) else item


def _ramp(value: onnx.ValueInfoProto) -> np.ndarray:
    """What the suite feeds the light models: 0 to 1 in equal steps."""
    shape = tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)
    count = int(np.prod(shape))
    return (np.arange(count).reshape(shape) / count).astype(np.float32)


def _read(folder: Path, stem: str, values: Sequence[onnx.ValueInfoProto]) -> list[Any]:
    count = len(list(folder.glob(f"{stem}_*.pb")))
    return [_read_value(folder / f"{stem}_{n}.pb", values[n].type) for n in range(count)]


def _read_value(path: Path, kind: onnx.TypeProto) -> Any:
    data = path.read_bytes()
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))
