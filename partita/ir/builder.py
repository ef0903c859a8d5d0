"""Writes nodes into a graph, typed as they are made: what rewrites and decompositions build with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from partita.ir.graph import Attribute, Graph, Node, Value
from partita.ir.types import DType, TensorType

Operand = Value | float | Sequence[int] | np.ndarray[Any, Any] | None


class Builder:
    """Adds nodes to `graph`; names start with `prefix`, so that generated code tells where they come from. `nodes` are
    those added so far."""

    def __init__(self, graph: Graph, prefix: str) -> None:
        self.graph = graph
        self.prefix = prefix
        self.nodes: list[Node] = []

    def node(
        self,
        op_type: str,
        *inputs: Operand,
        outputs: int = 1,
        domain: str = "",
        **attributes: Attribute,
    ) -> tuple[Value, ...]:
        """Adds a node and infers its types; absent attributes are given as None. Numbers and arrays among the operands
        have the type of the last operand that is a value, a sequence is a vector of integers."""
        from partita.ir.inference import infer_node

        present = {key: value for key, value in attributes.items() if value is not None}
        name = self.graph.unique_name(f"{self.prefix}.{op_type}")
        names = [name] + [self.graph.unique_name(f"{name}.{n}") for n in range(1, outputs)]
        node = self.graph.add_node(op_type, self._operands(inputs), present, outputs=names, domain=domain, name=name)
        infer_node(node)
        self.nodes.append(node)
        return node.outputs

    def _operands(self, inputs: Sequence[Operand]) -> list[Value | None]:
        kind = next((value.type for value in reversed(inputs) if isinstance(value, Value)), None)
        result: list[Value | None] = []
        for given in inputs:
            if given is None or isinstance(given, Value):
                result.append(given)
            elif isinstance(given, Sequence):
                result.append(self.ints(given))
            else:
                assert isinstance(kind, TensorType), "a number stands beside a tensor"
                result.append(self.constant(given, kind.dtype))
        return result

    def __call__(self, op_type: str, *inputs: Operand, domain: str = "", **attributes: Attribute) -> Value:
        """`node`, for the usual single output."""
        return self.node(op_type, *inputs, domain=domain, **attributes)[0]

    def constant(self, content: Any, dtype: DType) -> Value:
        """A constant of the program's (not a weight)."""
        array = np.asarray(content, dtype=dtype.numpy)
        name = self.graph.unique_name(f"{self.prefix}.constant")
        kind = TensorType(dtype, tuple(map(int, array.shape)))
        return self.graph.add_parameter(name, kind, lambda: array, is_constant=True)

    def ints(self, content: Sequence[int]) -> Value:
        """A 1-D int64 constant, such as axes."""
        return self.constant(list(content), DType.INT64)

    def affine(self, x: Value, factor: float, offset: float = 0.0) -> Value:
        """`x * factor + offset`, for numbers of the program's."""
        product = self("Mul", x, self.scalar(factor, x))
        return self("Add", product, self.scalar(offset, product)) if offset else product

    def cast(self, x: Value, dtype: DType) -> Value:
        """`x` in another type; itself, where it is of that."""
        return x if x.tensor.dtype is dtype else self("Cast", x, to=dtype.onnx)

    def scalar(self, content: float, like: Value) -> Value:
        """A rank-0 constant of the element type of `like`."""
        return self.constant(content, like.tensor.dtype)
