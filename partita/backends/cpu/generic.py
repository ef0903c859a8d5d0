"""Kernels from expressions: any group of operators that has no kernel of its own.

Two shapes of loop nests. Plain: loops over the output, the whole expression inside. Rows: where a reduction is read by
what runs over the same elements (softmax, layer normalization), loops over the rows, and inside them one statement per
row result and one inner loop per pass over the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from partita.backends.cpu.expressions import Scope
from partita.backends.cpu.invariants import write_invariants
from partita.backends.cpu.kernel import Kernel, KernelWriter, body_of, members
from partita.backends.cpu.loops import Form, LoopNest, moved, store_form
from partita.backends.cpu.scalars import LIBM, VECTORIZED, register_type, stored
from partita.backends.cpu.turned import turn, write_turned
from partita.backends.source import C_TYPES
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import (
    Axis,
    Call,
    Computation,
    Expr,
    Index,
    Literal,
    Load,
    Reduce,
    at,
    replace_indices,
    rewrite,
    substitute,
    walk,
)
from partita.ir.graph import Node, Value
from partita.ir.operators.registry import definition
from partita.ir.types import DType, TensorType
from partita.passes.fuse import is_cheap, is_pointwise, row_reduction

ROW_LIMIT = 4096  # elements of a row that a kernel keeps on its stack


def generic_kernel(node: Node, writer: KernelWriter) -> Kernel:
    """The kernel of a node by its expressions."""
    rows = rows_of(node)
    if rows is None:
        _write_plain(node, writer)
    else:
        _RowKernel(node, writer, rows).write()
    return writer.finish()


def composed(node: Node, kept: frozenset[Value] = frozenset()) -> dict[Value, Computation]:
    """The expression of every value inside a group, in terms of what comes from outside and of the `kept` values."""
    result: dict[Value, Computation] = {}
    for member in members(node):
        operator = definition(member)
        assert operator is not None
        inlined = {value: c for value, c in result.items() if value not in kept}
        for output, computation in zip(member.outputs, operator.computations(member), strict=False):
            result[output] = Computation(computation.axes, substitute(computation.body, inlined))
    return result


def with_epilogue(node: Node, own: Computation) -> tuple[Value, Computation]:
    """What a kernel stores: the output of its group, with `own`, the result of the group's first node, put in."""
    first, *later = members(node)
    if not later:
        return first.output, own
    result = composed(node, kept=frozenset([first.output]))[later[-1].output]
    return later[-1].output, Computation(result.axes, substitute(result.body, {first.output: own}))


# ---------------------------------------------------------------------- plain loops


# What an element takes, in nanoseconds, when it is read or stored, computed, or computed by a library's function.
MOVED, COMPUTED, CALLED = 0.15, 0.05, 2.5
FEW_STEPS = 64  # of the outermost loop: below, the next one joins it


def _write_plain(node: Node, writer: KernelWriter) -> None:
    computations = composed(node)
    pending = [value for value in dict.fromkeys(writer.outputs) if value in computations]
    while pending:
        shape = computations[pending[0]].shape
        together = [value for value in pending if dims.same_shape(computations[value].shape, shape)]
        pending = [value for value in pending if value not in together]
        _write_nest({value: computations[value] for value in together}, writer)


def _write_nest(computations: dict[Value, Computation], writer: KernelWriter) -> None:
    axes = next(iter(computations.values())).axes
    indices = [Index(axis) for axis in axes]
    bodies = {value: at(c, indices) for value, c in computations.items()}
    form = store_form(axes, [axis.extent for axis in axes])
    nest = LoopNest(axes, list(bodies.values()), [form])
    bodies = {value: replace_indices(body, nest.replacement) for value, body in bodies.items()}
    bodies = {value: _with_merged_reductions(body) for value, body in bodies.items()}
    cost = sum(map(element_cost, bodies.values()))
    turned = turn(nest.loops, list(bodies.values()), moved(form, nest.replacement))
    if turned is not None:
        write_turned(turned, nest.loops, bodies, moved(form, nest.replacement), cost, writer)
        return
    writer.printer.count(*bodies.values())
    outer, loops = split_loops(nest.loops)
    cost *= typical_product(loops)
    simd = all(map(is_vectorizable, bodies.values()))
    scope = writer.open_steps(outer, cost, simd=simd and not loops)
    inner = scope
    for depth, axis in enumerate(loops):
        write_invariants(bodies.values(), loops[depth:], inner, writer)
        inner = writer.printer.open_loops([axis], inner, simd=simd and axis is loops[-1])
    for value, body in bodies.items():
        writer.store(value, moved(form, nest.replacement), body, inner)
    writer.printer.close_loops(loops, scope)
    writer.close_steps()


def split_loops(loops: list[Axis]) -> tuple[list[Axis], list[Axis]]:
    """The outermost loops, enough of them to share out as steps, and the others; the innermost only if it is alone."""
    steps: Dim = 1
    for count, axis in enumerate(loops):
        steps = steps * axis.extent
        if count >= len(loops) - 2 or not dims.is_static(steps) or int(steps) >= FEW_STEPS:
            return loops[: count + 1], loops[count + 1 :]
    return [], []


def element_cost(expression: Expr) -> float:
    """Nanoseconds, roughly, for one element on one thread."""
    total = MOVED
    for part in walk(expression):
        if isinstance(part, Reduce):
            total += element_cost(part.body) * typical_product(part.axes)
        elif isinstance(part, Load):
            total += MOVED
        elif isinstance(part, Call) and part.dtype is not DType.INT64:
            total += COMPUTED if is_vectorizable(part) else CALLED
    return total


def typical_product(axes: Sequence[Axis]) -> int:
    return dims.typical(dims.product(axis.extent for axis in axes))


def is_vectorizable(expression: Expr) -> bool:
    """Whether a loop over the expression is worth a vectorization hint: no loops or library calls inside."""
    slow = LIBM - {"sqrt", "floor", "ceil", "rint"} | {"pow", "fmod", "mod", "checked_index"}

    def is_slow(e: Expr) -> bool:
        if e.dtype is DType.STRING:
            return True
        if not isinstance(e, Call):
            return isinstance(e, Reduce)
        vectorized = e.function in VECTORIZED and e.dtype is not DType.FLOAT64
        return e.function in slow and e.dtype is not DType.INT64 and not vectorized

    return not any(map(is_slow, walk(expression)))


# ---------------------------------------------------------------------- rows


@dataclass(frozen=True, slots=True)
class Rows:
    """Loops over `domain`; `inner` are the axes that the group's reductions reduce."""

    domain: tuple[dims.Dim, ...]
    inner: tuple[int, ...]


def rows_of(node: Node) -> Rows | None:
    """The rows of a group with a reduction that others in the group (or, beside it, full results) go with."""
    nodes = members(node)
    if len(nodes) < 2:
        return None
    found: Rows | None = None
    for member in nodes:
        operator = definition(member)
        if operator is None or operator.compute is None or len(member.outputs) != 1:
            return None
        axes = row_reduction(member, operator.computations(member)[0])
        if axes is not None:
            found = Rows(member.operand(0).shape, axes)
    if found is None:
        return None
    body = body_of(node)
    assert body is not None
    full = any(dims.same_shape(value.shape, found.domain) for value in body.outputs)
    return found if full else None


@dataclass(slots=True)
class _Stage:
    """One statement per row (`is_full` off) or one loop over the row (on), giving `value`. `local` names the C variable
    or array that holds it for the stages after it; "" where only its output does."""

    value: Value
    body: Expr
    is_full: bool
    local: Value | None


class _RowKernel:
    def __init__(self, node: Node, writer: KernelWriter, rows: Rows) -> None:
        self.node = node
        self.writer = writer
        self.axes = [Axis(f"i{n}", dim) for n, dim in enumerate(rows.domain)]
        self.inner = [self.axes[n] for n in rows.inner]
        self.outer = [axis for axis in self.axes if axis not in self.inner]
        self.rows = rows
        self.displaced = _displaced(node, rows)
        self.stages: list[_Stage] = []
        self.inlined: dict[Value, Computation] = {}
        self.replacement: dict[Axis, Expr] = {}

    def write(self) -> None:
        for member in members(self.node):
            self._add(member)
        bodies = [stage.body for stage in self.stages]
        forms = [self._form(stage) for stage in self.stages if stage.value in self.writer.outputs]
        outer = LoopNest(self.outer, bodies, forms)
        inner = LoopNest(self.inner, bodies, [form for form in forms if any(axis in form for axis in self.inner)])
        self.replacement = {**outer.replacement, **inner.replacement}
        for stage in self.stages:
            stage.body = _with_merged_reductions(replace_indices(stage.body, self.replacement))
        self.writer.printer.count(*(stage.body for stage in self.stages))
        cost = sum(
            element_cost(stage.body) * (typical_product(inner.loops) if stage.is_full else 1) for stage in self.stages
        )
        row = self.writer.open_steps(outer.loops, cost)
        for stage in self.stages:
            if stage.is_full:
                self._write_pass(stage, row, inner)
            else:
                self._write_row_result(stage, row)
        self.writer.close_steps()

    def _add(self, member: Node) -> None:
        operator = definition(member)
        assert operator is not None
        (computation,) = operator.computations(member)
        value = member.output
        if value in self.displaced:
            self.inlined[value] = Computation(computation.axes, substitute(computation.body, self.inlined))
            return
        is_full = dims.same_shape(value.shape, self.rows.domain) and not self._is_row(computation)
        indices = [Index(axis) if is_full or axis not in self.inner else Literal(0, DType.INT64) for axis in self.axes]
        body = _localized(substitute(at(computation, indices), self.inlined))
        is_output = value in self.writer.outputs
        uses = len(body_of(self.node).uses(value))  # type: ignore[union-attr]
        if is_full and not is_output and (uses < 2 or is_cheap(body) or not self._fits_stack()):
            self.inlined[value] = Computation(tuple(self.axes), body)
            return
        local: Value | None = None
        if not is_full:
            local = Value(value.name, TensorType(value.tensor.dtype, ()))
            self.inlined[value] = Computation(tuple(self.axes), Load(local, (), value.tensor.dtype))
        elif is_output and uses:
            place = tuple(Index(axis) for axis in self.axes)
            self.inlined[value] = Computation(tuple(self.axes), Load(value, place, value.tensor.dtype))
        elif uses:
            extents = tuple(axis.extent for axis in self.inner)
            local = Value(value.name, TensorType(value.tensor.dtype, extents))
            place = tuple(Index(axis) for axis in self.inner)
            self.inlined[value] = Computation(tuple(self.axes), Load(local, place, value.tensor.dtype))
        self.stages.append(_Stage(value, body, is_full, local))

    def _is_row(self, computation: Computation) -> bool:
        """Whether a result has one element per row although the row has one element."""
        return all(self.axes[n].extent == 1 for n in self.rows.inner) and any(
            isinstance(e, Reduce) for e in walk(computation.body)
        )

    def _fits_stack(self) -> bool:
        extent = dims.product(axis.extent for axis in self.inner)
        return bool(dims.is_static(extent) and extent <= ROW_LIMIT)

    def _form(self, stage: _Stage) -> Form:
        form = store_form(self.axes, stage.value.shape)
        if not stage.is_full:
            for axis in self.inner:
                del form[axis]
        return form

    def _write_row_result(self, stage: _Stage, row: Scope) -> None:
        printer, writer = self.writer.printer, self.writer
        dtype = stage.value.tensor.dtype
        name = writer.names.fresh(stage.value.name)
        row.write(f"const {register_type(dtype)} {name} = {printer.render(stage.body, row)};")
        assert stage.local is not None
        printer.locals[stage.local] = name
        if stage.value in writer.outputs:
            place = printer.affine_text(moved(self._form(stage), self.replacement))
            row.write(f"{writer.pointers[stage.value]}[{place}] = {stored(name, dtype)};")

    def _write_pass(self, stage: _Stage, row: Scope, inner: LoopNest) -> None:
        """One loop over the row: into an output, or into an array that lives as long as the row."""
        printer, writer = self.writer.printer, self.writer
        dtype = stage.value.tensor.dtype
        form = self._form(stage)
        target = stage.value
        if stage.local is not None:
            target, form = stage.local, store_form(self.inner, stage.local.shape)
            writer.pointers[target] = writer.names.fresh(stage.value.name)
            extent = writer.size(dims.product(stage.local.shape))
            row.write(f"{C_TYPES[dtype]} {writer.pointers[target]}[{extent}];")
        body = printer.open_loops(inner.loops, row, simd=is_vectorizable(stage.body))
        text = stored(printer.render(stage.body, body), dtype)
        place = printer.affine_text(moved(form, self.replacement))
        body.write(f"{writer.pointers[target]}[{place}] = {text};")
        printer.close_loops(inner.loops, row)


def _displaced(node: Node, rows: Rows) -> set[Value]:
    """The values inside a group that do not run along its rows: of other shapes, read at other indices than their own,
    or behind one of these. They are computed again wherever they are read."""
    row = [1 if axis in rows.inner else dim for axis, dim in enumerate(rows.domain)]
    found: set[Value] = set()
    for member in reversed(members(node)):
        operator = definition(member)
        assert operator is not None
        (computation,) = operator.computations(member)
        if not any(dims.same_shape(member.output.shape, shape) for shape in (rows.domain, row)):
            found.add(member.output)
        reduces = row_reduction(member, computation) is not None
        for value in member.operands:
            if member.output in found or not is_pointwise(computation, value, reduces):
                found.add(value)
    return found


def _localized(body: Expr) -> Expr:
    """The body with fresh axes for each reduction: an expression may hold the same one twice."""

    def replace(current: Expr) -> Expr | None:
        if not isinstance(current, Reduce):
            return None
        fresh = tuple(Axis(f"k{n}", axis.extent) for n, axis in enumerate(current.axes))
        indices = dict(zip(current.axes, map(Index, fresh), strict=True))
        return Reduce(current.combine, fresh, replace_indices(current.body, indices), current.initial, current.dtype)

    return rewrite(body, replace)


def _with_merged_reductions(body: Expr) -> Expr:
    """The body with neighbouring axes of each reduction merged."""

    def replace(current: Expr) -> Expr | None:
        if not isinstance(current, Reduce) or len(current.axes) < 2:
            return None
        nest = LoopNest(current.axes, [current.body], [])
        inner = replace_indices(current.body, nest.replacement)
        return Reduce(current.combine, tuple(nest.loops), inner, current.initial, current.dtype)

    return rewrite(body, replace)
