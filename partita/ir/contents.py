"""What rules look at in a node: the contents of operands that are known when compiling, and axes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.graph import Node, Value

Known = np.ndarray[Any, np.dtype[Any]]
LARGEST_PARAMETER = 1024  # elements: what is larger is data, and decides nothing


def known(value: Value | None) -> Known | None:
    """The content of a value where the compiler knows it, as an object array of dimensions. Looking at a
    parameter bakes it: call this only to decide something."""
    if value is None:
        return None
    if value.known is None and value.parameter is not None and dims.product(value.shape) <= LARGEST_PARAMETER:
        value.known = value.parameter.bake().astype(object)
    return value.known


def certain(value: Value | None) -> Known | None:
    """The content of a value where no weight decides it, so that nothing is baked."""
    if value is None or (value.known is None and value.parameter is not None and not value.parameter.is_constant):
        return None
    return known(value)


class DataDependentError(ShapeError):
    """What an operator computes can be told at run time only, from its operands' data."""


def required(node: Node, index: int) -> Known:
    """The content of operand `index`, which an expression of the operator needs; `DataDependentError` when it depends
    on the inputs' data."""
    content = known(node.operand(index))
    if content is None:
        raise DataDependentError(
            f"{node.describe()}: operand {index} ({node.operand(index).name!r}) must be known when compiling, "
            "but it depends on the model's inputs"
        )
    return content


def ints(content: Known) -> tuple[Any, ...]:
    """A known 1-D (or 0-D) tensor as a tuple of dimensions."""
    return tuple(content.reshape(-1).tolist())


def required_ints(node: Node, index: int) -> tuple[Any, ...]:
    """The known operand `index` as a tuple of dimensions; see `required`."""
    return ints(required(node, index))


def normalized_axis(node: Node, axis: int, rank: int) -> int:
    """`axis` counted from the front; `ModelError` when it is outside [-rank, rank)."""
    if not -rank <= axis < rank:
        raise ModelError(f"{node.describe()}: axis {axis} is outside [{-rank}, {rank}); correct the attribute")
    return axis % rank


def axis_of(node: Node, rank: int, default: int = 0) -> int:
    """The attribute `axis`, counted from the front."""
    return normalized_axis(node, node.attributes.get("axis", default), rank)


def normalized_axes(node: Node, axes: Iterable[int], rank: int) -> tuple[int, ...]:
    result = tuple(normalized_axis(node, int(axis), rank) for axis in axes)
    if len(set(result)) != len(result):
        raise ModelError(f"{node.describe()}: the axes {result} repeat")
    return result
