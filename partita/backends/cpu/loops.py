"""Loop nests: which loops a computation needs, with neighbouring ones merged where memory does not tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from partita.backends.cpu.expressions import linear_position, strides
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import (
    Axis,
    Expr,
    Index,
    Literal,
    Load,
    Reduce,
    affine,
    children,
    replace_indices,
    rewrite,
    walk,
)
from partita.ir.types import DType

Form = dict[Axis | None, Dim]


def opaque_axes(roots: Sequence[Expr]) -> set[Axis]:
    """Axes that are used for more than the affine position of a load: loops over them cannot be merged."""
    found: set[Axis] = set()
    seen: set[Expr] = set()
    pending = list(roots)
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        if isinstance(current, Load) and affine(linear_position(current)) is not None:
            continue
        if isinstance(current, Index):
            found.add(current.axis)
        pending += children(current)
    return found


def position_forms(roots: Sequence[Expr]) -> list[Form]:
    """The affine positions of all loads in `roots`."""
    loads = dict.fromkeys(e for root in roots for e in walk(root) if isinstance(e, Load))
    forms = [affine(linear_position(load)) for load in loads]
    return [form for form in forms if form is not None]


def store_form(axes: Sequence[Axis], shape: Sequence[Dim]) -> Form:
    """The position of the element at `axes` in a tensor of `shape` (axes of size 1 count as 0)."""
    form: Form = dict(zip(axes, strides(shape), strict=True))
    form[None] = 0
    return form


def mergeable(outer: Axis, inner: Axis, forms: Sequence[Form], opaque: set[Axis]) -> bool:
    """Whether the two loops walk memory like one: every stride of the outer is the inner's times its extent."""
    if outer in opaque or inner in opaque:
        return False
    return all(dims.same(form.get(outer, 0), form.get(inner, 0) * inner.extent) for form in forms)


def merged_axes(axes: Sequence[Axis], forms: Sequence[Form], opaque: set[Axis]) -> list[list[Axis]]:
    """`axes` in groups, outermost first: each group becomes one loop. Loops of one step are dropped."""
    groups: list[list[Axis]] = []
    for axis in axes:
        if dims.is_static(axis.extent) and axis.extent == 1 and axis not in opaque:
            continue
        if groups and mergeable(groups[-1][-1], axis, forms, opaque):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups


class LoopNest:
    """The loops over some axes. After merging, a group's position is its innermost stride times one index."""

    def __init__(self, axes: Sequence[Axis], roots: Sequence[Expr], stores: Sequence[Form]) -> None:
        opaque = opaque_axes(roots)
        groups = merged_axes(axes, [*position_forms(roots), *stores], opaque)
        self.loops: list[Axis] = []
        self.replacement: dict[Axis, Expr] = {}
        for axis in axes:
            self.replacement[axis] = Literal(0, DType.INT64)
        for group in groups:
            if len(group) == 1:
                self.loops.append(group[0])
                self.replacement.pop(group[0])
                continue
            loop = Axis(group[-1].name, dims.product(axis.extent for axis in group))
            self.loops.append(loop)
            for axis in group[:-1]:
                self.replacement[axis] = Literal(0, DType.INT64)
            self.replacement[group[-1]] = Index(loop)


def moved(form: Form, replacement: Mapping[Axis, Expr]) -> Form:
    """A store's position in terms of the merged loops."""
    result: Form = {None: form.get(None, 0)}
    for axis, step in form.items():
        target = None if axis is None else replacement.get(axis, Index(axis))
        if isinstance(target, Index):
            result[target.axis] = step
    return result


def with_merged_reductions(body: Expr) -> Expr:
    """The body with neighbouring axes of each reduction merged."""

    def replace(current: Expr) -> Expr | None:
        if not isinstance(current, Reduce) or len(current.axes) < 2:
            return None
        nest = LoopNest(current.axes, [current.body], [])
        inner = replace_indices(current.body, nest.replacement)
        return Reduce(current.combine, tuple(nest.loops), inner, current.initial, current.dtype)

    return rewrite(body, replace)
