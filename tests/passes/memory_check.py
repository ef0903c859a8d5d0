"""A memory plan, judged by acting it out: every byte remembers what was last written to it.

Nothing of the plan's own reasoning is used, lives least of all: only where it puts each value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from partita.ir.graph import Graph, Node, Value
from partita.ir.region import Region, regions
from partita.passes.plan_memory import MemoryPlan, MemoryTraits
from partita.runtime import Storage

Place = tuple[object, int, int]  # memory, first byte, last byte + 1


def check_plan(graph: Graph, plan: MemoryPlan, traits: Mapping[str, MemoryTraits]) -> None:
    """Runs the schedule on paper: each node finds its operands as they were made, each output is there in the end.
    All sizes are known."""
    stage = _Stage(plan)
    for value in (*graph.inputs, *graph.parameters):
        stage.write(value, value.name)
    for region in regions(graph):
        stage.enter(region)
        for node in region.body.nodes:
            stage.run(node, traits[region.backend])
        for inner, outer in zip(region.body.outputs, region.node.outputs, strict=True):
            stage.read(inner, "handed out")
            stage.content[outer] = stage.content[inner]
            stage.read(outer, "where the next region looks for it")
    for value in graph.outputs:
        stage.read(value, "an output")


@dataclass
class _Stage:
    plan: MemoryPlan
    content: dict[Value, object] = field(default_factory=dict)
    held: dict[Place, object] = field(default_factory=dict)  # what lies where, undamaged

    def place(self, number: int) -> Place:
        buffer = self.plan.buffers[number]
        size = int(buffer.bytes)
        if buffer.storage is not Storage.ARENA:
            return (buffer.storage, buffer.index, buffer.constant), 0, size
        assert 0 <= buffer.offset <= self.plan.arena_bytes - size
        assert buffer.offset % 64 == 0
        return Storage.ARENA, buffer.offset, buffer.offset + size

    def enter(self, region: Region) -> None:
        self.content.update(
            (inner, self.content[outer]) for inner, outer in zip(region.body.inputs, region.node.operands, strict=True)
        )
        for value in region.body.parameters:
            self.write(value, value.name)

    def run(self, node: Node, traits: MemoryTraits) -> None:
        for value in node.operands:
            self.read(value, f"read by {node.name}")
        if node in self.plan.assembled:
            self.assemble(node, traits)
            return
        views, in_place = traits.views(node), traits.in_place(node)
        read = {self.place(self.plan.buffer_of[value]) for value in node.operands}
        if node in self.plan.workspace_of:
            scratch = self.place(self.plan.workspace_of[node])
            places = {self.place(self.plan.buffer_of[value]) for value in node.outputs}
            assert not any(_overlap(scratch, other) for other in read | places), f"{node.name} works in its tensors"
            self.destroy(scratch)
        for index, output in enumerate(node.outputs):
            if index in views:
                self.content[output] = self.content[node.operand(views[index])]
                self.read(output, "a view")
                continue
            place = self.place(self.plan.buffer_of[output])
            allowed = {self.place(self.plan.buffer_of[node.operand(in_place[index])])} if index in in_place else set()
            overwritten = {other for other in read if _overlap(place, other)}
            assert overwritten <= allowed & {place}, f"{node.name} writes over what it reads"
            self.write(output, output)

    def assemble(self, node: Node, traits: MemoryTraits) -> None:
        """The operands, which were just read, lie in the output as the backend said."""
        whole = self.place(self.plan.buffer_of[node.output])
        starts = list(traits.parts(node))
        ends = [*starts[1:], whole[2] - whole[1]]
        for value, start, end in zip(node.operands, starts, ends, strict=True):
            assert self.place(self.plan.buffer_of[value]) == (whole[0], whole[1] + start, whole[1] + end)
        self.write(node.output, node.output)

    def read(self, value: Value, why: str) -> None:
        place = self.place(self.plan.buffer_of[value])
        if place[1] < place[2]:
            assert self.held.get(place) == self.content[value], f"{value.name} is lost before it is {why}"

    def write(self, value: Value, content: object) -> None:
        place = self.place(self.plan.buffer_of[value]) if value in self.plan.buffer_of else None
        self.content[value] = content
        if place is not None:
            self.destroy(place)
            self.held[place] = content

    def destroy(self, place: Place) -> None:
        for other in [other for other in self.held if _overlap(place, other)]:
            del self.held[other]


def _overlap(first: Place, second: Place) -> bool:
    return first[0] == second[0] and first[1] < second[2] and second[1] < first[2]
