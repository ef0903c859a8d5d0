"""The host's module: one function per region that calls its kernels in order, and the kernels, each text once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.kernels import write_kernel
from partita.backends.source import Names, RegionSource, c_string, comment
from partita.ir.graph import Node
from partita.ir.operators.internal import is_observation
from partita.ir.region import Region
from partita.passes.plan_memory import MemoryPlan
from partita.runtime import CSourceModule, Unit

HEADERS = Path(__file__).parent / "c"
HEADER_NAMES = ("partita_scalar", "partita_gemm", "partita_blocked")
INCLUDES = "".join(f'#include "{name}.h"\n' for name in ("partita", "partita_size", *HEADER_NAMES[:2]))


def emit_module(backend: str, regions: Sequence[Region], plan: MemoryPlan, is_view: object) -> CSourceModule:
    """The C of all regions of the host."""
    units: list[Unit] = []
    functions = []
    for region in regions:
        source = RegionSource(region, plan)
        units.append(Unit(region.symbol, _Region(region, plan, source, is_view).text()))
        functions.append(source.function)
    headers = tuple(Unit(name, (HEADERS / f"{name}.h").read_text("utf-8")) for name in HEADER_NAMES)
    return CSourceModule(backend, tuple(units), tuple(functions), headers)


class _Region:
    def __init__(self, region: Region, plan: MemoryPlan, source: RegionSource, is_view: object) -> None:
        self.region = region
        self.plan = plan
        self.source = source
        self.is_view = is_view
        self.names = Names([region.symbol])
        self.shared: dict[tuple[str, str], str] = {}
        self.definitions: list[str] = []
        self.helpers: dict[str, str] = {}
        self.blocks: set[int] = set()

    def text(self) -> str:
        """The whole file: state, init, kernels, the region's function."""
        calls: list[str] = []
        for node in self.region.body.nodes:
            if is_observation(node):
                calls += self._observe(node)
            elif not self.is_view(node):  # type: ignore[operator]
                calls += self._call(node, _kernel(node, self.plan))
        parts = [f"/* {comment(self.region.symbol)}: {len(calls)} kernels on the host */", INCLUDES]
        function = self._function(calls)
        for block in self.blocks:
            parts.append(f'#define PARTITA_BLOCK {block}\n#include "partita_blocked.h"\n')
        parts += [self.source.state_struct(), *self.helpers.values(), *self.definitions, function, self._init()]
        return "\n".join(part for part in parts if part)

    def _call(self, node: Node, kernel: Kernel) -> list[str]:
        key = (kernel.parameters, kernel.body)
        self.helpers.update(kernel.helpers)
        self.blocks |= kernel.blocks
        if key not in self.shared:
            self.shared[key] = self.names.fresh(node.name)
            operators = " + ".join(member.op_type for member in members(node))
            result = "partita_status" if kernel.can_fail else "void"
            self.definitions.append(
                f"/* {comment(node.name)}: {comment(operators)} */\n"
                f"static {result} {self.shared[key]}({kernel.parameters}) {{\n{kernel.body}\n}}\n"
            )
        arguments = [self.source.pointer(value) for value in (*kernel.inputs, *kernel.outputs)]
        if kernel.uses_extents:
            arguments.append("call->extents")
        if kernel.uses_workspace:
            arguments.append(self.source.workspace(node))
        if kernel.can_fail:
            arguments.append("call")
        text = f"{self.shared[key]}({', '.join(arguments)})"
        if not kernel.can_fail:
            return [f"    {text}; /* {comment(node.name)} */"]
        checked = f"    status = {text}; /* {comment(node.name)} */"
        return [checked, "    if (status != PARTITA_OK)", "        return status;"]

    def _observe(self, node: Node) -> list[str]:
        """Sets the sizes that an observation reads, after its condition holds."""
        lines = []
        if node.input(1) is not None:
            message = c_string(f"{node.name}: {node.attributes['message']}")
            lines.append(f"    if (!*{self.source.pointer(node.operand(1))})")
            lines.append(f"        return call->services->fail(call, PARTITA_ERROR_SHAPE, {message});")
        for place, name in enumerate(node.attributes["symbols"]):
            if name in self.plan.symbols:
                slot = self.plan.symbols.index(name)
                lines.append(f"    call->extents[{slot}] = ({self.source.pointer(node.operand(0))})[{place}];")
        return lines

    def _function(self, calls: list[str]) -> str:
        lines = [f"partita_status {self.region.symbol}(const partita_call *call) {{"]
        if self.source.constants:
            lines.append(f"    const struct {self.region.symbol}_state *state = call->state;")
        elif not any("call" in line for line in calls):
            lines.append("    (void)call;")
        if any("status = " in line for line in calls):
            lines.append("    partita_status status;")
        lines += self.source.reservations()
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


def _kernel(node: Node, plan: MemoryPlan) -> Kernel:
    writer = KernelWriter(node, plan.symbols)
    places = {plan.buffer_of[value] for value in node.operands}
    writer.aliased = any(plan.buffer_of[value] in places for value in node.outputs)
    return write_kernel(node, writer)
