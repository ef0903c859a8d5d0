"""Many small networks as one model: compiled once, compared network by network.

    batch = Batch()
    batch.add("c = Conv(x, w); y = Relu(c)", {"x": array(1, 3, 5, 5)}, {"w": array(8, 3, 3, 3)})
    batch.check()

Networks share nothing: every name is made its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx
from harness import BUILD, Array, expected, model

import partita
from partita.runtime import MetadataModule


@dataclass
class Batch:
    """The networks so far. `texts` says, per output of the model, which network made it."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    inputs: dict[str, Array] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    known: dict[str, Array] = field(default_factory=dict)
    count: int = 0
    opset: int = 23
    is_dynamic: bool = False  # every size of every input is a symbol

    def add(
        self,
        text: str,
        inputs: Mapping[str, Array],
        weights: Mapping[str, Array] | None = None,
        outputs: Sequence[str] = ("y",),
        wanted: Sequence[Array] | None = None,
    ) -> None:
        """One more network: nodes in ONNX's text form, with semicolons between them. It gives what is `wanted`, or else
        what the reference evaluator gives."""
        prefix = f"n{self.count}_"
        self.count += 1
        for statement in text.split(";"):
            node = onnx.parser.parse_node(statement.strip())
            node.name = f"{prefix}{node.op_type}"
            node.input[:] = [prefix + name if name else "" for name in node.input]
            node.output[:] = [prefix + name if name else "" for name in node.output]
            self.nodes.append(node)
        self.inputs |= {prefix + name: value for name, value in inputs.items()}
        self.weights |= {prefix + name: value for name, value in (weights or {}).items()}
        shapes = ", ".join(f"{name}: {value.shape}" for name, value in {**inputs, **(weights or {})}.items())
        self.texts |= {prefix + name: f"{text}  [{shapes}]" for name in outputs}
        if wanted is not None:
            self.known |= {prefix + name: content for name, content in zip(outputs, wanted, strict=True)}

    def model(self) -> onnx.ModelProto:
        proto = model(self.nodes, self.inputs, self.weights, list(self.texts), opset=self.opset)
        return with_symbols(proto) if self.is_dynamic else proto

    def expected(self) -> dict[str, Array]:
        """What every output should be."""
        own = {name.partition("_")[0] for name in self.known}
        nodes = [node for node in self.nodes if node.output[0].partition("_")[0] not in own]
        names = [name for name in self.texts if name not in self.known]
        proto = model(nodes, self.inputs, self.weights, names, opset=self.opset)
        return {**self.known, **dict(zip(names, expected(proto, self.inputs), strict=True))}

    def compile(self, build: partita.BuildOptions = BUILD) -> MetadataModule:
        return partita.compile(self.model(), name="batch", build=build)

    def check(self, tolerance: float = 1e-5) -> MetadataModule:
        """Every network gives what the reference evaluator gives, relative to its largest element."""
        module = self.compile()
        self.compare(module, tolerance)
        return module

    def compare(self, module: MetadataModule, tolerance: float = 1e-5) -> None:
        found, wanted = module.run(self.inputs), self.expected()
        problems = []
        for name, text in self.texts.items():
            problem = difference(found[name], wanted[name], tolerance)
            if problem:
                problems.append(f"{name} of {text}: {problem}")
        assert not problems, f"{len(problems)} of {self.count}:\n" + "\n".join(problems)


def with_symbols(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model for inputs of any size."""
    del proto.graph.value_info[:]
    for info in proto.graph.output:
        info.type.tensor_type.ClearField("shape")
    for info in proto.graph.input:
        for axis, dim in enumerate(info.type.tensor_type.shape.dim):
            dim.dim_param = f"{info.name}_{axis}"
    return proto


def difference(found: Array, wanted: Array, tolerance: float) -> str:
    """What is wrong with a result; "" for nothing."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"{found.dtype}{found.shape} instead of {wanted.dtype}{wanted.shape}"
    if wanted.dtype.kind not in "fV":
        return "" if np.array_equal(found, wanted) else f"{int((found != wanted).sum())} elements differ"
    exact, result = wanted.astype(np.float64), found.astype(np.float64)
    tolerance = max(tolerance, float(ml_dtypes.finfo(wanted.dtype).eps))
    scale = max(1.0, float(np.abs(exact[np.isfinite(exact)]).max(initial=0)))
    if np.allclose(result, exact, rtol=0, atol=tolerance * scale, equal_nan=True):
        return ""
    return f"off by up to {np.nanmax(np.abs(result - exact)):.3g} where the largest is {scale:.3g}"
