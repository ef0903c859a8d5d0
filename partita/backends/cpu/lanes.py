"""Lanes: which channel each lane of a blocked tensor holds.

Usually channels lie in order, and what is left of the last block is padding. But a shuffle of channels is the same
tensor with other lanes, and where tensors are concatenated the padding of each stays: weights are packed for the lanes
that a kernel meets, so neither costs anything at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from partita.backends.cpu.blocked_operators import block_count
from partita.ir import dims
from partita.ir.graph import Graph, Node, Value

NONE = -1  # in a lane of padding
Lanes = tuple[int, ...]  # the channel in each lane, block by block


def in_order(channels: int, block: int) -> Lanes:
    padding = block_count(channels, block) * block - channels
    return (*range(channels), *[NONE] * padding)


def is_in_order(lanes: Lanes) -> bool:
    return lanes == (*range(count(lanes)), *[NONE] * (len(lanes) - count(lanes)))


def count(lanes: Lanes) -> int:
    """Channels in the lanes."""
    return sum(channel != NONE for channel in lanes)


def places(lanes: Lanes) -> list[int]:
    """The lane of each channel."""
    found = {channel: place for place, channel in enumerate(lanes)}
    return [found[channel] for channel in range(count(lanes))]


def joined(parts: Sequence[Lanes]) -> Lanes:
    """The lanes of tensors whose blocks are put one behind the other, and their channels too."""
    result: list[int] = []
    first = 0
    for lanes in parts:
        result += [channel if channel == NONE else first + channel for channel in lanes]
        first += count(lanes)
    return tuple(result)


def interleaved(channels: int, phases: int, block: int, *, phase_first: bool) -> Lanes:
    """The lanes of what will be interleaved: blocks of `channels`, each once for every phase. In the plain tensor, the
    phases of a channel are beside each other, or with `phase_first` the channels of a phase."""
    step, apart = (1, channels) if phase_first else (phases, 1)
    return tuple(
        NONE if channel == NONE else channel * step + phase * apart
        for first in range(0, channels, block)
        for phase in range(phases)
        for channel in in_order(channels, block)[first : first + block]
    )


@dataclass(frozen=True, slots=True)
class Reach:
    """What each block of results reads, where a channel of the result takes some neighbours among the input's alone:
    block b the lanes `places[starts[b]:starts[b + 1]]` of the input, all that any of its own lanes takes."""

    outer: Lanes
    taken: tuple[range, ...]  # by each channel of the result
    starts: tuple[int, ...]
    places: tuple[int, ...]
    channels: tuple[int, ...]  # in these lanes

    @classmethod
    def of(cls, taken: Sequence[range], inner: Lanes, outer: Lanes, block: int) -> Reach:
        starts, read = [0], list[tuple[int, int]]()
        lane_of = places(inner)
        for first in range(0, len(outer), block):
            ranges = {taken[channel] for channel in outer[first : first + block] if channel != NONE}
            read += sorted((lane_of[channel], channel) for channel in set().union(*ranges))
            starts.append(len(read))
        return cls(outer, tuple(taken), tuple(starts), tuple(p for p, _ in read), tuple(c for _, c in read))

    @property
    def attributes(self) -> dict[str, tuple[int, ...]]:
        """Those of a GatheredConv."""
        return {"starts": self.starts, "places": self.places}

    def reads(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """For each place and each lane of its block, `[T, B]`: the channel of the result, and which of those that it
        takes the place holds; NONE where it takes another's."""
        blocks = len(self.starts) - 1
        output = np.repeat(np.reshape(self.outer, (blocks, -1)), np.diff(self.starts), axis=0)
        limits = np.array([*((each.start, each.stop) for each in self.taken), (0, 0)])
        first, end = np.moveaxis(limits[output], -1, 0)
        channel = np.array(self.channels)[:, None]
        return output, np.where((first <= channel) & (channel < end), channel - first, NONE)


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Channels in another order: Reshape, Transpose, Reshape. Channel `c` of the result is `source[c]` of `value`."""

    value: Value
    source: Lanes
    inner: tuple[Node, ...]  # its first two nodes

    def lanes(self, lanes: Lanes) -> Lanes:
        """The lanes of the result, in the tensor whose lanes these are."""
        renamed = {channel: place for place, channel in enumerate(self.source)}
        return tuple(NONE if channel == NONE else renamed[channel] for channel in lanes)


def shuffles(graph: Graph) -> dict[Node, Shuffle]:
    """The shuffles of a graph, by their last node."""
    found = {node: _shuffle(graph, node) for node in graph.nodes if node.op_type == "Reshape" and not node.domain}
    return {node: shuffle for node, shuffle in found.items() if shuffle is not None}


def _shuffle(graph: Graph, node: Node) -> Shuffle | None:
    """`[N, C, H, W]` to `[N, a, b, .., H, W]`, transposed between the first axis and the last two, and back."""
    transpose = node.operand(0).producer
    split = transpose.operand(0).producer if transpose is not None and transpose.op_type == "Transpose" else None
    if transpose is None or split is None or split.op_type != "Reshape":
        return None
    value, shape, perm = split.operand(0), split.output.shape, transpose.attributes["perm"]
    rank, result = len(shape), node.output.shape
    if len(value.shape) != 4 or not dims.all_static(value.shape[1:]) or not dims.same_shape(value.shape, result):
        return None
    kept = (0, rank - 2, rank - 1)
    if rank < 5 or not dims.same_shape([shape[axis] for axis in kept], [result[axis] for axis in (0, 2, 3)]):
        return None
    if any(perm[axis] != axis for axis in kept) or not all(
        graph.consumers(inner.output) == [user] and not graph.is_output(inner.output)
        for inner, user in ((split, transpose), (transpose, node))
    ):
        return None
    numbers = np.arange(result[1]).reshape([int(dim) for dim in shape[1:-2]])
    source = numbers.transpose([axis - 1 for axis in perm[1:-2]]).reshape(-1)
    return Shuffle(value, tuple(map(int, source)), (split, transpose))
