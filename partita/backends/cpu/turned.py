"""Loops that read across: where neighbours in a result are far apart in an operand, and its neighbours far apart in the
result, squares of the operand are turned in vector registers, and the loops read these.

    y[i, j] = f(x[j, i], z[i, j])
    becomes, square by square: turned = x[j.., i..]; y[i, j] = f(turned[i, j], z[i, j])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from partita.backends.cpu.expressions import is_guard, linear_position
from partita.backends.cpu.kernel import KernelWriter
from partita.backends.cpu.loops import Form
from partita.backends.source import C_TYPES
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Call, Expr, Load, Reduce, affine, rewrite, walk
from partita.ir.graph import Value
from partita.ir.types import DType, TensorType

FEWEST = 8  # elements along a side that are worth turning
AHEAD = 4  # squares between one that is stored and the one whose memory is asked for
TURNED = (DType.FLOAT32, DType.INT32, DType.UINT32)  # four bytes each


@dataclass(frozen=True, slots=True)
class Turn:
    """The loads to turn, with their positions: neighbours along `across` are neighbours in memory. `along` is the axis
    whose neighbours are neighbours in the result."""

    along: Axis
    across: Axis
    loads: dict[Load, Form]


def turn(loops: Sequence[Axis], bodies: Sequence[Expr], store: Form) -> Turn | None:
    """The loads that read across the loops of a result stored at `store`; None where there are none to turn."""
    if len(loops) < 2 or not dims.same(store.get(loops[-1], 0), 1):
        return None
    parts = [part for body in bodies for part in walk(body)]
    if any(isinstance(part, Reduce) for part in parts):
        return None
    loads: dict[Load, Form] = {}
    found: set[Axis] = set()
    for load in dict.fromkeys(part for part in parts if isinstance(part, Load)):
        form = affine(linear_position(load))
        if form is None or any(dims.same(form.get(loops[-1], 0), step) for step in (0, 1)):
            continue
        axes = [axis for axis in loops[:-1] if dims.same(form.get(axis, 0), 1)]
        if len(axes) == 1 and load.dtype in TURNED:
            loads[load] = form
            found.update(axes)
    guarded = {load for part in parts for load in _guarded(part)}
    if len(found) != 1 or not guarded.isdisjoint(loads):
        return None
    (across,) = found
    if any(dims.is_static(axis.extent) and axis.extent < FEWEST for axis in (loops[-1], across)):
        return None
    return Turn(loops[-1], across, loads)


def _guarded(part: Expr) -> list[Load]:
    """The loads that a condition on indices protects."""
    if not isinstance(part, Call) or part.function != "select" or not is_guard(part.arguments[0]):
        return []
    return [load for branch in part.arguments[1:] for load in walk(branch) if isinstance(load, Load)]


def write_turned(
    turned: Turn, loops: Sequence[Axis], bodies: Mapping[Value, Expr], store: Form, cost: float, writer: KernelWriter
) -> None:
    """The loops, over squares: a step is a row of them. `cost` is of an element, in nanoseconds."""
    printer, size, side = writer.printer, writer.size, writer.target.width
    writer.helpers["partita_turn"] = '#include "partita_turn.h"\n'
    along, across = turned.along, turned.across
    rows = Axis("square", dims.ceil_div(across.extent, side))
    outer = [rows if axis is across else axis for axis in loops if axis is not along]
    step = writer.open_steps(outer, cost * side * dims.typical(along.extent))
    step.write(f"const int64_t top = {printer.axis_names[rows]} * {side};")
    step.write(f"const int64_t height = {least(f'{size(across.extent)} - top', side)};")
    step.write(f"for (int64_t left = 0; left < {size(along.extent)}; left += {side}) {{")
    square = step.inner()
    square.write(f"const int64_t width = {least(f'{size(along.extent)} - left', side)};")
    printer.axis_names |= {along: "left", across: "top"}
    locals_of: dict[Load, Load] = {}
    for load, form in turned.loads.items():
        name = writer.names.fresh("turned")
        square.write(f"{C_TYPES[load.dtype]} {name}[{side * side}] __attribute__((aligned({side * 4})));")
        source = f"{writer.pointer(load.value)} + {printer.affine_text(form)}"
        square.write(f"partita_turn_{side}({source}, {_step(form, along, writer)}, width, height, {name});")
        local = Value(name, TensorType(load.dtype, ()))
        printer.locals[local] = f"{name}[r * {side} + c]"
        locals_of[load] = Load(local, (), load.dtype)
    printer.axis_names |= {along: "(left + c)", across: "(top + r)"}
    replaced = {value: rewrite(body, lambda e: locals_of.get(e)) for value, body in bodies.items()}  # type: ignore[call-overload]
    printer.count(*replaced.values())
    square.write("for (int64_t r = 0; r < height; ++r) {")
    line = square.inner()
    printer.axis_names |= {along: f"(left + {AHEAD * side})"}
    for value in bodies:
        line.write(f"__builtin_prefetch(&{writer.pointers[value]}[{printer.affine_text(store)}], 1);")
    printer.axis_names |= {along: "(left + c)"}
    line.write("#pragma omp simd")
    line.write("for (int64_t c = 0; c < width; ++c) {")
    cell = line.inner()
    for value, body in replaced.items():
        writer.store(value, store, body, cell)
    line.write("}")
    square.write("}")
    step.write("}")
    writer.close_steps()


def _step(form: Form, axis: Axis, writer: KernelWriter) -> str:
    step: Dim = form[axis]
    return writer.size(dims.simplified(step))


def least(count: str, most: int) -> str:
    """The C text of a count, or of the most where that is less."""
    return f"{count} < {most} ? {count} : {most}"
