"""The C text of single operations on scalars.

Registers hold float for every floating type narrower than 32 bits: a load widens, every operation rounds back to what
the type can represent, a store narrows exactly. Integers wrap around (the compiler is told `-fwrapv`); division by
zero, wide shifts and the like go through functions of partita_scalar.h, which define them.
"""

from __future__ import annotations

import math

from partita.backends.source import C_TYPES, c_string
from partita.ir.types import DType

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
LOGIC = {"logical_and": "&&", "logical_or": "||", "logical_xor": "!="}
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
BITS = {"bit_and": "&", "bit_or": "|", "bit_xor": "^"}
LIBM = frozenset(
    "exp log log1p expm1 sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh "
    "erf sqrt floor ceil rint pow fmod".split()
)
VECTORIZED = frozenset({"exp", "exp_below", "tanh", "erf", "normal_cdf"})  # of float: own functions, which vectorize


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
        return conversion(text, dtype, dtype, saturate=True)
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
        return f"{function}{'' if dtype is DType.FLOAT64 else 'f'}({', '.join(texts)})"
    suffix = register_type(dtype) if dtype.is_float else short_name(dtype)
    return f"partita_{function}_{suffix}({', '.join(texts)})"


def conversion(text: str, source: DType, target: DType, saturate: bool) -> str:
    """A cast as ONNX defines it; partita_scalar.h defines what that leaves open (NaN or too large to an integer)."""
    if target is DType.BOOL:
        return f"({text} != 0)"
    if target.is_float:
        if is_narrow_float(target):
            suffix = "_saturated" if saturate and "FLOAT8" in target.name else ""
            return f"partita_{short_name(target)}_round{suffix}((float)({text}))"
        return f"({C_TYPES[target]})({text})"
    if source.is_float:
        wide = "double" if source is DType.FLOAT64 else "float"
        through = DType.INT32 if target.bits < 32 else DType.INT64 if target is DType.UINT32 else target
        number = f"partita_{short_name(through)}_from_{wide}({text})"
        return number if through is target else conversion(number, through, target, saturate)
    return f"partita_{short_name(target)}_wrap({text})" if target.bits < 8 else f"(({C_TYPES[target]})({text}))"


def string_conversion(text: str, source: DType, target: DType) -> str:
    """A Cast to or from strings; a string that says no number fails the run."""
    if target is DType.STRING:
        if source.is_float:
            return f"partita_string_shortest(call, status, {text}, {int(source is not DType.FLOAT64)})"
        if source is DType.BOOL:
            return f'partita_string_print(call, status, "%s", {text} ? "True" : "False")'
        letter, kind = ("lld", "long long") if source.is_signed else ("llu", "unsigned long long")
        return f'partita_string_print(call, status, "%{letter}", ({kind})({text}))'
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
