"""If and Loop as C: a branch, and a loop around the kernels of a body.

What a body reads of outside lies where it lay. A branch computes into the outputs of the If. What a loop carries lies
in its outputs of the same place, from the first step on: the body reads it there, computes the next into memory of its
own, and the end of the step copies that back. Stacked outputs grow by what each step gives.

Sizes that change (of what is carried, of what branches give) are symbols of their own; they are set where the value is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partita.backends.cpu.sequences import Sequences
from partita.backends.source import RegionSource, c_format, comment
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import plain
from partita.ir.operators.sequences import is_list

Sizes = list[tuple[str, Dim]]  # symbols, and what they become


class ControlFlow:
    """Prints the control flow of one region. `statements` gives what runs the nodes of a body."""

    def __init__(self, source: RegionSource, sequences: Sequences, statements: Callable[[Graph], list[str]]) -> None:
        self.source = source
        self.sequences = sequences
        self.inside = statements
        self.loops = 0

    def statements(self, node: Node) -> list[str]:
        """What runs an If or a Loop."""
        return self._branches(node) if node.op_type == "If" else self._loop(node)

    # ------------------------------------------------------------------ If

    def _branches(self, node: Node) -> list[str]:
        chosen, other = (self._branch(node, node.attributes[key]) for key in ("then_branch", "else_branch"))
        condition = f"    if (*{self.source.pointer(node.operand(0))}) {{ /* {comment(node.name)}: If */"
        return [condition, *_indented(chosen), "    } else {", *_indented(other), "    }"]

    def _branch(self, node: Node, body: Graph) -> list[str]:
        lines = self.inside(body)
        sizes: Sizes = []
        for outer, inner in zip(node.outputs, body.outputs, strict=True):
            sizes += told(outer, inner)
        return [*lines, *self._set(sizes)]

    # ------------------------------------------------------------------ Loop

    def _loop(self, node: Node) -> list[str]:
        body: Graph = node.attributes["body"]
        number, self.loops = self.loops, self.loops + 1
        trip, again = f"trip_{number}", f"again_{number}"
        limit, condition = node.input(0), node.input(1)
        count = len(plain(node)) - 2
        stacked = list(zip(node.outputs[count:], body.outputs[1 + count :], strict=True))
        step = [
            *(self._given(body, body.inputs[0], trip)),
            *(self._given(body, body.inputs[1], again)),
            *self.inside(body),
            *(line for outer, inner in stacked for line in self._append(node, outer, inner, trip)),
            f"    {again} = *{self.source.pointer(body.outputs[0])};",
            *self._carry(body.inputs[2 : 2 + count], body.outputs[1 : 1 + count]),
        ]
        trips = "INT64_MAX" if limit is None else f"*{self.source.pointer(limit)}"
        lines = [
            f"    {{ /* {comment(node.name)}: Loop */",
            *_indented(self._carry(body.inputs[2 : 2 + count], [node.operand(2 + n) for n in range(count)])),
            *_indented([line for outer, inner in stacked for line in self._start(outer, inner)]),
            f"        const int64_t trips_{number} = {trips};",
            f"        bool {again} = {'true' if condition is None else '*' + self.source.pointer(condition)};",
            f"        int64_t {trip} = 0;",
            f"        for (; {again} && {trip} < trips_{number}; ++{trip}) {{",
            *_indented(_indented(step)),
            "        }",
        ]
        lengths = dict.fromkeys(str(outer.shape[0]) for outer, _ in stacked)
        counted = [f"        {self._extent(n)} = {trip};" for n in lengths if n in self.source.plan.data_dependent]
        return [*lines, *counted, "    }"]

    def _given(self, body: Graph, value: Value, text: str) -> list[str]:
        """What the loop itself gives its body: the number of the step, whether it goes on."""
        is_read = bool(body.uses(value)) or body.is_output(value)
        return [f"    *{self.source.pointer(value)} = {text};"] if is_read else []

    def _carry(self, targets: Sequence[Value], values: Sequence[Value]) -> list[str]:
        """Makes `values` what the body finds in `targets`, and their sizes its sizes."""
        plan, lines, sizes = self.source.plan, list[str](), Sizes()
        for target, value in zip(targets, values, strict=True):
            sizes += told(target, value)
        changed = [(a, b) for a, b in zip(targets, values, strict=True) if _is_moved(self.source, a, b)]
        moved = [(target, value) for target, value in changed if not is_list(target)]
        for target, value in changed:
            lines += self.sequences.assign(target, value) if is_list(target) else []
        for target, value in moved:
            lines.append(f"    const int64_t bytes_{plan.buffer_of[target]} = {self.source.bytes(value)};")
        lines += self._set(sizes)
        for target, value in moved:
            size = f"bytes_{plan.buffer_of[target]}"
            lines += self.source.reserve(plan.buffer_of[target], size)
            copy = f"memcpy({self.source.address(target)}, {self.source.address(value)}, (size_t){size});"
            lines.append(f"    {copy}")
        return ["    {", *_indented(lines), "    }"] if moved else lines

    def _start(self, outer: Value, inner: Value) -> list[str]:
        """Before the first step a stacked output is empty."""
        sizes: Sizes = [(str(dim), 0) for dim, _ in differing(outer.shape[1:], inner.shape) if not dims.is_static(dim)]
        return self._set(sizes) + self.source.reserve(self.source.plan.buffer_of[outer], "0", "extend")

    def _append(self, node: Node, outer: Value, inner: Value, trip: str) -> list[str]:
        """Adds what a step gives to a stacked output."""
        size = self.source.bytes(inner)
        lines: list[str] = []
        message = c_format(f"{node.name}: what is stacked as {outer.name!r} changes its shape from step to step")
        for whole, dim in differing(outer.shape[1:], inner.shape):
            first = "" if dims.is_static(whole) else f"{trip} > 0 && "
            lines.append(f"    if ({first}{self.source.size(whole)} != {self.source.size(dim)})")
            lines.append(f"        return call->services->fail(call, PARTITA_ERROR_SHAPE, {message});")
            lines += self._set([(str(whole), dim)]) if first else []
        number = self.source.plan.buffer_of[outer]
        lines += self.source.reserve(number, f"({trip} + 1) * {size}", "extend")
        place = f"(char *){self.source.address(outer)} + {trip} * {size}"
        return [*lines, f"    memcpy({place}, {self.source.address(inner)}, (size_t)({size}));"]

    # ------------------------------------------------------------------ sizes

    def _extent(self, symbol: str) -> str:
        return self.source.plan.symbol_texts[symbol]

    def _set(self, sizes: Sizes) -> list[str]:
        """Gives symbols their sizes, all at once: one may be computed from what another was."""
        fixed = [f"    {self._extent(symbol)} = {self.source.size(dim)};" for symbol, dim in sizes]
        names = {symbol for symbol, _ in sizes}
        if not any(names.intersection(dims.symbols_of(dim)) for _, dim in sizes):
            return list(dict.fromkeys(fixed))
        texts = [self.source.size(dim) for _, dim in sizes]
        return [
            "    {",
            f"        const int64_t sizes[] = {{{', '.join(texts)}}};",
            *(f"        {self._extent(symbol)} = sizes[{n}];" for n, (symbol, _) in enumerate(sizes)),
            "    }",
        ]


def told(outer: Value, inner: Value) -> Sizes:
    """The symbols in the shape of one value that stand for other sizes in the other's. A list has no shape."""
    return [] if is_list(outer) else [(str(a), b) for a, b in differing(outer.shape, inner.shape)]


def differing(outer: Sequence[Dim], inner: Sequence[Dim]) -> list[tuple[Dim, Dim]]:
    """The sizes in two shapes that are not the same."""
    return [(a, b) for a, b in zip(outer, inner, strict=True) if not dims.same(a, b)]


def _is_moved(source: RegionSource, target: Value, value: Value) -> bool:
    """Whether a value must be copied to where the body reads it."""
    buffers = source.plan.buffer_of
    return target in buffers and buffers[target] != buffers.get(value)


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
