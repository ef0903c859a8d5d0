"""Prints expressions as C: scalars, with a name for everything that is used twice, and loops for reductions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from partita.backends.cpu.scalars import (
    accumulate,
    conversion,
    is_narrow_float,
    literal,
    register_type,
    rounded,
    scalar_call,
    string_conversion,
    widened,
)
from partita.backends.source import Names
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Call, Cast, Expr, Index, Literal, Load, Reduce, Size, affine, children, walk
from partita.ir.graph import Value
from partita.ir.types import DType


class Scope:
    """Statements being written at one depth of a loop nest, and the names given to values so far."""

    def __init__(self, lines: list[str], indent: int, names: Names, memo: dict[Expr, str] | None = None) -> None:
        self.lines = lines
        self.indent = indent
        self.names = names
        self.memo = dict(memo or {})

    def write(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def inner(self) -> Scope:
        """A scope one block deeper: sees the names given here, and keeps its own to itself."""
        return Scope(self.lines, self.indent + 1, self.names, self.memo)


class ExpressionPrinter:
    """Prints expressions of one kernel. `pointers` names the C pointer of each loaded value, `strides` gives its
    strides (elements), `extents` prints dimensions."""

    def __init__(self, pointers: Mapping[object, str], size: Callable[[Dim], str]) -> None:
        self.pointers = pointers
        self.size = size
        self.axis_names: dict[Axis, str] = {}
        self.locals: dict[object, str] = {}  # values that live in C variables: what a load of them prints
        self.uses: Counter[Expr] = Counter()
        self.used: set[object] = set()  # values whose pointer the text mentions
        self.checks_indices = False
        self.makes_strings = False

    @property
    def can_fail(self) -> bool:
        return self.checks_indices or self.makes_strings

    def count(self, *roots: Expr) -> None:
        """Notes how often each subexpression is used, to name what is used twice."""
        seen: set[Expr] = set()
        pending = list(roots)
        self.uses.update(roots)
        while pending:
            current = pending.pop()
            if current in seen:
                continue
            seen.add(current)
            parts = children(current)
            self.uses.update(parts)
            pending += parts

    # ------------------------------------------------------------------ scalars

    def render(self, expression: Expr, scope: Scope, *, named: bool = True) -> str:
        """The C text of a scalar; statements it needs are written to `scope` first. Without `named`, nothing but the
        text is made: what stands behind a condition must not be computed ahead of it."""
        if expression in scope.memo:
            return scope.memo[expression]
        text = self._text(expression, scope, named)
        shared = self.uses[expression] > 1 and isinstance(expression, Load | Call | Cast)
        if shared and expression.dtype is DType.INT64:
            shared = not is_guard(expression)  # subscripts stay where they are used
        if isinstance(expression, Reduce) or (named and shared):
            if not isinstance(expression, Reduce):
                name = scope.names.fresh("t")
                scope.write(f"const {register_type(expression.dtype)} {name} = {text};")
                text = name
            scope.memo[expression] = text
        return text

    def _text(self, expression: Expr, scope: Scope, named: bool) -> str:
        match expression:
            case Literal(value=value, dtype=dtype):
                return literal(value, dtype)
            case Index(axis=axis):
                return self.axis_names[axis]
            case Size(dim=dim):
                return self.size(dim)
            case Load():
                return self._load(expression, scope, named)
            case Cast(argument=argument, dtype=dtype) if DType.STRING in (argument.dtype, dtype):
                self.makes_strings = True  # or reads numbers, which may be none
                text = self.render(argument, scope, named=named)
                return rounded(string_conversion(text, argument.dtype, dtype), dtype)
            case Call(function="string_concat", arguments=arguments):
                self.makes_strings = True
                first, second = (self.render(part, scope, named=named) for part in arguments)
                return f"partita_string_concat(call, status, {first}, {second})"
            case Cast(argument=argument, dtype=dtype, saturate=saturate):
                return conversion(self.render(argument, scope, named=named), argument.dtype, dtype, saturate)
            case Call(function="select", arguments=(condition, first, second)):
                keep = named and not is_guard(condition)
                test = self.render(condition, scope, named=named)
                texts = [self.render(branch, scope, named=keep) for branch in (first, second)]
                return f"({test} ? {texts[0]} : {texts[1]})"
            case Call(function="checked_index", arguments=(index, limit)):
                self.checks_indices = True
                texts = [self.render(part, scope, named=named) for part in (index, limit)]
                return f"partita_index({texts[0]}, {texts[1]}, &bad_index)"
            case Call(function=function, arguments=arguments, dtype=dtype):
                texts = [self.render(argument, scope, named=named) for argument in arguments]
                return rounded(scalar_call(function, texts, arguments[0].dtype, dtype), dtype)
            case Reduce():
                return self.reduce(expression, scope)
        raise TypeError(f"no C for {expression!r}")

    def _load(self, load: Load, scope: Scope, named: bool) -> str:
        if load.value in self.locals:
            return self.locals[load.value]
        self.used.add(load.value)
        text = f"{self.pointers[load.value]}[{self.position(load, scope, named)}]"
        return widened(text, load.dtype)

    def position(self, load: Load, scope: Scope, named: bool = True) -> str:
        """The subscript of a load, as an affine form where it is one."""
        linear = linear_position(load)
        form = affine(linear)
        if form is None:
            return self.render(linear, scope, named=named)
        return self.affine_text(form)

    def affine_text(self, form: Mapping[Axis | None, Dim]) -> str:
        terms: list[str] = []
        for axis, coefficient in form.items():
            if dims.same(coefficient, 0):
                continue
            text = self.size(dims.simplified(coefficient))
            if axis is None:
                terms.append(text)
            else:
                terms.append(self.axis_names[axis] if text == "1" else f"{self.axis_names[axis]} * {text}")
        return " + ".join(terms).replace("+ -", "- ") or "0"

    # ------------------------------------------------------------------ reductions

    def reduce(self, expression: Reduce, scope: Scope) -> str:
        """Writes the loops of a reduction; gives the name of the result. Reductions inside it that stay the same over
        its loops come before them."""
        bound = {axis for part in walk(expression) if isinstance(part, Reduce) for axis in part.axes}
        for part in walk(expression.body):
            if isinstance(part, Reduce) and not bound & _free_axes(part):
                self.render(part, scope)
        if expression.combine.startswith("arg"):
            return self._arg_reduce(expression, scope)
        kind = register_type(expression.dtype)
        total = scope.names.fresh("sum" if expression.combine == "sum" else expression.combine)
        scope.write(f"{kind} {total} = {self.render(expression.initial, scope)};")
        if expression.combine in ("max", "min") and expression.dtype.is_float:
            return self._extreme(expression, total, scope)
        reordered = f"+ : {total}" if expression.combine == "sum" and expression.dtype.is_float else None
        inner = self.open_loops(expression.axes, scope, reductions=reordered)
        term = self.render(expression.body, inner)
        inner.write(accumulate(expression.combine, total, term, expression.dtype))
        self.close_loops(expression.axes, scope)
        return rounded(total, expression.dtype) if is_narrow_float(expression.dtype) else total

    def _extreme(self, expression: Reduce, total: str, scope: Scope) -> str:
        """The largest or smallest of all, which is NaN if any is: in any order, so that the loop vectorizes."""
        seen, term = scope.names.fresh("has_nan"), scope.names.fresh("element")
        scope.write(f"int {seen} = 0;")
        reductions = f"{expression.combine} : {total}) reduction(| : {seen}"
        inner = self.open_loops(expression.axes, scope, reductions=reductions)
        kind, sign = register_type(expression.dtype), ">" if expression.combine == "max" else "<"
        inner.write(f"const {kind} {term} = {self.render(expression.body, inner)};")
        inner.write(f"{total} = {term} {sign} {total} ? {term} : {total};")
        limit = self.render(expression.initial, scope)
        inner.write(f"{seen} |= ({term} != {term}) | PARTITA_BEYOND({term} {sign} {limit});")
        self.close_loops(expression.axes, scope)
        scope.write(f"{total} = PARTITA_IS_NONE_BEYOND({seen}) ? {limit} : {total};")
        scope.write(f"if ({seen} & 1)")
        scope.write(f"    {total} = ({kind})NAN;")
        return total

    def _arg_reduce(self, expression: Reduce, scope: Scope) -> str:
        """The index of an extreme along one axis; NaN counts as the most extreme, as in NumPy."""
        (axis,) = expression.axes
        best, place = scope.names.fresh("best"), scope.names.fresh("place")
        better = (">" if "max" in expression.combine else "<") + ("=" if expression.combine.endswith("last") else "")
        scope.write(f"{register_type(expression.body.dtype)} {best} = 0;")
        scope.write(f"int64_t {place} = 0;")
        inner = self.open_loops([axis], scope)
        name = self.axis_names[axis]
        candidate = scope.names.fresh("candidate")
        text = self.render(expression.body, inner)
        inner.write(f"const {register_type(expression.body.dtype)} {candidate} = {text};")
        test = f"{name} == 0 || {candidate} {better} {best}"
        if expression.body.dtype.is_float:
            test += f" || ({candidate} != {candidate} && {best} == {best})"
        inner.write(f"if ({test}) {{")
        inner.write(f"    {best} = {candidate};")
        inner.write(f"    {place} = {name};")
        inner.write("}")
        self.close_loops([axis], scope)
        return place

    def open_loops(
        self, axes: Sequence[Axis], scope: Scope, *, reductions: str | None = None, simd: bool = False
    ) -> Scope:
        """Writes `for` headers, outermost first; gives the scope of the innermost body."""
        for place, axis in enumerate(axes):
            name = scope.names.fresh(axis.name)
            self.axis_names[axis] = name
            if place == len(axes) - 1:
                if reductions is not None:
                    scope.write(f"#pragma omp simd reduction({reductions})")
                elif simd:
                    scope.write("#pragma omp simd")
            scope.write(f"for (int64_t {name} = 0; {name} < {self.size(axis.extent)}; ++{name}) {{")
            scope = scope.inner()
        return scope

    def close_loops(self, axes: Sequence[Axis], scope: Scope) -> None:
        for depth in reversed(range(len(axes))):
            scope.lines.append("    " * (scope.indent + depth) + "}")


# ---------------------------------------------------------------------- places


def matrix_position(value: Value, batch: Sequence[Axis]) -> Mapping[Axis | None, Dim]:
    """Where a value's matrix lies, in elements: steps of the leading axes `batch`, of which it may lack some, or have
    one element for all."""
    zero = Literal(0, DType.INT64)
    lead = value.shape[:-2]
    indices = [
        zero if dims.is_static(dim) and dim == 1 else Index(axis)
        for dim, axis in zip(lead, batch[len(batch) - len(lead) :], strict=True)
    ]
    form: Mapping[Axis | None, Dim] | None = affine(
        linear_position(Load(value, (*indices, zero, zero), value.tensor.dtype))
    )
    assert form is not None
    return form


def strides(shape: Sequence[Dim]) -> list[Dim]:
    """Elements between neighbours along each axis of a dense row-major tensor."""
    result: list[Dim] = []
    step: Dim = 1
    for dim in reversed(shape):
        result.insert(0, step)
        step = dims.simplified(step * dim)
    return result


def linear_position(load: Load) -> Expr:
    """The position of a loaded element in row-major order."""
    position: Expr = Literal(0, DType.INT64)
    for index, stride in zip(load.indices, strides(load.value.shape), strict=True):
        step = Literal(stride, DType.INT64) if dims.is_static(stride) else Size(stride)
        position = position + index * step
    return position


def is_guard(condition: Expr) -> bool:
    """Whether a condition is about indices alone: then it protects the loads behind it."""
    pending, seen = [condition], set()
    while pending:
        current = pending.pop()
        if isinstance(current, Load | Reduce):
            return False
        if current not in seen:
            seen.add(current)
            pending += children(current)
    return True


def _free_axes(expression: Expr) -> set[Axis]:
    """The loops around an expression that it depends on."""
    parts = walk(expression)
    own = {axis for part in parts if isinstance(part, Reduce) for axis in part.axes}
    return {part.axis for part in parts if isinstance(part, Index)} - own
