"""Kernels from procedures: loops in order, storing as they go; rows are shared out to threads."""

from __future__ import annotations

from partita.backends.cpu.costs import element_cost, typical_product
from partita.backends.cpu.expressions import Scope, linear_position
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.scalars import stored
from partita.backends.source import C_TYPES
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Expr, Load, children
from partita.ir.graph import Node, Value
from partita.ir.operators import definition
from partita.ir.procedure import Loops, Procedure, Store

ALIGNMENT = 64  # bytes, between temporaries


def procedure_of(node: Node) -> Procedure | None:
    """The procedure of a node that has no expression."""
    operator = definition(members(node)[0])
    if operator is None or operator.compute is not None or operator.procedure is None:
        return None
    return operator.procedure(members(node)[0])


def workspace(procedure: Procedure) -> Dim:
    """Bytes of its temporaries; single numbers are variables."""
    return sum(_bytes(value) for value in procedure.temporaries if value.shape)


def _bytes(value: Value) -> Dim:
    size = dims.product(value.shape) * value.tensor.dtype.itemsize
    return dims.floor_div(size + ALIGNMENT - 1, ALIGNMENT) * ALIGNMENT


def procedure_kernel(procedure: Procedure, writer: KernelWriter) -> Kernel:
    rows = procedure.rows
    scope = writer.open_steps(rows, sum(map(_cost, procedure.nests))) if rows else writer.scope()
    offset: Dim = 0
    for value in procedure.temporaries:
        name = writer.names.fresh(value.name)
        writer.pointers[value] = name
        kind = C_TYPES[value.tensor.dtype]
        if not value.shape:
            scope.write(f"{kind} {name}[1];")
            continue
        writer.uses_workspace = True
        scope.write(f"{kind} *restrict {name} = ({kind} *)(workspace + {writer.size(offset)});")
        offset = offset + _bytes(value)
    for nest in procedure.nests:
        _write_loops(nest, writer, scope)
    if rows:
        writer.close_steps()
    return writer.finish()


def _cost(step: Store | Loops) -> float:
    """Nanoseconds, roughly."""
    inner = element_cost(step.body) if isinstance(step, Store) else sum(map(_cost, step.steps))
    return inner * typical_product(step.axes)


def _write_loops(nest: Loops, writer: KernelWriter, scope: Scope) -> None:
    outer = _write_condition(nest.when, "if ({}) {{", writer, scope)
    inner = writer.printer.open_loops(nest.axes, outer)
    if nest.until is not None:
        _write_condition(nest.until, "if ({}) break;", writer, inner)
    for step in nest.steps:
        if isinstance(step, Store):
            _write_store(step, writer, inner)
        else:
            _write_loops(step, writer, inner)
    writer.printer.close_loops(nest.axes, outer)
    if nest.when is not None:
        scope.write("}")


def _write_condition(condition: Expr | None, text: str, writer: KernelWriter, scope: Scope) -> Scope:
    """A line with the condition as it is now; gives the scope behind it."""
    if condition is None:
        return scope
    writer.printer.uses.clear()
    writer.printer.count(condition)
    fresh = Scope(scope.lines, scope.indent, writer.names)
    fresh.write(text.format(writer.printer.render(condition, fresh)))
    return scope.inner()


def _write_store(store: Store, writer: KernelWriter, scope: Scope) -> None:
    """One store. What it reads is read anew: an earlier store may have changed it."""
    printer = writer.printer
    printer.uses.clear()
    target = Load(store.value, store.indices, store.value.tensor.dtype)
    printer.count(store.body, *children(target), *([store.when] if store.when is not None else []))
    own = Scope(scope.lines, scope.indent, writer.names)
    own.write("{")
    body = printer.open_loops(store.axes, own.inner())
    if store.when is not None:
        body.write(f"if ({printer.render(store.when, body)}) {{")
        body = body.inner()
    text = stored(printer.render(store.body, body), store.value.tensor.dtype)
    place = printer.render(linear_position(target), body)
    body.write(f"{writer.pointers[store.value]}[{place}] = {text};")
    if store.when is not None:
        body.lines.append("    " * (body.indent - 1) + "}")
    printer.close_loops(store.axes, own.inner())
    own.write("}")
