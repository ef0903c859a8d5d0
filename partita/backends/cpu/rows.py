"""Kernels of rows: where a reduction is read by what runs over the same elements (softmax, layer normalization).

One statement per row result, one inner loop per pass over the row. What waits for a reduction waits long, as its sum
comes together at the end; so short rows go a few at a time, each step for all of them before the next:

    for (first = begin; first < end; first += 4) {
        for (r = 0; r < rows; ++r)      largest[r] = the largest of row first + r
        for (r = 0; r < rows; ++r)      e[r][k] = exp (x[first + r][k] - largest[r]), and their sum[r]
        for (r = 0; r < rows; ++r)      y[first + r][k] = e[r][k] / sum[r]
    }
"""

from __future__ import annotations

from dataclasses import dataclass

from partita.backends.cpu.costs import element_cost, is_vectorizable, typical_product
from partita.backends.cpu.expressions import Scope
from partita.backends.cpu.invariants import write_invariants
from partita.backends.cpu.kernel import KernelWriter, body_of, members
from partita.backends.cpu.loops import Form, LoopNest, moved, store_form, with_merged_reductions
from partita.backends.cpu.scalars import register_type, stored
from partita.backends.source import C_TYPES
from partita.ir import dims
from partita.ir.expression import (
    Axis,
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
from partita.ir.operators import definition
from partita.ir.types import DType, TensorType
from partita.passes.fuse import is_cheap, is_pointwise, row_reduction

ROW_LIMIT = 4096  # elements of rows that a kernel keeps on its stack
TOGETHER = 4  # rows


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
    """One statement per row (`is_full` off) or one loop over the row (on), giving `value`, or something else that its
    memory holds until then. `local` names the C variable or array that holds it for the stages after it; None where it
    is read from the output, or not at all."""

    value: Value
    body: Expr
    is_full: bool
    local: Value | None

    def read(self) -> set[object]:
        """The values that it loads."""
        return {part.value for part in walk(self.body) if isinstance(part, Load)}


class RowKernel:
    """Writes the kernel of a group of operators along rows."""

    def __init__(self, node: Node, writer: KernelWriter, rows: Rows) -> None:
        body = body_of(node)
        assert body is not None, "rows are of a group"
        self.node = node
        self.body = body
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
            stage.body = with_merged_reductions(replace_indices(stage.body, self.replacement))
        self.writer.printer.count(*(stage.body for stage in self.stages))
        cost = sum(
            element_cost(stage.body) * (typical_product(inner.loops) if stage.is_full else 1) for stage in self.stages
        )
        groups = self._groups() if self._are_short(outer.loops) else [self.stages]
        if len(groups) > 1:
            self._write_together(groups, outer.loops[0], cost, inner)
        else:
            self._write_stages(self.stages, self.writer.open_steps(outer.loops, cost), inner)
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
        uses = len(self.body.uses(value))
        kept = is_full and not is_output and uses > 1 and not is_cheap(body)
        target = value if is_output else self._spare(value) if kept and not self._fits_stack() else None
        if is_full and target is None and not (kept and self._fits_stack()):
            self.inlined[value] = Computation(tuple(self.axes), body)
            return
        local: Value | None = None
        if not is_full:
            local = Value(value.name, TensorType(value.tensor.dtype, ()))
            self.inlined[value] = Computation(tuple(self.axes), Load(local, (), value.tensor.dtype))
        elif target is not None:
            place = tuple(Index(axis) for axis in self.axes)
            self.inlined[value] = Computation(tuple(self.axes), Load(target, place, value.tensor.dtype))
        else:
            extents = tuple(axis.extent for axis in self.inner)
            local = Value(value.name, TensorType(value.tensor.dtype, extents))
            place = tuple(Index(axis) for axis in self.inner)
            self.inlined[value] = Computation(tuple(self.axes), Load(local, place, value.tensor.dtype))
        self.stages.append(_Stage(target or value, body, is_full, local))

    def _spare(self, value: Value) -> Value | None:
        """The group's last result, if it is like `value` and may hold it for as long as it is read."""
        last = members(self.node)[-1].output
        is_free = all(stage.value is not last for stage in self.stages) and last in self.writer.outputs
        return last if is_free and last.type == value.type else None

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

    # ------------------------------------------------------------------ several rows together

    def _are_short(self, loops: list[Axis]) -> bool:
        return len(loops) == 1 and typical_product(self.inner) * TOGETHER <= ROW_LIMIT

    def _groups(self) -> list[list[_Stage]]:
        """The stages, in groups: one that reads what a reduction gives does not join the reduction's group."""
        groups: list[list[_Stage]] = [[]]
        awaited: set[object] = set()
        for stage in self.stages:
            if awaited & stage.read():
                groups.append([])
                awaited.clear()
            groups[-1].append(stage)
            if any(isinstance(part, Reduce) for part in walk(stage.body)):
                awaited.add(stage.local)
        return groups

    def _write_together(self, groups: list[list[_Stage]], axis: Axis, cost: float, inner: LoopNest) -> None:
        """A loop over a few rows at a time, and in it one over these rows for each group."""
        printer, names = self.writer.printer, self.writer.names
        first, count, place = names.fresh("first"), names.fresh("rows"), names.fresh("r")
        scope = self.writer.begin_phase(axis.extent, cost)
        scope.write(f"for (int64_t {first} = begin; {first} < end; {first} += {TOGETHER}) {{")
        block = scope.inner()
        block.write(f"const int64_t {count} = end - {first} < {TOGETHER} ? end - {first} : {TOGETHER};")
        printer.axis_names[axis] = names.fresh(axis.name)
        for number, group in enumerate(groups):
            read = {value for following in groups[number + 1 :] for stage in following for value in stage.read()}
            for stage in group:
                if stage.local in read:
                    self._declare(stage, block, f"[{TOGETHER}]", f"[{place}]")
            block.write(f"for (int64_t {place} = 0; {place} < {count}; ++{place}) {{")
            row = block.inner()
            row.write(f"const int64_t {printer.axis_names[axis]} = {first} + {place};")
            self._write_stages(group, row, inner)
            block.write("}")

    def _declare(self, stage: _Stage, scope: Scope, rows: str = "", row: str = "") -> None:
        """Declares the variable, or array, of what a stage gives, for each of some rows."""
        assert stage.local is not None
        name, dtype = self.writer.names.fresh(stage.value.name), stage.value.tensor.dtype
        if stage.is_full:
            extent = self.writer.size(dims.product(stage.local.shape))
            scope.write(f"{C_TYPES[dtype]} {name}{rows}[{extent}];")
            self.writer.pointers[stage.local] = name + row
        else:
            scope.write(f"{register_type(dtype)} {name}{rows};")
            self.writer.printer.locals[stage.local] = name + row

    # ------------------------------------------------------------------ one row

    def _write_stages(self, stages: list[_Stage], row: Scope, inner: LoopNest) -> None:
        for stage in stages:
            if stage.is_full:
                self._write_pass(stage, row, inner)
            else:
                self._write_row_result(stage, row)

    def _write_row_result(self, stage: _Stage, row: Scope) -> None:
        printer, writer = self.writer.printer, self.writer
        dtype = stage.value.tensor.dtype
        assert stage.local is not None
        for part in walk(stage.body):
            if isinstance(part, Reduce):
                write_invariants([part.body], part.axes, row, writer)
        text = printer.render(stage.body, row)
        if stage.local in printer.locals:
            row.write(f"{printer.locals[stage.local]} = {text};")
        else:
            printer.locals[stage.local] = writer.names.fresh(stage.value.name)
            row.write(f"const {register_type(dtype)} {printer.locals[stage.local]} = {text};")
        if stage.value in writer.outputs:
            place = printer.affine_text(moved(self._form(stage), self.replacement))
            row.write(f"{writer.pointers[stage.value]}[{place}] = {stored(printer.locals[stage.local], dtype)};")

    def _write_pass(self, stage: _Stage, row: Scope, inner: LoopNest) -> None:
        """One loop over the row: into an output, or into an array that lives as long as the row."""
        printer, writer = self.writer.printer, self.writer
        target, form = stage.value, self._form(stage)
        if stage.local is not None:
            target, form = stage.local, store_form(self.inner, stage.local.shape)
            if target not in writer.pointers:
                self._declare(stage, row)
        write_invariants([stage.body], inner.loops, row, writer)
        body = printer.open_loops(inner.loops, row, simd=is_vectorizable(stage.body))
        text = stored(printer.render(stage.body, body), stage.value.tensor.dtype)
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
