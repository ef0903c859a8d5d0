"""Schedule: the partitioned and planned graph as the runtime's Program.

Names become numbers here: values, buffers and table entries are indices, symbolic sizes are extents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.graph import Graph, Value
from partita.ir.operators.control_flow import sets_extents
from partita.ir.operators.sequences import element_of
from partita.ir.region import regions
from partita.ir.types import OptionalType, SequenceType, TensorType, Type
from partita.passes.plan_memory import MemoryPlan, PlannedBuffer
from partita.runtime import Buffer, Function, Kind, Program, Storage, Symbol
from partita.runtime import Region as ScheduledRegion
from partita.runtime import Value as ScheduledValue


def schedule(
    graph: Graph,
    plan: MemoryPlan,
    functions: Mapping[str, Function],
    interpreted: frozenset[str],
    *,
    symbol: str,
    table: Sequence[str],
    baked: Sequence[tuple[str, str]],
) -> Program:
    """The program of a graph of regions. `functions` gives each region's function by its symbol, `interpreted` the
    symbols that an engine runs, `table` the names of the table's entries in order."""
    return _Scheduler(plan, table).program(graph, functions, interpreted, symbol, baked)


def kind_of(kind: Type) -> tuple[Kind, TensorType]:
    """What a value is at run time, and the tensors in it."""
    if isinstance(kind, TensorType):
        return Kind.TENSOR, kind
    if isinstance(kind, SequenceType):
        return Kind.SEQUENCE, element_of(kind)
    is_list = isinstance(kind, OptionalType) and isinstance(kind.element, SequenceType)
    return Kind.OPTIONAL_SEQUENCE if is_list else Kind.OPTIONAL_TENSOR, element_of(kind)


class _Scheduler:
    def __init__(self, plan: MemoryPlan, table: Sequence[str]) -> None:
        self.plan = plan
        self.table = {name: place for place, name in enumerate(table)}
        self.values: list[ScheduledValue] = []
        self.number: dict[Value, int] = {}
        self.derived: dict[Dim, int] = {}

    def program(
        self,
        graph: Graph,
        functions: Mapping[str, Function],
        interpreted: frozenset[str],
        symbol: str,
        baked: Sequence[tuple[str, str]],
    ) -> Program:
        inputs = tuple(self._value(value) for value in graph.inputs)
        outputs = tuple(self._value(value) for value in graph.outputs)
        scheduled = tuple(
            ScheduledRegion(
                symbol=region.symbol,
                backend=region.backend,
                constants=functions[region.symbol].constants,
                inputs=tuple(self._value(value) for value in region.node.operands),
                outputs=tuple(self._value(value) for value in region.node.outputs),
                interpreted=region.symbol in interpreted,
                has_state=functions[region.symbol].has_state,
                has_free=functions[region.symbol].has_free,
                sets_extents=sets_extents(region.body),
            )
            for region in regions(graph)
        )
        buffers = tuple(self._buffer(buffer) for buffer in self.plan.buffers)
        texts = {name: f"extents[{place}]" for place, name in enumerate(self.plan.symbols)}
        return Program(
            symbol=symbol,
            values=tuple(self.values),
            inputs=inputs,
            outputs=outputs,
            buffers=buffers,
            regions=scheduled,
            symbols=tuple(Symbol(name, name in self.plan.data_dependent) for name in self.plan.symbols),
            derived=tuple(dims.c_text(dim, texts, checked=True) for dim in self.derived),
            arena_bytes=self.plan.arena_bytes,
            baked=tuple(baked),
            maps=graph.maps,
        )

    def _value(self, value: Value) -> int:
        if value not in self.number:
            self.number[value] = len(self.values)
            kind, element = kind_of(value.type)
            dimensions = element.dims if kind is Kind.TENSOR else ()
            shape = tuple(self._extent(dim) for dim in dimensions)
            self.values.append(ScheduledValue(value.name, element.dtype.onnx, shape, self.plan.buffer_of[value], kind))
        return self.number[value]

    def _extent(self, dim: Dim) -> int:
        """A size as the runtime reads it: itself, or -(place among the extents) - 1."""
        if dims.is_static(dim):
            return int(dim)
        if str(dim) in self.plan.symbols:
            return -self.plan.symbols.index(str(dim)) - 1
        place = self.derived.setdefault(dim, len(self.derived))
        return -(len(self.plan.symbols) + place) - 1

    def _buffer(self, buffer: PlannedBuffer) -> Buffer:
        index = buffer.index
        if buffer.storage is Storage.CONSTANT:
            if buffer.constant not in self.table:  # the compiler looked at it, no code reads it
                return Buffer(Storage.ARENA, 0, 0, -1, 0, 0)
            index = self.table[buffer.constant]
        return Buffer(buffer.storage, buffer.first, buffer.last, index, self._extent(buffer.bytes), buffer.offset)
