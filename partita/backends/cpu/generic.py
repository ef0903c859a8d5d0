"""Kernels from expressions: any group of operators that has no kernel of its own.

Shapes of loop nests. Plain, here: loops over the output, the whole expression inside. Rows (rows.py): where a reduction
is read by what runs over the same elements. Turned (turned.py): where neighbours of the output are far apart in an
operand. Strips (strips.py): where the terms of a sum are.
"""

from __future__ import annotations

from partita.backends.cpu.costs import element_cost, is_vectorizable, typical_product
from partita.backends.cpu.invariants import write_invariants
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.loops import LoopNest, moved, store_form, with_merged_reductions
from partita.backends.cpu.rows import RowKernel, rows_of
from partita.backends.cpu.strips import sums_down_columns, write_strips
from partita.backends.cpu.turned import turn, write_turned
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Computation, Index, at, replace_indices, substitute
from partita.ir.graph import Node, Value
from partita.ir.operators import definition


def generic_kernel(node: Node, writer: KernelWriter) -> Kernel:
    """The kernel of a node by its expressions."""
    rows = rows_of(node)
    if rows is None:
        _write_plain(node, writer)
    else:
        RowKernel(node, writer, rows).write()
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
    bodies = {value: with_merged_reductions(body) for value, body in bodies.items()}
    cost = sum(map(element_cost, bodies.values()))
    turned = turn(nest.loops, list(bodies.values()), moved(form, nest.replacement))
    if turned is not None:
        write_turned(turned, nest.loops, bodies, moved(form, nest.replacement), cost, writer)
        return
    if sums_down_columns(nest.loops, list(bodies.values())):
        write_strips(nest.loops, bodies, moved(form, nest.replacement), cost, writer)
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
