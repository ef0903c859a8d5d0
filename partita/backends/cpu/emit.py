"""The host's module: one function per region that calls its kernels in order, and the kernels, each text once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from partita.backends.cpu.calls import KernelCalls
from partita.backends.cpu.control import ControlFlow
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.kernels import write_kernel
from partita.backends.cpu.sequences import Sequences
from partita.backends.cpu.target import Target
from partita.backends.source import RegionSource, c_format, c_string, comment
from partita.ir import dims
from partita.ir.graph import Graph, Node
from partita.ir.operators.control_flow import is_control
from partita.ir.operators.internal import is_observation
from partita.ir.operators.registry import definition
from partita.ir.region import Region
from partita.passes.plan_memory import MemoryPlan
from partita.runtime import CSourceModule, Unit

HEADERS = Path(__file__).parent / "c"
HEADER_NAMES = (
    "partita_kernel",
    "partita_scalar",
    "partita_gemm",
    "partita_strings",
    "partita_blocked",
    "partita_text",
    "partita_random",
    "partita_trees",
)
INCLUDES = "#include <string.h>\n" + "".join(
    f'#include "{name}.h"\n' for name in ("partita", "partita_sequence", "partita_size", *HEADER_NAMES[:4])
)


def emit_module(
    backend: str, regions: Sequence[Region], plan: MemoryPlan, target: Target, is_view: object
) -> CSourceModule:
    """The C of all regions of the host."""
    units: list[Unit] = []
    functions = []
    kernels = {}
    for region in regions:
        source = RegionSource(region, plan)
        emitted = _Region(region, plan, target, source, is_view)
        units += emitted.units()
        kernels[region.symbol] = tuple(emitted.kernels.notes)
        functions.append(source.function)
    headers = tuple(Unit(name, (HEADERS / f"{name}.h").read_text("utf-8")) for name in HEADER_NAMES)
    return CSourceModule(backend, tuple(units), tuple(functions), headers, kernels=kernels)


class _Region:
    def __init__(self, region: Region, plan: MemoryPlan, target: Target, source: RegionSource, is_view: object) -> None:
        self.region = region
        self.plan = plan
        self.target = target
        self.source = source
        self.is_view = is_view
        self.kernels = KernelCalls(source, INCLUDES)
        self.sequences = Sequences(source)
        self.control = ControlFlow(source, self.sequences, self._statements)

    def units(self) -> list[Unit]:
        """The region's file, with its state, its init and its function; then files of kernels, where they are many."""
        function = self._function(self._statements(self.region.body))
        head = f"/* {comment(self.region.symbol)}: {len(self.kernels.notes)} kernels on the host */"
        parts = [head, self.kernels.own(), self.source.state_struct(), function, self._init()]
        return [Unit(self.region.symbol, "\n".join(part for part in parts if part)), *self.kernels.further()]

    def _statements(self, graph: Graph) -> list[str]:
        """What runs the nodes of the region, or of a body in it."""
        lines: list[str] = []
        for node in graph.nodes:
            if is_observation(node):
                lines += self._observe(node)
            elif is_control(node):
                lines += self.control.statements(node)
            elif self.sequences.prints(node):
                lines += self.sequences.statements(node)
            elif node not in self.plan.assembled and not self.is_view(node):  # type: ignore[operator]
                lines += self._compared(node)
                lines += self.source.reserve_for(node)
                lines += self.kernels.call(node, _kernel(node, self.plan, self.target))
        return lines

    def _compared(self, node: Node) -> list[str]:
        """Fails where sizes that data decided are not what a kernel takes them for: each other's, or a number."""
        with dims.equations() as equations:
            for member in members(node):
                operator = definition(member)
                if operator is not None and operator.compute is not None:
                    operator.computations(member)
        lines = []
        for first, second in dict.fromkeys(equations):
            if self.plan.data_dependent.isdisjoint(dims.symbols_of(first) + dims.symbols_of(second)):
                continue  # the inputs' sizes, which were compared before the run
            text = "%s: sizes %lld and %lld, which data decided, do not fit; they are not broadcast"
            sizes = [self.source.size(first), self.source.size(second)]
            values = ", ".join([c_string(node.name), *(f"(long long)({size})" for size in sizes)])
            lines.append(f"    if ({sizes[0]} != {sizes[1]})")
            lines.append(f"        return call->services->fail(call, PARTITA_ERROR_SHAPE, {c_string(text)}, {values});")
        return lines

    def _observe(self, node: Node) -> list[str]:
        """Sets the sizes that an observation reads, after its condition holds."""
        lines = []
        if node.input(1) is not None:
            message = c_format(f"{node.name}: {node.attributes['message']}")
            lines.append(f"    if (!*{self.source.pointer(node.operand(1))})")
            lines.append(f"        return call->services->fail(call, PARTITA_ERROR_SHAPE, {message});")
        for place, name in enumerate(node.attributes["symbols"]):
            slot = self.plan.symbols.index(name)
            lines.append(f"    call->extents[{slot}] = ({self.source.pointer(node.operand(0))})[{place}];")
        return lines

    def _function(self, calls: list[str]) -> str:
        lines = [f"partita_status {self.region.symbol}(const partita_call *call) {{"]
        if self.source.constants:
            lines.append(f"    const struct {self.region.symbol}_state *state = call->state;")
        elif not any("call" in line for line in calls):
            lines.append("    (void)call;")
        lines += self.source.reservations()
        if calls:
            lines.append("    PARTITA_DONE(-1);")
        return "\n".join([*lines, *calls, "    return PARTITA_OK;", "}", ""])

    def _init(self) -> str:
        symbol = self.region.symbol
        if not self.source.constants:
            return ""
        return "\n".join(
            [
                f"const int64_t {symbol}_state_bytes = sizeof(struct {symbol}_state);",
                "",
                f"partita_status {symbol}_init(const partita_call *call, void *memory,",
                "                              const void *const *constants) {",
                f"    struct {symbol}_state *state = memory;",
                "    (void)call;",
                *self.source.init_assignments(),
                "    return PARTITA_OK;",
                "}",
                "",
            ]
        )


def _kernel(node: Node, plan: MemoryPlan, target: Target) -> Kernel:
    writer = KernelWriter(node, plan.symbols, target)
    places = {plan.buffer_of[value] for value in node.operands}
    writer.aliased = any(plan.buffer_of[value] in places for value in node.outputs)
    return write_kernel(node, writer)
