"""An accelerator that adds and multiplies vectors: all there is to a backend, in one file.

It says which nodes it takes and why not the others, which chains it runs as one, and how a region becomes C.
Partitioning, weights, memory, packaging and `partita explain` come from Partita.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from partita.backends.base import Accept, Backend, Claim, Composite, Reject
from partita.backends.source import RegionSource
from partita.ir.graph import Graph, Node, Value
from partita.ir.region import Region
from partita.ir.types import DType
from partita.passes.plan_memory import MemoryPlan
from partita.runtime import CSourceModule, Unit

FUNCTIONS = {"Add": "toy_add", "Mul": "toy_mul", "add_relu": "toy_add_relu"}


def refusal(node: Node) -> str | None:
    """Why the library does not run `node`; None where it does."""
    if node.op_type not in FUNCTIONS:
        return f"the library has no {node.qualified_type}"
    kinds = {value.type for value in (*node.operands, *node.outputs)}
    if len(kinds) != 1:
        return "operands of different types or shapes: the library does not broadcast"
    if node.output.tensor.dtype is not DType.FLOAT32:
        return f"{node.output.type}: the library computes in float32"
    return None


def check_add_relu(nodes: Sequence[Node]) -> Claim:
    """An Add that the library runs, and a Relu of its result."""
    reason = refusal(nodes[0])
    return Accept() if reason is None else Reject(reason)


class ToyBackend(Backend):
    """The class that the entry point names."""

    name = "toy"
    composites = (Composite("add_relu", ("Add", "Relu"), check_add_relu),)

    def claims(self, node: Node) -> Claim:
        if node.op_type == "Composite" and node.attributes["backend"] == self.name:
            return Accept()
        reason = refusal(node)
        return Accept() if reason is None else Reject(reason)

    def emit(self, regions: Sequence[Region], plan: MemoryPlan) -> CSourceModule:
        (region,) = regions  # an accelerator is given one at a time
        source = RegionSource(region, plan)
        text = print_region(region, source)
        return CSourceModule(
            self.name,
            (Unit(region.symbol, text),),
            (source.function,),
            include_directories=(str(Path(__file__).parent),),
        )


def print_region(region: Region, source: RegionSource) -> str:
    """The C of a region: a call of the library for each node, in order."""
    calls = [f"    {call(node, source)}" for node in region.body.nodes]
    symbol = region.symbol
    lines = ['#include "partita.h"', '#include "toy_vector.h"', ""]
    if source.constants:
        lines += [
            source.state_struct(),
            f"const int64_t {symbol}_state_bytes = sizeof(struct {symbol}_state);",
            f"partita_status {symbol}_init(const partita_call *call, void *memory, const void *const *constants) {{",
            "    (void)call;",
            f"    struct {symbol}_state *state = memory;",
            *source.init_assignments(),
            "    return PARTITA_OK;",
            "}",
            "",
        ]
        calls.insert(0, f"    const struct {symbol}_state *state = call->state;")
    return "\n".join(
        [*lines, f"partita_status {symbol}(const partita_call *call) {{", *calls, "    return PARTITA_OK;", "}\n"]
    )


def call(node: Node, source: RegionSource) -> str:
    """One node as a call: `toy_add(a, b, result, count);`."""
    composite = node.attributes.get("name")
    left, right = added(node) if composite else node.operands
    arguments = ", ".join(source.pointer(value) for value in (left, right, node.output))
    count = " * ".join(source.size(dim) for dim in node.output.shape) or "1"
    return f"{FUNCTIONS[composite or node.op_type]}({arguments}, {count});"


def added(node: Node) -> tuple[Value, ...]:
    """The operands of the Add in a composite, as values of the region; one value may be both."""
    body: Graph = node.attributes["body"]
    outer = dict(zip(body.inputs, node.operands, strict=True))
    return tuple(outer[value] for value in body.nodes[0].operands)
