"""Sums down columns: where the terms of a sum are far apart in memory, and those of its neighbour beside them, a strip
of neighbours is summed at once, term by term.

    for j: sum = 0; for k: sum += x[k, j]; y[j] = f(sum)
    becomes for each strip of j: sums = 0; for k: for j: sums[j] += x[k, j]; then for j: y[j] = f(sums[j])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from partita.backends.cpu.costs import is_vectorizable
from partita.backends.cpu.expressions import Scope, linear_position
from partita.backends.cpu.kernel import KernelWriter
from partita.backends.cpu.loops import Form
from partita.backends.cpu.scalars import accumulate, is_narrow_float, register_type, rounded
from partita.backends.cpu.turned import least
from partita.ir import dims
from partita.ir.expression import Axis, Expr, Index, Load, Reduce, affine, replace_indices, walk
from partita.ir.graph import Value

FEWEST = 8  # neighbours that are worth a strip
SMALL = 64  # terms
WIDEST = 256  # elements of a strip: its sums stay in the first cache, and the lines of a row are asked for together


def sums_down_columns(loops: Sequence[Axis], bodies: Sequence[Expr]) -> bool:
    """Whether what loops store are sums (or products, or extremes) down columns of the innermost one."""
    if not loops or (dims.is_static(loops[-1].extent) and loops[-1].extent < FEWEST):
        return False
    sums = _sums(bodies)
    is_far = bool(sums) and all(_is_small(part) for part in sums)
    for part in sums:
        inner = walk(part.body)
        if part.combine.startswith("arg") or not part.axes or any(isinstance(e, Reduce) for e in inner):
            return False
        for load in (e for e in inner if isinstance(e, Load)):
            form = affine(linear_position(load))
            if form is None or not any(dims.same(form.get(loops[-1], 0), step) for step in (0, 1)):
                return False
            is_near = any(dims.same(form.get(part.axes[-1], 0), step) for step in (0, 1))
            is_far |= not is_near and dims.same(form.get(loops[-1], 0), 1)
        if not is_vectorizable(part.body) or part.dtype != part.body.dtype:
            return False
    return is_far


def _sums(bodies: Iterable[Expr]) -> list[Reduce]:
    return list(dict.fromkeys(part for body in bodies for part in walk(body) if isinstance(part, Reduce)))


def _is_small(part: Reduce) -> bool:
    """Whether a sum has no more terms than a window has places: a strip fills vectors better than its terms do."""
    steps = dims.product(axis.extent for axis in part.axes)
    return part.combine == "sum" and dims.is_static(steps) and steps <= SMALL


def write_strips(
    loops: Sequence[Axis], bodies: Mapping[Value, Expr], store: Form, cost: float, writer: KernelWriter
) -> None:
    """The loops, over strips: a step is one. `cost` is of an element, in nanoseconds."""
    printer, (*outer, along) = writer.printer, loops
    extent = along.extent
    width = int(extent) if dims.is_static(extent) and extent <= WIDEST else WIDEST
    strip, lane = Axis("strip", dims.ceil_div(extent, width)), Axis("c", width)
    place = Index(strip) * width + Index(lane)
    scope = writer.open_steps([*outer, strip], cost * width)
    limit = str(width)
    if not dims.is_static(extent) or extent % width:
        first = f"{writer.size(extent)} - {printer.axis_names[strip]} * {width}"
        scope.write(f"const int64_t width = {least(first, width)};")
        limit = "width"
    printer.axis_names[lane] = "c"
    bodies = {value: replace_indices(body, {along: place}) for value, body in bodies.items()}
    names: dict[Expr, str] = {part: _write_sums(part, limit, width, scope, writer) for part in _sums(bodies.values())}
    printer.count(*bodies.values())
    cell = _open_lanes(scope, limit)
    cell.memo.update(names)
    moved = {axis: step for axis, step in store.items() if axis is not along}
    step = store.get(along, 0)
    for value, body in bodies.items():
        writer.store(value, {**moved, strip: step * width, lane: step}, body, cell)
    scope.write("}")
    writer.close_steps()


def _write_sums(part: Reduce, limit: str, width: int, scope: Scope, writer: KernelWriter) -> str:
    """The loops of the sums of a strip; gives the text of one."""
    printer, kind = writer.printer, register_type(part.dtype)
    name = scope.names.fresh("sums" if part.combine == "sum" else part.combine)
    scope.write(f"{kind} {name}[{width}];")
    lanes = _open_lanes(scope, limit)
    lanes.write(f"{name}[c] = {printer.render(part.initial, lanes)};")
    scope.write("}")
    term = printer.open_loops(part.axes, scope)
    printer.count(part.body)
    lanes = _open_lanes(term, limit)
    text = printer.render(part.body, lanes)
    if part.combine in ("max", "min") and part.dtype.is_float:  # NaN where any is
        lanes.write(f"const {kind} element = {text};")
        sign = ">" if part.combine == "max" else "<"
        lanes.write(f"{name}[c] = (element {sign} {name}[c]) | (element != element) ? element : {name}[c];")
    else:
        lanes.write(accumulate(part.combine, f"{name}[c]", text, part.dtype))
    term.write("}")
    printer.close_loops(part.axes, scope)
    return rounded(f"{name}[c]", part.dtype) if is_narrow_float(part.dtype) else f"{name}[c]"


def _open_lanes(scope: Scope, limit: str) -> Scope:
    scope.write("#pragma omp simd")
    scope.write(f"for (int64_t c = 0; c < {limit}; ++c) {{")
    return scope.inner()
