"""LRN on blocked tensors: the squares of nearby channels are summed by a convolution whose weights are a band.

    before: y = LRN (x)
    after:  s = GatheredConv (Mul (x, x), band, bias); y = Div (x, s ^ beta)

A block of results reads the channels that it holds and their neighbours.
"""

from __future__ import annotations

import numpy as np

from partita.backends.cpu.blocked_operators import DOMAIN
from partita.backends.cpu.lanes import NONE, Lanes, Reach, count
from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.types import DType


def blocked_response(build: Builder, node: Node, source: Value, lanes: Lanes) -> Value:
    """The blocked result of an LRN, whose operand is `source` in these lanes."""
    channels, block, size = count(lanes), source.shape[4], int(node.attributes["size"])
    before = (size - 1) // 2
    near = [range(max(0, c - before), min(channels, c - before + size)) for c in range(channels)]
    reach = Reach.of(near, lanes, lanes, block)
    _, offset = reach.reads()
    band = np.where(offset == NONE, 0, node.attributes.get("alpha", 1e-4) / size)
    bias = np.where(np.array(lanes) == NONE, 1, node.attributes.get("bias", 1.0))  # padding stays finite
    total = build(
        "GatheredConv",
        build("Mul", source, source),
        build.constant(band.reshape(-1, 1, 1, block), DType.FLOAT32),
        build.constant(bias.reshape(-1, block), DType.FLOAT32),
        domain=DOMAIN,
        kernel_shape=(1, 1),
        **reach.attributes,
    )
    return build("Div", source, _power(build, total, float(node.attributes.get("beta", 0.75))))


def _power(build: Builder, base: Value, exponent: float) -> Value:
    """A power; of quarters by square roots."""
    if exponent in (0.25, 0.5, 0.75):
        root = build("Sqrt", base)
        quarter = root if exponent == 0.5 else build("Sqrt", root)
        return build("Mul", root, quarter) if exponent == 0.75 else quarter
    return base if exponent == 1 else build("Pow", base, build.scalar(exponent, base))
