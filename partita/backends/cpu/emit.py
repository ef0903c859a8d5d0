"""The host's module: one function per region that calls its kernels in order, and the kernels, each text once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from partita.backends.cpu.calls import KernelCalls
from partita.backends.cpu.chains import is_chain, links
from partita.backends.cpu.control import ControlFlow
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.kernels import write_kernel
from partita.backends.cpu.sequences import Sequences
from partita.backends.cpu.target import Target
from partita.backends.source import RegionSource, c_format, c_string, comment
from partita.ir import dims
from partita.ir.graph import Graph, Node
from partita.ir.nested import is_control
from partita.ir.operators import definition
from partita.ir.operators.internal import is_observation
from partita.ir.reach import Reach, reaches
from partita.ir.region import Region
from partita.ir.types import TensorType
from partita.passes.plan_memory import MemoryPlan
from partita.runtime import CSourceModule, Unit

HEADERS = Path(__file__).parent / "c"
HEADER_NAMES = (
    "partita_kernel",
    "partita_scalar",
    "partita_strings",
    "partita_blocked",
    "partita_text",
    "partita_random",
    "partita_turn",
    "partita_images",
)
DECODERS = tuple((name, "src/partita_images.h") for name in ("turbojpeg", "png", "tiff", "webp", "openjp2"))
INCLUDES = "#include <string.h>\n" + "".join(
    f'#include "{name}.h"\n' for name in ("partita", "partita_sequence", "partita_size", *HEADER_NAMES[:3])
)

IsView = Callable[[Node], bool]


def emit_module(
    backend: str, regions: Sequence[Region], plan: MemoryPlan, target: Target, is_view: IsView
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
    decodes = any("partita_images.h" in unit.text for unit in units)
    optional = DECODERS if decodes else ()
    return CSourceModule(backend, tuple(units), tuple(functions), headers, optional_libraries=optional, kernels=kernels)


class _Region:
    def __init__(self, region: Region, plan: MemoryPlan, target: Target, source: RegionSource, is_view: IsView) -> None:
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
            elif node not in self.plan.assembled:
                lines += self._compared(node)
                if self.is_view(node):
                    continue
                lines += self.source.reserve_for(node)
                if is_chain(node):
                    writers = [KernelWriter(link, self.plan.symbols, self.target) for link in links(node)]
                    lines += self.kernels.call_chain(node, [write_kernel(w.node, w) for w in writers])
                else:
                    lines += self.kernels.call(node, _kernel(node, self.plan, self.target))
        return lines

    def _compared(self, node: Node) -> list[str]:
        """Fails where sizes are not what a kernel takes them for: equal, or as large as what is read of them. Those of
        inputs that were found to have to be equal were compared before the run."""
        every = (value for member in members(node) for value in (*member.operands, *member.outputs))
        if all(dims.all_static(value.type.shape) for value in every if isinstance(value.type, TensorType)):
            return []
        lines = []
        with dims.equations() as equations:
            found = list(dict.fromkeys(reach for member in members(node) for reach in _reaches(member)))
        for first, second in dict.fromkeys(equations):
            sizes = [dims.c_text(dim, self.plan.symbol_texts, checked=True) for dim in (first, second)]
            shown = [[] if dims.is_static(dim) else [c_string(str(dim))] for dim in (first, second)]
            told = " and ".join("%s (%lld)" if names else "%lld" for names in shown)
            text = f"%s: sizes {told} have to be equal"
            values = [*shown[0], sizes[0], *shown[1], sizes[1]]
            lines += self._failing(f"{sizes[0]} != {sizes[1]}", text, c_string(node.name), *values)
        for reach in found:
            size, last = self.source.size(reach.value.shape[reach.axis]), self.source.size(reach.last)
            steps = [f"{self.source.size(dim)} > 0" for dim in dict.fromkeys(reach.steps) if not dims.is_static(dim)]
            text = f"%s: axis {reach.axis} of %s has size %lld, but element %lld is needed; sizes contradict each other"
            names = c_string(node.name), c_string(reach.value.name)
            lines += self._failing(" && ".join([f"{last} >= {size}", *steps]), text, *names, size, last)
        return lines

    def _failing(self, condition: str, text: str, *values: str) -> list[str]:
        """Fails the run where a condition holds; values are names, then sizes."""
        shown = [value if value.startswith('"') else f"(long long)({value})" for value in values]
        call = f"call->services->fail(call, PARTITA_ERROR_SHAPE, {c_string(text)}, {', '.join(shown)})"
        return [f"    if ({condition})", f"        return {call};"]

    def _observe(self, node: Node) -> list[str]:
        """Sets the sizes that an observation reads, after its condition holds; no size is negative."""
        lines = []
        if node.input(1) is not None:
            message = c_format(f"{node.name}: {node.attributes['message']}")
            lines.append(f"    if (!*{self.source.pointer(node.operand(1))})")
            lines.append(f"        return call->services->fail(call, PARTITA_ERROR_SHAPE, {message});")
        for place, name in enumerate(node.attributes["symbols"]):
            slot = self.plan.symbols.index(name)
            size = f"call->extents[{slot}]"
            lines.append(f"    {size} = ({self.source.pointer(node.operand(0))})[{place}];")
            lines += self._failing(f"{size} < 0", "%s: a size of %lld, which is negative", c_string(node.name), size)
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


def _reaches(node: Node) -> list[Reach]:
    """How far a node's own definition reads its operands."""
    operator = definition(node)
    if operator is not None and operator.compute is not None:
        return [reach for computation in operator.computations(node) for reach in reaches(computation)]
    if operator is not None and operator.procedure is not None:
        return list(reaches(operator.procedure(node)))
    return []
