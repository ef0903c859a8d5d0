"""One kernel: the C function that computes a node (or a fused group of nodes) of a region.

A kernel knows its operands by position, not by name, so that two layers of one shape print the same text and share one
function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from partita.backends.cpu.expressions import ExpressionPrinter, Scope, stored
from partita.backends.cpu.loops import Form
from partita.backends.source import C_TYPES, Names, c_string
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Expr
from partita.ir.graph import Graph, Node, Value


@dataclass(frozen=True, slots=True)
class Kernel:
    """A finished function: `body` is the text between the braces. A call passes `inputs` and `outputs`, values of the
    region, in order."""

    node: Node
    parameters: str
    body: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    uses_extents: bool
    uses_workspace: bool
    can_fail: bool
    helpers: dict[str, str]  # functions that it calls, by name: shared by the kernels of a file
    blocks: frozenset[int]  # vector widths of the blocked tensors it knows, in channels


@dataclass(slots=True)
class KernelWriter:
    """Collects the text of one kernel. `symbols` orders the symbolic dimensions in `extents`."""

    node: Node
    symbols: Sequence[str]
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    aliased: bool = False  # an output may be an input's memory: no `restrict`
    lines: list[str] = field(default_factory=list)
    names: Names = field(default_factory=Names)
    uses_extents: bool = False
    uses_workspace: bool = False
    helpers: dict[str, str] = field(default_factory=dict)
    blocks: set[int] = field(default_factory=set)
    printer: ExpressionPrinter = field(init=False)

    def __post_init__(self) -> None:
        body = body_of(self.node)
        self.inputs = list(dict.fromkeys(body.inputs if body else self.node.operands))
        self.outputs = list(body.outputs if body else self.node.outputs)
        pointers: dict[object, str] = {}
        for place, value in enumerate(self.inputs):
            pointers[value] = self.names.fresh(f"x{place}")
        for place, value in enumerate(self.outputs):
            pointers.setdefault(value, self.names.fresh(f"y{place}"))
        self.printer = ExpressionPrinter(pointers, self.size)

    @property
    def pointers(self) -> dict[object, str]:
        assert isinstance(self.printer.pointers, dict)
        return self.printer.pointers

    def scope(self) -> Scope:
        return Scope(self.lines, 1, self.names)

    def size(self, dim: Dim) -> str:
        if dims.is_static(dim):
            return str(dim)
        self.uses_extents = True
        return dims.c_text(dim, {name: f"extents[{place}]" for place, name in enumerate(self.symbols)})

    def store(self, value: Value, form: Form, expression: Expr, scope: Scope) -> None:
        """Writes one element of an output."""
        text = stored(self.printer.render(expression, scope), value.tensor.dtype)
        scope.write(f"{self.pointers[value]}[{self.printer.affine_text(form)}] = {text};")

    def pointer(self, value: Value) -> str:
        """The name of an operand's or output's pointer."""
        self.printer.used.add(value)
        return self.pointers[value]

    def finish(self) -> Kernel:
        """The kernel, taking what its text mentions."""
        outer = list(dict.fromkeys(self.node.operands))
        read = [(inner, value) for inner, value in zip(self.inputs, outer, strict=True) if inner in self.printer.used]
        qualifier = "*" if self.aliased else "*restrict "
        parameters = [f"const {C_TYPES[v.tensor.dtype]} {qualifier}{self.pointers[v]}" for v, _ in read]
        parameters += [f"{C_TYPES[v.tensor.dtype]} {qualifier}{self.pointers[v]}" for v in self.outputs]
        lines = list(self.lines)
        if self.uses_extents:
            parameters.append("const int64_t *extents")
        if self.uses_workspace:
            parameters.append("char *workspace")
        fails = self.printer.checks_indices
        if fails:
            parameters.append("const partita_call *call")
            lines.insert(0, "    int bad_index = 0;")
            message = c_string(f"{self.node.op_type} node: an index lies outside its tensor; check the index inputs")
            lines.append("    if (bad_index)")
            lines.append(f"        return call->services->fail(call, PARTITA_ERROR_INDEX, {message});")
            lines.append("    return PARTITA_OK;")
        return Kernel(
            self.node,
            ", ".join(parameters),
            "\n".join(lines),
            tuple(value for _, value in read),
            self.node.outputs,
            self.uses_extents,
            self.uses_workspace,
            fails,
            self.helpers,
            frozenset(self.blocks),
        )


def body_of(node: Node) -> Graph | None:
    """The graph inside a fused node, or None for a plain one."""
    return node.attributes["body"] if node.domain == "partita" and node.op_type == "Fused" else None


def members(node: Node) -> list[Node]:
    """The plain nodes that a kernel computes, in topological order."""
    body = body_of(node)
    return [node] if body is None else body.nodes
