"""The calls of a region's kernels, and the files that their functions go to.

A region of few kernels is one file. Of more, the kernels go to files of their own, a few each, so that a C compiler
runs on every core and a change compiles no more than it has to; they are then hidden symbols that start with the
region's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from partita.backends.cpu import chains
from partita.backends.cpu.kernel import Kernel, Phase, members
from partita.backends.source import Names, RegionSource, comment
from partita.ir import dims
from partita.ir.graph import Graph, Node, Value
from partita.runtime import KernelNote, Unit

PIECE = 4000  # nanoseconds of work that are worth handing to another thread
ONE_FILE = 8  # kernels in a region's own file, at most
BATCH = 4  # kernels in each further file


@dataclass(frozen=True, slots=True)
class Definition:
    """The functions of one kernel (name and body), what is said of them, and what their file must have."""

    remark: str
    functions: tuple[tuple[str, str], ...]
    helpers: dict[str, str]
    blocks: frozenset[int]
    calls: tuple[str, ...] = ()  # functions of other kernels, by name


@dataclass(slots=True)
class KernelCalls:
    """Collects the kernels of one region, each text once."""

    source: RegionSource
    includes: str
    names: Names = field(default_factory=Names)
    known: dict[tuple[Phase, ...], tuple[str, ...]] = field(default_factory=dict)
    definitions: list[Definition] = field(default_factory=list)
    notes: list[KernelNote] = field(default_factory=list)  # of the calls so far

    def call(self, node: Node, kernel: Kernel) -> list[str]:
        """The statements that run a kernel."""
        names = self.known.get(kernel.phases) or self._define(node, kernel)
        workspace, size = "0", "0"
        if kernel.uses_workspace:
            workspace, size = self.source.workspace(node), self.source.workspace_bytes(node)
        lines = [f"    {{ /* {comment(node.name)} */"]
        if kernel.can_fail:
            lines.append("        int32_t status = PARTITA_OK;")
        lines.append(f"        const void *const pointers[] = {{{', '.join(self._pointers(node, kernel))}}};")
        for name, phase in zip(names, kernel.phases, strict=True):
            steps = self.source.size(phase.steps)
            arguments = f"call, {name}, pointers, {steps}, {grain(phase)}, {workspace}, {size}"
            lines.append(f"        partita_run_phase({arguments});")
        if kernel.can_fail:
            lines += ["        if (status != PARTITA_OK)", "            return (partita_status)status;"]
        lines += [f"        PARTITA_DONE({len(self.notes)});", "    }"]
        self.notes.append(note(node, kernel, names[0]))
        return lines

    def call_chain(self, node: Node, kernels: Sequence[Kernel]) -> list[str]:
        """The statements that run the kernels of a chain, matrix by matrix."""
        scratch, lead = chains.scratch(node), chains.matrices(node)
        count = math.prod(lead)
        names = [f"i{axis}" for axis in range(len(lead))]
        lines = ["    void *const *pointers = argument;"]
        lines += ["    for (int64_t matrix = begin; matrix < end; ++matrix) {"]
        for axis, name in enumerate(names):
            rest = math.prod(lead[axis + 1 :])
            lines.append(f"        const int64_t {name} = matrix / {rest} % {lead[axis]};")
        body: Graph = node.attributes["body"]
        outside = [*body.inputs, *body.outputs]
        functions, cost = [], 0.0
        for number, (link, kernel) in enumerate(zip(chains.links(node), kernels, strict=True)):
            (phase,) = kernel.phases
            assert not (kernel.uses_extents or kernel.uses_shared or kernel.can_fail), link
            assert isinstance(phase.steps, int) and phase.steps % count == 0, link
            functions.append((self.known.get(kernel.phases) or self._define(link, kernel))[0])
            cost += phase.cost * phase.steps / count
            pointers = []
            for value in (*kernel.inputs, *kernel.outputs):
                if value in scratch.offsets:
                    pointers.append(f"(char *)workspace + {scratch.offsets[value]}")
                    continue
                start = chains.place(value, lead, names)
                pointers.append(f"(char *)pointers[{outside.index(value)}] + ({start}) * {value.tensor.dtype.itemsize}")
            lines.append(f"        const void *const pointers_{number}[] = {{{', '.join(pointers)}}};")
            arguments = f"0, {phase.steps // count}, (char *)workspace + {scratch.kernels}"
            lines.append(f"        {functions[-1]}((void *)(uintptr_t)pointers_{number}, {arguments});")
        lines.append("    }")
        phases = (Phase("\n".join(lines), count, cost),)
        whole = Kernel(node, phases, tuple(node.operands), node.outputs, False, True, False, False, {}, frozenset())
        if whole.phases not in self.known:
            self._define(node, whole, tuple(functions))
        return self.call(node, whole)

    def _pointers(self, node: Node, kernel: Kernel) -> list[str]:
        """What `KernelWriter` declares at the start of each phase."""
        found = [self.source.pointer(value) for value in (*kernel.inputs, *kernel.outputs)]
        if kernel.uses_extents:
            found.append("call->extents")
        if kernel.uses_shared:
            found.append(self.source.workspace(node))
        if kernel.can_fail:
            found += ["call", "&status"]
        return found

    def _define(self, node: Node, kernel: Kernel, calls: tuple[str, ...] = ()) -> tuple[str, ...]:
        name = f"{self.source.symbol}_kernel_{self.names.fresh(node.name)}"
        names = tuple(name if not place else f"{name}_phase_{place + 1}" for place in range(len(kernel.phases)))
        operators = _operators(node)
        remark = f"/* {comment(node.name)}: {comment(operators)} */\n"
        functions = tuple((name, phase.body) for name, phase in zip(names, kernel.phases, strict=True))
        self.definitions.append(Definition(remark, functions, kernel.helpers, kernel.blocks, calls))
        self.known[kernel.phases] = names
        return names

    # ------------------------------------------------------------------ files

    def own(self) -> str:
        """What stands before the region's function: its kernels where they are few, else their prototypes."""
        if len(self.definitions) <= ONE_FILE:
            return self._text(self.definitions, "static ")
        names = [name for definition in self.definitions for name, _ in definition.functions]
        return self.includes + "\n" + "".join(f"PARTITA_PHASE({name});\n" for name in names)

    def further(self) -> list[Unit]:
        """The other files."""
        if len(self.definitions) <= ONE_FILE:
            return []
        batches = [self.definitions[start : start + BATCH] for start in range(0, len(self.definitions), BATCH)]
        symbol = self.source.symbol
        return [Unit(f"{symbol}_kernels_{place}", self._text(batch, "")) for place, batch in enumerate(batches)]

    def _text(self, definitions: Sequence[Definition], storage: str) -> str:
        helpers = {name: text for definition in definitions for name, text in definition.helpers.items()}
        blocks = sorted({block for definition in definitions for block in definition.blocks})
        tiles = [f'#define PARTITA_BLOCK {block}\n#include "partita_blocked.h"\n' for block in blocks]
        called = dict.fromkeys(name for definition in definitions for name in definition.calls)
        prototypes = [f"{storage}PARTITA_PHASE({name});\n" for name in called]
        texts = [
            f"{definition.remark}{storage}PARTITA_PHASE({name}) {{\n{body}\n}}\n"
            for definition in definitions
            for name, body in definition.functions
        ]
        return "\n".join([self.includes, *tiles, *helpers.values(), *prototypes, *texts])


def note(node: Node, kernel: Kernel, function: str) -> KernelNote:
    """What a profile says of a call."""
    parts = _members(node)
    moved = sum(dims.typical(dims.product(value.shape)) * value.tensor.dtype.itemsize for value in _operands(kernel))
    return KernelNote(
        name=node.name,
        operators=_operators(node),
        function=function,
        operations=sum(map(operations, parts)),
        bytes=moved,
    )


def _members(node: Node) -> list[Node]:
    """The plain nodes that a call computes."""
    nodes = chains.links(node) if chains.is_chain(node) else [node]
    return [member for each in nodes for member in members(each)]


def _operators(node: Node) -> str:
    return " + ".join(member.op_type for member in _members(node))


def _operands(kernel: Kernel) -> list[Value]:
    return list(dict.fromkeys((*kernel.inputs, *kernel.outputs)))


def operations(node: Node) -> int:
    """Additions and multiplications of a node's definition; one for each element where it is no sum of products."""
    elements = sum(dims.typical(dims.product(value.shape)) for value in node.outputs)
    if node.op_type in ("MatMul", "Gemm", "PackedMatMul", "StrassenMatMul"):
        depth = node.operand(0).shape[0 if node.attributes.get("transA", 0) else -1]
        return 2 * elements * dims.typical(depth)
    if not node.op_type.endswith("Conv"):
        return elements
    weights = dims.typical(dims.product(node.operand(1).shape))
    blocked = node.domain == "partita"
    pixels = dims.typical(dims.product(node.output.shape[2:4] if blocked else node.output.shape[2:]))
    images = dims.typical(node.output.shape[0])
    tile = node.attributes.get("tile")  # Winograd's: its weights are 3 x 3 before they are transformed
    share = 9 / (int(tile) + 2) ** 2 if tile else 1
    return int(2 * images * pixels * weights * share)


def grain(phase: Phase) -> int:
    """The fewest steps that are worth a thread's while: all of them where the phase is too small to share."""
    steps = dims.typical(phase.steps)
    least = math.ceil(PIECE / phase.cost) if phase.cost > 0 else steps
    return max(1, least, steps if 2 * least > steps and dims.is_static(phase.steps) else 1)
