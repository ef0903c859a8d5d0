"""Kernels from procedures: loops in order, on one thread, storing as they go."""

from __future__ import annotations

from partita.backends.cpu.expressions import Scope, linear_position, stored
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.source import C_TYPES
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Load, children
from partita.ir.graph import Node
from partita.ir.operators.registry import definition
from partita.ir.procedure import Loops, Procedure, Store

ALIGNMENT = 64  # bytes, between temporaries


def procedure_of(node: Node) -> Procedure | None:
    """The procedure of a node that has no expression."""
    operator = definition(members(node)[0])
    if operator is None or operator.compute is not None or operator.procedure is None:
        return None
    return operator.procedure(members(node)[0])


def workspace(procedure: Procedure) -> Dim:
    """Bytes of its temporaries."""
    return sum(_bytes(value.shape, value.tensor.dtype.itemsize) for value in procedure.temporaries)


def _bytes(shape: tuple[Dim, ...], itemsize: int) -> Dim:
    return dims.floor_div(dims.product(shape) * itemsize + ALIGNMENT - 1, ALIGNMENT) * ALIGNMENT


def procedure_kernel(procedure: Procedure, writer: KernelWriter) -> Kernel:
    scope = writer.scope()
    offset: Dim = 0
    for value in procedure.temporaries:
        name = writer.names.fresh(value.name)
        writer.pointers[value] = name
        writer.uses_workspace = True
        kind = C_TYPES[value.tensor.dtype]
        scope.write(f"{kind} *restrict {name} = ({kind} *)(workspace + {writer.size(offset)});")
        offset = offset + _bytes(value.shape, value.tensor.dtype.itemsize)
    for nest in procedure.nests:
        _write_loops(nest, writer, scope)
    return writer.finish()


def _write_loops(nest: Loops, writer: KernelWriter, scope: Scope) -> None:
    inner = writer.printer.open_loops(nest.axes, scope)
    for store in nest.stores:
        _write_store(store, writer, inner)
    writer.printer.close_loops(nest.axes, scope)


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
