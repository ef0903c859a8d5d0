"""Where every value lives: one arena for the whole schedule, planned over all regions at once.

The schedule is the regions' nodes in the order they run, one step each; a node that holds bodies takes a step before
theirs and one after, and what a body reads of outside lives as long. Values that are one memory (views, what a
region hands out, an operand overwritten in place) form one buffer; a buffer lives from its first step to its last. What
a node would only put together, as Concat does, is computed in its output, and nothing runs.
Buffers are placed one after another, each at the lowest offset where nothing that lives at the same time lies (greedy;
Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020), in two orders of which the better
stays: the largest first, which keeps small buffers out of the way of large ones; and the fullest step's first, the
longest lived leading, which lets no gap arise where there is no room for one.

Where sizes are symbolic the runtime places the same buffers by the same rule, once it knows the sizes. A buffer whose
size depends on data is reserved while the model runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import bodies, captured, graphs, is_control, plain
from partita.ir.nested import steps as steps_of
from partita.ir.operators.internal import is_observation
from partita.ir.operators.sequences import is_list
from partita.ir.region import Region, regions
from partita.ir.types import TensorType
from partita.runtime import Storage

ALIGNMENT = 64  # bytes, PARTITA_ALIGNMENT of partita.h


class MemoryTraits(Protocol):
    """What the plan asks a backend about a node."""

    def views(self, node: Node) -> Mapping[int, int]: ...
    def in_place(self, node: Node) -> Mapping[int, int]: ...
    def parts(self, node: Node) -> Sequence[int]: ...
    def workspace(self, node: Node) -> Dim: ...


@dataclass(slots=True)
class PlannedBuffer:
    """Memory that lives from step `first` to step `last`. `index` numbers the model input or output where storage
    is ARGUMENT; `constant` names the table's entry where it is CONSTANT. `offset` is in bytes, -1 for "at run time"."""

    storage: Storage
    bytes: Dim
    first: int
    last: int
    index: int = -1
    constant: str = ""
    offset: int = -1


@dataclass(slots=True)
class MemoryPlan:
    """The buffers, which of them each value has, and the sizes. Bytes throughout."""

    buffers: list[PlannedBuffer] = field(default_factory=list)
    buffer_of: dict[Value, int] = field(default_factory=dict)
    workspace_of: dict[Node, int] = field(default_factory=dict)
    assembled: set[Node] = field(default_factory=set)  # whose operands lie in their output, so that nothing is to do
    data_dependent: frozenset[str] = frozenset()
    symbols: tuple[str, ...] = ()  # the symbolic dimensions, in the order of `extents` at run time
    arena_bytes: int = 0  # -1: known once the symbolic dimensions are
    lower_bound: int = 0  # the largest set of bytes alive at once; no plan needs less

    def buffer(self, value: Value) -> PlannedBuffer:
        return self.buffers[self.buffer_of[value]]

    @property
    def symbol_texts(self) -> dict[str, str]:
        """Each symbol as generated C reads it."""
        return {name: f"call->extents[{place}]" for place, name in enumerate(self.symbols)}


def plan_memory(
    graph: Graph, traits: Mapping[str, MemoryTraits], data_dependent: frozenset[str] = frozenset()
) -> MemoryPlan:
    """Plans a partitioned and bound graph. `traits` maps a backend's name to the backend; `data_dependent` names
    symbols that only a run can tell, besides those that no input's shape shows."""
    return _Planner(graph, traits, data_dependent).plan()


class _Planner:
    def __init__(self, graph: Graph, traits: Mapping[str, MemoryTraits], data_dependent: frozenset[str]) -> None:
        self.graph = graph
        self.traits = traits
        self.regions = regions(graph)
        symbols = _symbols(graph, self.regions)
        hidden = frozenset(symbols) - frozenset(_symbols(graph, []))
        self.result = MemoryPlan(data_dependent=data_dependent | hidden, symbols=symbols)
        self.parent: dict[Value, Value] = {}
        self.inside: dict[int, tuple[int, int]] = {}  # the buffer that a buffer lies in, and the first byte there

    def plan(self) -> MemoryPlan:
        steps = [(region, node) for region in self.regions for node in steps_of(region.body)]
        self._unite()
        self._make_buffers(steps)
        self._overwrite_in_place(steps)
        if self._is_static():
            self._assemble(steps)
            self._place()
        else:
            self.result.arena_bytes = self.result.lower_bound = -1
        return self.result

    # ------------------------------------------------------------------ values that are one memory

    def _find(self, value: Value) -> Value:
        root = value
        while self.parent.get(root, root) is not root:
            root = self.parent[root]
        while value is not root:
            self.parent[value], value = root, self.parent.get(value, root)
        return root

    def _union(self, first: Value, second: Value) -> None:
        self.parent[self._find(second)] = self._find(first)

    def _unite(self) -> None:
        names = {value.name: value for value in self.graph.parameters}
        for region in self.regions:
            for inner, outer in zip(region.body.inputs, region.node.operands, strict=True):
                self._union(outer, inner)
            for graph in graphs(region.body):
                for value in graph.parameters:
                    self._union(names.setdefault(value.name, value), value)
                for node in graph.nodes:
                    for output, source in self.traits[region.backend].views(node).items():
                        self._union(node.operand(source), node.outputs[output])
                    self._unite_bodies(node)
            for inner, outer in zip(region.body.outputs, region.node.outputs, strict=True):
                self._union(inner, outer)

    def _unite_bodies(self, node: Node) -> None:
        """A branch computes into the node's outputs; a loop keeps there what it carries."""
        if not is_control(node):
            return
        outside = captured(node)
        for body in bodies(node).values():
            for outer, inner in zip(outside, body.inputs[len(body.inputs) - len(outside) :], strict=True):
                self._union(outer, inner)
            inside = body.outputs if node.op_type == "If" else body.inputs[2 : len(plain(node))]
            for outer, inner in zip(node.outputs, inside, strict=False):
                self._union(outer, inner)

    # ------------------------------------------------------------------ buffers and their lives

    def _make_buffers(self, steps: list[tuple[Region, Node]]) -> None:
        buffers: dict[Value, PlannedBuffer] = {}
        for index, value in enumerate(self.graph.inputs):
            storage = Storage.SEQUENCE if is_list(value) else Storage.ARGUMENT
            buffers[self._find(value)] = PlannedBuffer(storage, _bytes(value), -1, len(steps), index)
        inner = [graph for region in self.regions for graph in graphs(region.body)]
        for value in (value for graph in (self.graph, *inner) for value in graph.parameters):
            root = self._find(value)
            buffers.setdefault(
                root, PlannedBuffer(Storage.CONSTANT, _bytes(value), -1, len(steps), constant=value.name)
            )
        for index, value in enumerate(self.graph.outputs):
            number = len(self.graph.inputs) + index
            root = self._find(value)
            storage = self._storage(root)
            if storage is Storage.ARENA and not self._depends_on_data(value):
                storage = Storage.ARGUMENT
            buffers.setdefault(root, PlannedBuffer(storage, _bytes(root), -1, len(steps), number))
        for step, (region, node) in enumerate(steps):
            for value in _touched(node):
                root = self._find(value)
                if root not in buffers:
                    buffers[root] = PlannedBuffer(self._storage(root), _bytes(root), step, step)
                buffers[root].last = max(buffers[root].last, step)
            self._add_workspace(step, region, node)
        for root, buffer in buffers.items():
            self.result.buffers.append(buffer)
            self.parent.setdefault(root, root)
        position = {id(buffer): number for number, buffer in enumerate(self.result.buffers)}
        for value in list(self.parent):
            root = self._find(value)
            if root in buffers:
                self.result.buffer_of[value] = position[id(buffers[root])]
        for _, node in steps:
            for value in _touched(node):
                self.result.buffer_of[value] = position[id(buffers[self._find(value)])]
        self._keep_across_regions(steps)

    def _add_workspace(self, step: int, region: Region, node: Node) -> None:
        if is_control(node):
            return
        size = self.traits[region.backend].workspace(node)
        if dims.is_static(size) and size == 0:
            return
        self.result.workspace_of[node] = len(self.result.buffers)
        storage = Storage.HEAP if self._is_hidden(size) else Storage.ARENA
        self.result.buffers.append(PlannedBuffer(storage, size, step, step))

    def _keep_across_regions(self, steps: list[tuple[Region, Node]]) -> None:
        """What a region is given is there when it begins, read or not, and what it hands out is there when it ends."""
        start = 0
        for region in self.regions:
            end = start + sum(1 for _ in steps_of(region.body)) - 1
            for value in region.node.operands:
                number = self.result.buffer_of.get(value)
                if number is not None:
                    self.result.buffers[number].last = max(self.result.buffers[number].last, start)
            for value in region.node.outputs:
                number = self.result.buffer_of.get(value)
                if number is not None:
                    self.result.buffers[number].last = max(self.result.buffers[number].last, end)
            start = end + 1

    def _storage(self, value: Value) -> Storage:
        """Where a value lies that is neither given nor handed out."""
        if is_list(value):
            return Storage.SEQUENCE
        return Storage.HEAP if self._depends_on_data(value) else Storage.ARENA

    def _depends_on_data(self, value: Value) -> bool:
        if not isinstance(value.type, TensorType) or value.type.shape is None:
            return True
        return any(map(self._is_hidden, value.shape))

    def _is_hidden(self, dim: Dim) -> bool:
        return any(name in self.result.data_dependent for name in dims.symbols_of(dim))

    # ------------------------------------------------------------------ sharing and placing

    def _overwrite_in_place(self, steps: list[tuple[Region, Node]]) -> None:
        """Lets a node write over an operand that nothing reads afterwards, where the backend allows it."""
        for step, (region, node) in enumerate(steps):
            if is_control(node):
                continue
            for output, source in self.traits[region.backend].in_place(node).items():
                old, new = self.result.buffer_of[node.operand(source)], self.result.buffer_of[node.outputs[output]]
                before, after = self.result.buffers[old], self.result.buffers[new]
                if old == new or before.storage is not Storage.ARENA or after.storage is not Storage.ARENA:
                    continue
                if any(self.result.buffer_of.get(value) == old for value in region.body.inputs):
                    continue  # a region called alone is given inputs and outputs of the caller's
                if len({value for value in node.operands if self.result.buffer_of[value] == old}) > 1:
                    continue  # it also reads the operand as a view, in an order of its own
                if before.last == step and after.first == step and dims.same(before.bytes, after.bytes):
                    before.last = after.last
                    after.first, after.last, after.bytes, after.offset = 0, -1, 0, 0  # nobody's any more
                    for value, number in self.result.buffer_of.items():
                        if number == new:
                            self.result.buffer_of[value] = old

    def _is_static(self) -> bool:
        return dims.all_static(buffer.bytes for buffer in self.result.buffers if buffer.storage is Storage.ARENA)

    def _assemble(self, steps: list[tuple[Region, Node]]) -> None:
        """Lets the operands of a node that puts them together be computed where they belong in its output."""
        buffers, buffer_of = self.result.buffers, self.result.buffer_of
        for step, (region, node) in enumerate(steps):
            starts = () if is_control(node) else self.traits[region.backend].parts(node)
            if not starts or node not in region.body.nodes:
                continue
            whole, parts = buffer_of[node.output], [buffer_of[value] for value in node.operands]
            outside = {buffer_of[value] for value in (*region.body.inputs, *region.body.outputs) if value in buffer_of}
            if len(set(parts)) < len(parts) or not outside.isdisjoint({whole, *parts}):
                continue
            are_alone = all(
                buffers[part].storage is Storage.ARENA
                and buffers[part].last == step
                and part not in self.inside
                and dims.same(buffers[part].bytes, _bytes(value))
                for part, value in zip(parts, node.operands, strict=True)
            )
            is_new = buffers[whole].storage is Storage.ARENA and buffers[whole].first == step
            if not are_alone or not is_new or any(start % ALIGNMENT for start in starts):
                continue
            self.result.assembled.add(node)
            self.inside.update((part, (whole, start)) for part, start in zip(parts, starts, strict=True))
            buffers[whole].first = min(buffers[part].first for part in parts)

    def _place(self) -> None:
        buffers = self.result.buffers
        arena = [b for number, b in enumerate(buffers) if b.storage is Storage.ARENA and number not in self.inside]
        arena = [buffer for buffer in arena if buffer.first <= buffer.last]
        placed = arrange(arena)
        for buffer, offset in placed:
            buffer.offset = offset
        for part, (whole, start) in sorted(self.inside.items(), key=lambda item: -buffers[item[0]].last):
            buffers[part].offset = buffers[whole].offset + start
        self.result.arena_bytes = height(placed)
        self.result.lower_bound = max(_live_bytes(arena).values(), default=0)


def _touched(node: Node) -> list[Value]:
    """What is memory of a node's while it runs; of its bodies', what the node itself fills in and reads."""
    values = [*node.outputs, *node.operands]
    if is_control(node):
        for body in bodies(node).values():
            own = body.inputs[: len(body.inputs) - len(captured(node))]
            values += [value for value in own if body.uses(value) or body.is_output(value)]
            values += body.outputs
    return values


def arrange(buffers: Sequence[PlannedBuffer]) -> list[tuple[PlannedBuffer, int]]:
    """Each buffer, of known size, with its offset; the better of two orders."""
    return min(map(_placed, (_by_size(buffers), _by_crowd(buffers))), key=height)


def _by_size(buffers: Sequence[PlannedBuffer]) -> list[PlannedBuffer]:
    return sorted(buffers, key=lambda buffer: -_aligned(buffer.bytes))


def _by_crowd(buffers: Sequence[PlannedBuffer]) -> list[PlannedBuffer]:
    """Those that live at the fullest step first, of these the longest lived, of these the largest."""
    live = _live_bytes(buffers)
    crowds = [max(live[step] for step in range(b.first, b.last + 1)) for b in buffers]
    ranks = {id(b): (-crowd, b.first - b.last, -_aligned(b.bytes)) for b, crowd in zip(buffers, crowds, strict=True)}
    return sorted(buffers, key=lambda buffer: ranks[id(buffer)])


def _placed(order: Sequence[PlannedBuffer]) -> list[tuple[PlannedBuffer, int]]:
    """Each buffer with the lowest offset that those before it leave."""
    placed: list[tuple[PlannedBuffer, int]] = []
    for buffer in order:
        offset = 0
        neighbours = [(o, b) for b, o in placed if b.first <= buffer.last and buffer.first <= b.last]
        for start, other in sorted(neighbours, key=lambda neighbour: neighbour[0]):
            if start - offset >= _aligned(buffer.bytes):
                break
            offset = max(offset, start + _aligned(other.bytes))
        placed.append((buffer, offset))
    return placed


def height(placed: Sequence[tuple[PlannedBuffer, int]]) -> int:
    """The bytes that an arrangement takes."""
    return max((offset + _aligned(buffer.bytes) for buffer, offset in placed), default=0)


def _live_bytes(buffers: Sequence[PlannedBuffer]) -> Counter[int]:
    """How many bytes are alive at each step."""
    live: Counter[int] = Counter()
    for buffer in buffers:
        for step in range(buffer.first, buffer.last + 1):
            live[step] += _aligned(buffer.bytes)
    return live


def _symbols(graph: Graph, all_regions: Sequence[Region]) -> tuple[str, ...]:
    """Every symbol of every shape: the inputs' first, in order of first appearance."""
    found: dict[str, None] = {}
    inner = [body for region in all_regions for body in graphs(region.body)]
    for value in (*graph.inputs, *(value for body in inner for value in body.values())):
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        found.update((name, None) for dim in shape or () for name in dims.symbols_of(dim))
    for node in (node for body in inner for node in body.nodes if is_observation(node)):
        found.update((name, None) for name in node.attributes["symbols"])
    return tuple(found)


def _bytes(value: Value) -> Dim:
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        return 0
    return dims.product(value.shape) * value.type.dtype.itemsize


def _aligned(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
