"""Prints expressions as C: scalars, with a name for everything that is used twice.

Registers hold float for every floating type narrower than 32 bits: a load widens, every operation rounds back to what
the type can represent, a store narrows exactly. Integers wrap around (the compiler is told `-fwrapv`); division by
zero, wide shifts and the like go through functions of partita_scalar.h, which define them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from partita.backends.source import C_TYPES, Names, c_string
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Call, Cast, Expr, Index, Literal, Load, Reduce, Size, affine, children, walk
from partita.ir.types import DType

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
LOGIC = {"logical_and": "&&", "logical_or": "||", "logical_xor": "!="}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
BITS = {"bit_and": "&", "bit_or": "|", "bit_xor": "^"}
LIBM = frozenset(
    "exp log log1p expm1 sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf sqrt floor ceil rint".split()
)
VECTORIZED = frozenset({"exp", "tanh", "erf"})  # of float: own functions, which vectorize

Address = Callable[[Load, str], str]


def register_type(dtype: DType) -> str:
    """The C type that holds a scalar while it is computed with."""
    if dtype.is_float and dtype is not DType.FLOAT64:
        return "float"
    return C_TYPES[dtype]


def is_narrow_float(dtype: DType) -> bool:
    return dtype.is_float and dtype not in (DType.FLOAT32, DType.FLOAT64)


def short_name(dtype: DType) -> str:
    """The name of a type in the functions of partita_scalar.h."""
    return dtype.name.lower()


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
        inner.write(f"{seen} |= {term} != {term};")
        self.close_loops(expression.axes, scope)
        scope.write(f"if ({seen})")
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


# ---------------------------------------------------------------------- the text of single operations


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


def literal(value: float | int | bool | complex | str, dtype: DType) -> str:
    if isinstance(value, str) or dtype is DType.STRING:
        value = value if isinstance(value, str) else ""  # what 0 is among strings
        return f"((partita_string){{{c_string(value)}, {len(value.encode('utf-8', 'surrogateescape'))}}})"
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if dtype.is_float:
        number = float(value.real)
        suffix = "" if dtype is DType.FLOAT64 else "f"
        if math.isnan(number):
            return "((float)NAN)"
        if math.isinf(number):
            return "((float)INFINITY)" if number > 0 else "(-(float)INFINITY)"
        text = float(number).hex() if abs(number) >= 1e16 or (number and abs(number) < 1e-5) else repr(number)
        if dtype is not DType.FLOAT64 and "x" not in text:
            text = repr(float(text))
        text = text if any(c in text for c in ".xen") else f"{text}.0"
        return f"{text}{suffix}" if number >= 0 and not str(number).startswith("-") else f"({text}{suffix})"
    number = int(value.real)
    if dtype is DType.UINT64:
        return f"UINT64_C({number})"
    if dtype is DType.INT64 and number == -(2**63):
        return "INT64_MIN"
    if dtype is DType.INT64 and abs(number) > 2**31 - 1:
        return f"INT64_C({number})"
    if dtype is DType.INT32 and number == -(2**31):
        return "INT32_MIN"
    if dtype is DType.UINT32:
        return f"{number}u"
    return str(number) if number >= 0 else f"({number})"


def widened(text: str, dtype: DType) -> str:
    """A stored element as a register. The unused bits of a byte that holds a narrow integer may be anything."""
    if dtype.is_integer and dtype.bits < 8:
        return f"partita_{short_name(dtype)}_wrap({text})"
    return f"partita_{short_name(dtype)}_to_float({text})" if is_narrow_float(dtype) else text


def stored(text: str, dtype: DType) -> str:
    """A register as a stored element."""
    return f"partita_{short_name(dtype)}_from_float({text})" if is_narrow_float(dtype) else text


def rounded(text: str, dtype: DType) -> str:
    """A result held to what its type can represent."""
    if is_narrow_float(dtype):
        return f"partita_{short_name(dtype)}_round({text})"
    if dtype.is_integer and dtype.bits < 32:
        return f"partita_{short_name(dtype)}_wrap({text})" if dtype.bits < 8 else f"({C_TYPES[dtype]})({text})"
    return text


def scalar_call(function: str, texts: list[str], dtype: DType, result: DType) -> str:
    """One scalar function of operands of type `dtype`."""
    if dtype is DType.STRING and function in ("eq", "ne"):
        return f"({'!' if function == 'ne' else ''}partita_string_equal({texts[0]}, {texts[1]}))"
    if dtype is DType.STRING and function in COMPARE:
        return f"(partita_string_order({texts[0]}, {texts[1]}) {COMPARE[function]} 0)"
    if function in COMPARE:
        return f"({texts[0]} {COMPARE[function]} {texts[1]})"
    if function in LOGIC:
        return f"({texts[0]} {LOGIC[function]} {texts[1]})"
    if function == "logical_not":
        return f"(!{texts[0]})"
    if function == "bit_not":
        return f"(~{texts[0]})"
    if function in BITS:
        return f"({texts[0]} {BITS[function]} {texts[1]})"
    if function in ("isnan", "isinf"):
        return f"({texts[0]} != {texts[0]})" if function == "isnan" else f"(isinf({texts[0]}) != 0)"
    if function == "bit_cast":
        kinds = f"{C_TYPES[dtype]} from; {C_TYPES[result]} to;"
        return widened(f"((union {{ {kinds} }}){{ .from = {stored(texts[0], dtype)} }}).to", result)
    if function == "neg":
        return f"(-{texts[0]})"
    if function in INFIX and (dtype.is_float or function != "div"):
        return f"({texts[0]} {INFIX[function]} {texts[1]})"
    if dtype.is_float and dtype is not DType.FLOAT64 and function in VECTORIZED:
        return f"partita_{function}_float({texts[0]})"
    if dtype.is_float and function in LIBM:
        return f"{function}{'' if dtype is DType.FLOAT64 else 'f'}({texts[0]})"
    suffix = register_type(dtype) if dtype.is_float else short_name(dtype)
    return f"partita_{function}_{suffix}({', '.join(texts)})"


def conversion(text: str, source: DType, target: DType, saturate: bool) -> str:
    """A cast as ONNX defines it; partita_scalar.h defines what that leaves open (NaN or too large to an integer)."""
    if target is DType.BOOL:
        return f"({text} != 0)"
    if target.is_float:
        if is_narrow_float(target):
            suffix = "" if saturate or "FLOAT8" not in target.name else "_unsaturated"
            return f"partita_{short_name(target)}_round{suffix}((float)({text}))"
        return f"({C_TYPES[target]})({text})"
    if source.is_float:
        wide = "double" if source is DType.FLOAT64 else "float"
        return f"partita_{short_name(target)}_from_{wide}({text})"
    return f"partita_{short_name(target)}_wrap({text})" if target.bits < 8 else f"(({C_TYPES[target]})({text}))"


def string_conversion(text: str, source: DType, target: DType) -> str:
    """A Cast to or from strings; a string that says no number fails the run."""
    if target is DType.STRING:
        if source in (DType.FLOAT64, DType.BOOL):
            return f"partita_string_from_{short_name(source)}(call, status, {text})"
        if source.is_float:
            return f"partita_string_from_float32(call, status, {text})"
        kind = "int64" if source.is_signed else "uint64"
        return f"partita_string_from_{kind}(call, status, {text})"
    if target.is_float:
        number = f"partita_string_to_float64(call, status, {text})"
        return number if target is DType.FLOAT64 else f"(float){number}"
    number = f"partita_string_to_{'int64' if target.is_signed else 'uint64'}(call, status, {text})"
    return f"({number} != 0)" if target is DType.BOOL else f"(({C_TYPES[target]}){number})"


def accumulate(combine: str, total: str, term: str, dtype: DType) -> str:
    """The statement that adds one more term to a reduction."""
    if combine == "sum":
        return f"{total} += {term};"
    if combine == "prod":
        return f"{total} *= {term};"
    suffix = register_type(dtype) if dtype.is_float else short_name(dtype)
    return f"{total} = partita_{combine}_{suffix}({total}, {term});"


def _free_axes(expression: Expr) -> set[Axis]:
    """The loops around an expression that it depends on."""
    parts = walk(expression)
    own = {axis for part in parts if isinstance(part, Reduce) for axis in part.axes}
    return {part.axis for part in parts if isinstance(part, Index)} - own
