"""Kernels that are one call of a function from a header of ours."""

from __future__ import annotations

from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.backends.cpu.scalars import literal
from partita.ir import dims
from partita.ir.graph import Node, Value
from partita.ir.operators import definition
from partita.ir.routine import Argument, Routine
from partita.ir.types import DType


def routine_of(node: Node) -> Routine | None:
    """The routine of a node that has neither an expression nor a procedure."""
    operator = definition(members(node)[0])
    return None if operator is None or operator.routine is None else operator.routine(members(node)[0])


def routine_kernel(node: Node, routine: Routine, writer: KernelWriter) -> Kernel:
    writer.helpers[routine.library] = f'#include "partita_{routine.library}.h"\n'
    writer.printer.makes_strings = True  # or fails in some other way: it gets the call
    scope = writer.begin_phase(routine.rows, routine.cost)
    arguments = ", ".join(_text(argument, writer) for argument in (*routine.arguments, *members(node)[0].outputs))
    scope.write(f"partita_{routine.function}(call, status, begin, end, {arguments});")
    return writer.finish()


def _text(argument: Argument, writer: KernelWriter) -> str:
    if isinstance(argument, Value):
        return writer.pointer(argument)
    if isinstance(argument, str):
        return literal(argument, DType.STRING)
    if isinstance(argument, float):
        return literal(argument, DType.FLOAT64)
    return literal(int(argument), DType.INT64) if dims.is_static(argument) else writer.size(argument)
