"""One kernel: the C that computes a node (or a fused group of nodes) of a region.

A kernel knows its operands by position, not by name, so that two layers of one shape print the same text and share one
function.

Threads. A kernel is one phase or several, run in order, each a C function `(argument, begin, end, workspace)` that
computes steps [begin, end) of its `steps`: whatever loop is outermost, or several flattened. Steps run in any order,
cut anywhere, on any thread; so a result must depend on no other step of its phase, and is the same, bit by bit, for
any number of threads. How a writer says so:

- `writer.begin_phase(steps, cost)` starts a phase; what is written from here on reads `begin` and `end`. `cost` is what
  a step takes on one thread, in nanoseconds, roughly: nothing smaller than a few microseconds is shared out.
- `writer.open_steps(axes, cost)` does so with loops over `axes`, as one loop over the steps; `close_steps` ends it.
- A kernel that begins no phase runs once, on one thread.
- `writer.uses_workspace`: `workspace` is scratch memory, of which every thread has its own.
- `writer.uses_shared`: `shared` is that scratch memory instead, one for all threads and phases: what a phase leaves
  there, the next one finds (a padded image, the planes of a transform).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from partita.backends.cpu.expressions import ExpressionPrinter, Scope
from partita.backends.cpu.loops import Form
from partita.backends.cpu.scalars import stored
from partita.backends.cpu.target import Target
from partita.backends.source import C_TYPES, Names, c_string
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Expr
from partita.ir.graph import Graph, Node, Value

# What a phase's function brings.
RESERVED = ("argument", "begin", "end", "workspace", "pointers", "shared", "extents", "call", "status", "step", "rest")
LONGEST_NAME = 16  # of a dimension, to name a variable in C


@dataclass(frozen=True, slots=True)
class Phase:
    """One C function of a kernel: `body` is the text between the braces. `cost` is of one step, in nanoseconds."""

    body: str
    steps: Dim
    cost: float


@dataclass(frozen=True, slots=True)
class Kernel:
    """Finished functions. A call passes `inputs` and `outputs`, values of the region, in order."""

    node: Node
    phases: tuple[Phase, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    uses_extents: bool
    uses_workspace: bool
    uses_shared: bool
    can_fail: bool
    helpers: dict[str, str]  # functions that it calls, by name: shared by the kernels of a file
    blocks: frozenset[int]  # vector widths of the blocked tensors it knows, in channels


@dataclass(slots=True)
class KernelWriter:
    """Collects the text of one kernel. `symbols` orders the symbolic dimensions in `extents`."""

    node: Node
    symbols: Sequence[str]
    target: Target
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    aliased: bool = False  # an output may be an input's memory: no `restrict`
    lines: list[str] = field(default_factory=list)
    names: Names = field(default_factory=lambda: Names(RESERVED))
    uses_extents: bool = False
    uses_workspace: bool = False
    uses_shared: bool = False
    sizes: dict[Dim, str] = field(default_factory=dict)  # names of symbolic dimensions, of which phases read some
    size_lines: list[str] = field(default_factory=list)
    phases: list[tuple[Dim, float, list[str]]] = field(default_factory=list)  # those begun: steps, cost, lines
    helpers: dict[str, str] = field(default_factory=dict)
    blocks: set[int] = field(default_factory=set)
    printer: ExpressionPrinter = field(init=False)
    _extents: dict[str, str] = field(init=False)

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
        self._extents = {name: f"extents[{place}]" for place, name in enumerate(self.symbols)}

    @property
    def pointers(self) -> dict[object, str]:
        assert isinstance(self.printer.pointers, dict)
        return self.printer.pointers

    def scope(self) -> Scope:
        return Scope(self.lines, 1, self.names)

    def begin_phase(self, steps: Dim, cost: float) -> Scope:
        """Starts a phase; gives the scope of its function."""
        self.lines = []
        self.phases.append((steps, cost, self.lines))
        return self.scope()

    def open_steps(self, axes: Sequence[Axis], cost: float, *, simd: bool = False) -> Scope:
        """Starts a phase whose steps are the elements of `axes`, and opens its loop; `close_steps` closes it."""
        scope = self.begin_phase(dims.product(axis.extent for axis in axes), cost)
        names = [self.names.fresh(axis.name) for axis in axes]
        self.printer.axis_names.update(zip(axes, names, strict=True))
        loop = names[0] if len(names) == 1 else "step"
        if simd and axes:
            scope.write("#pragma omp simd")
        scope.write(f"for (int64_t {loop} = begin; {loop} < end; ++{loop}) {{")
        inner = scope.inner()
        if len(axes) > 1:
            inner.write("int64_t rest = step;")
            for axis, name in reversed(list(zip(axes[1:], names[1:], strict=True))):
                inner.write(f"const int64_t {name} = rest % {self.size(axis.extent)};")
                inner.write(f"rest /= {self.size(axis.extent)};")
            inner.write(f"const int64_t {names[0]} = rest;")
        return inner

    def close_steps(self) -> None:
        self.scope().write("}")

    def size(self, dim: Dim) -> str:
        if dims.is_static(dim):
            return str(dim)
        self.uses_extents = True
        if dim in self.sizes:
            return self.sizes[dim]
        for part in (*dims.parts(dim), dim):
            if part not in self.sizes:
                text = dims.c_text(part, self._extents, known=self.sizes)
                is_short = part.is_Symbol and len(str(part)) <= LONGEST_NAME
                self.sizes[part] = self.names.fresh(f"size_{part}" if is_short else "size")
                self.size_lines.append(f"const int64_t {self.sizes[part]} = {text};")
        return self.sizes[dim]

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
        phases = self.phases or [(1, 0.0, self.lines)]
        prologue = self._prologue([value for value, _ in read])
        return Kernel(
            self.node,
            tuple(Phase(_text(prologue, self._checked(lines)), steps, cost) for steps, cost, lines in phases),
            tuple(value for _, value in read),
            self.node.outputs,
            self.uses_extents,
            self.uses_workspace,
            self.uses_shared,
            self.printer.can_fail,
            self.helpers,
            frozenset(self.blocks),
        )

    def _prologue(self, read: Sequence[Value]) -> list[str]:
        """The declarations of what a call passes, in the order of `calls.pointer_list`."""
        qualifier = "*" if self.aliased else "*restrict "
        declared = [f"const {C_TYPES[value.tensor.dtype]} {qualifier}{self.pointers[value]}" for value in read]
        declared += [f"{C_TYPES[value.tensor.dtype]} {qualifier}{self.pointers[value]}" for value in self.outputs]
        if self.uses_extents:
            declared.append("const int64_t *extents")
        if self.uses_shared:
            declared.append("char *shared")
        if self.printer.can_fail:
            declared += ["const partita_call *call", "int32_t *status"]
        lines = ["    void *const *pointers = argument;"]
        lines += [f"    {text} = pointers[{place}];" for place, text in enumerate(declared)]
        return lines + [f"    {line}" for line in self.size_lines]

    def _checked(self, lines: list[str]) -> list[str]:
        if not self.printer.checks_indices:
            return lines
        message = c_string(f"{self.node.op_type} node: an index lies outside its tensor; check the index inputs")
        return [
            "    int bad_index = 0;",
            *lines,
            "    if (bad_index) {",
            f"        const int32_t failed = call->services->fail(call, PARTITA_ERROR_INDEX, {message});",
            "        __atomic_store_n(status, failed, __ATOMIC_RELAXED); /* from any thread */",
            "    }",
        ]


def _text(prologue: Sequence[str], lines: Sequence[str]) -> str:
    """The body of a phase, with those declarations that it reads."""
    words = set(re.findall(r"\w+", "\n".join(lines)))
    declared: list[str] = []
    for line in reversed(prologue[1:]):  # each may read those before it
        name, _, text = line.partition(" = ")
        if name.split()[-1].lstrip("*") in words:
            declared.insert(0, line)
            words.update(re.findall(r"\w+", text))
    return "\n".join([*prologue[:1], *declared, *lines])


def body_of(node: Node) -> Graph | None:
    """The graph inside a fused node, or None for a plain one."""
    return node.attributes["body"] if node.domain == "partita" and node.op_type == "Fused" else None


def members(node: Node) -> list[Node]:
    """The plain nodes that a kernel computes, in topological order."""
    body = body_of(node)
    return [node] if body is None else body.nodes
