"""Einsum: sums of products over named axes."""

from __future__ import annotations

import string

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Computation, Expr, Index
from partita.ir.formula import broadcast_load, cast, reduce, wide
from partita.ir.graph import Node
from partita.ir.operators.registry import computes


def terms(node: Node) -> tuple[list[str], str]:
    """The axes' letters of each operand and of the result; those that an ellipsis stands for get capitals or digits of
    their own."""
    equation = node.attributes["equation"].replace(" ", "")
    left, arrow, right = equation.partition("->")
    names = left.split(",")
    if len(names) != len(node.operands):
        raise ModelError(f"{node.describe()}: {len(names)} terms for {len(node.operands)} operands")
    spare = [c for c in string.ascii_letters + string.digits if c not in equation]
    widest = max(len(v.shape) - len(t.replace("...", "")) for v, t in zip(node.operands, names, strict=True))
    batch = "".join(spare[: max(widest, 0)])
    result = []
    for value, name in zip(node.operands, names, strict=True):
        count = len(value.shape) - len(name.replace("...", ""))
        letters = name.replace("...", batch[len(batch) - count :]) if "..." in name else name
        if len(letters) != len(value.shape):
            raise ModelError(f"{node.describe()}: the term {name!r} does not fit {value.type}")
        result.append(letters)
    if not arrow:
        every = "".join(result)
        right = "..." + "".join(sorted(c for c in set(every) - set(batch) if every.count(c) == 1))
    return result, right.replace("...", batch)


@computes("Einsum")
def einsum(node: Node) -> Computation:
    names, right = terms(node)
    sizes: dict[str, Dim] = {}
    for value, letters in zip(node.operands, names, strict=True):
        for letter, dim in zip(letters, value.shape, strict=True):
            joined = dims.broadcast(sizes.get(letter, 1), dim)
            if joined is None:
                raise ModelError(f"{node.describe()}: the axis {letter!r} has sizes {sizes[letter]} and {dim}")
            sizes[letter] = joined
    axes = {letter: Axis(f"i{n}", dim) for n, (letter, dim) in enumerate(sizes.items())}
    product: Expr | None = None
    for value, letters in zip(node.operands, names, strict=True):
        element = broadcast_load(value, [Index(axes[letter]) for letter in letters])
        product = wide(element) if product is None else product * wide(element)
    assert product is not None
    summed = [axis for letter, axis in axes.items() if letter not in right]
    total = reduce("sum", summed, product, 0) if summed else product
    return Computation(tuple(axes[letter] for letter in right), cast(total, node.operand(0).tensor.dtype))
