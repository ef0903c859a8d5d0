"""Operators that change nothing go, and chains of movements become one.

    before: model (float[2, 3] x) => (float[2, 3] y) {
                one = Constant <value = float {1}> ()
                a = Mul (x, one)
                b = Transpose <perm = [1, 0]> (a)
                c = Transpose <perm = [1, 0]> (b)
                d = Neg (c)
                e = Neg (d)
                y = Exp (e)
            }
    after:  model (float[2, 3] x) => (float[2, 3] y) { y = Exp (x) }

Every rule is exact for every float, NaN and -0 included: `x - 0` is `x`, but `x + 0` turns -0 into 0, and `x * 0` is
not 0. A constant is one of the program's (`Parameter.is_constant`): the values of weights play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import DataDependentError, ints, known
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import bodies
from partita.ir.operators.movement import slice_bounds
from partita.ir.types import DType, TensorType, UndeterminedTypeError

Rule = Callable[[Builder, Node], Value | None]

_RULES: dict[str, list[Rule]] = {}


def simplify_algebra(graph: Graph) -> bool:
    """Applies the rules below to every node, in subgraphs too, as long as one applies."""
    changed = False
    while _apply_rules(graph):
        changed = True
    return changed


def _apply_rules(graph: Graph) -> bool:
    changed = False
    for node in graph.nodes:
        for body in bodies(node).values():
            changed |= simplify_algebra(body)
        if node.domain or not node.outputs:
            continue
        for rule in _RULES.get(node.op_type, ()):
            value = _applied(rule, Builder(graph, node.name), node)
            if value is not None and not _carries_name(graph, node, value):
                graph.replace_node(node, [value, *[None] * (len(node.outputs) - 1)])
                changed = True
                break
    return changed


def _applied(rule: Rule, build: Builder, node: Node) -> Value | None:
    """What a rule gives; nothing where it asks for what is not known."""
    try:
        return rule(build, node)
    except (DataDependentError, UndeterminedTypeError):
        return None


def _carries_name(graph: Graph, node: Node, value: Value) -> bool:
    """Whether `node` is there for its name only, and has to be: an output that is also an input, say."""
    return (
        node.op_type == "Identity"
        and graph.is_output(node.output)
        and (value.producer is None or graph.is_output(value))
    )


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Registers a rule: it gives the value that takes the place of the node's output, or None."""

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            _RULES.setdefault(op_type, []).append(function)
        return function

    return register


def _if_same_type(value: Value | None, node: Node) -> Value | None:
    """`value`, if putting it in the node's place leaves the type as it is."""
    if value is None or not isinstance(value.type, TensorType) or not isinstance(node.output.type, TensorType):
        return value if value is not None and value.type == node.output.type else None
    if value.type.dtype is not node.output.type.dtype or None in (value.type.shape, node.output.type.shape):
        return None
    return value if dims.same_shape(value.shape, node.output.shape) else None


def producer(value: Value | None, *op_types: str) -> Node | None:
    """The node that makes `value`, if it is one of these."""
    made = value.producer if value is not None else None
    return made if made is not None and made.domain == "" and made.op_type in op_types else None


def uniform(value: Value | None) -> Any:
    """The number that every element of a constant is, or None. Weights are not looked at."""
    if value is None or value.parameter is None or not value.parameter.is_constant:
        return None
    array = value.parameter.array
    if array.size == 0 or array.dtype == object:
        return None
    first = array.reshape(-1)[0]
    return first if array.size == 1 or array.tobytes() == np.full_like(array, first).tobytes() else None


# ---------------------------------------------------------------------- nothing happens


@rule("Identity")
def identity(build: Builder, node: Node) -> Value | None:
    return node.operand(0)


@rule("Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile")
def same_type(build: Builder, node: Node) -> Value | None:
    """What these do shows in the type alone."""
    return _if_same_type(node.operand(0), node)


@rule("Sum", "Max", "Min", "Mean", "Concat")
def only_operand(build: Builder, node: Node) -> Value | None:
    return _if_same_type(node.operand(0), node) if len(node.operands) == 1 else None


@rule("Split")
def only_part(build: Builder, node: Node) -> Value | None:
    return _if_same_type(node.operand(0), node) if len(node.outputs) == 1 else None


@rule("Slice")
def whole_slice(build: Builder, node: Node) -> Value | None:
    x = node.operand(0)
    whole = all(
        dims.same(start, 0) and step == 1 and dims.same(size, dim)
        for (start, step, size), dim in zip(slice_bounds(node), x.shape, strict=True)
    )
    return _if_same_type(x, node) if whole else None


@rule("Pad")
def no_padding(build: Builder, node: Node) -> Value | None:
    pads = known(node.operand(1))
    return node.operand(0) if pads is not None and all(dims.same(pad, 0) for pad in ints(pads)) else None


@rule("Clip")
def no_bounds(build: Builder, node: Node) -> Value | None:
    return node.operand(0) if len(node.operands) == 1 else None


@rule("Transpose")
def order_kept(build: Builder, node: Node) -> Value | None:
    permutation = _permutation(node)
    return node.operand(0) if permutation == tuple(range(len(permutation))) else None


@rule("ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceMean")
def no_axes(build: Builder, node: Node) -> Value | None:
    axes = node.input(1)
    nothing = axes is None or axes.shape == (0,)
    return node.operand(0) if nothing and node.attributes.get("noop_with_empty_axes", 0) else None


# ---------------------------------------------------------------------- neutral operands

_NEUTRAL: dict[str, tuple[int, tuple[int, ...], str]] = {
    # operator: (the neutral number, the operands that may be it, its sign among floats, where that matters)
    "Add": (0, (0, 1), "-"),
    "Sub": (0, (1,), "+"),
    "Mul": (1, (0, 1), ""),
    "Div": (1, (1,), ""),
    "Pow": (1, (1,), ""),
    "And": (1, (0, 1), ""),
    "Or": (0, (0, 1), ""),
    "Xor": (0, (0, 1), ""),
    "BitwiseOr": (0, (0, 1), ""),
    "BitwiseXor": (0, (0, 1), ""),
    "BitShift": (0, (1,), ""),
}


@rule(*_NEUTRAL)
def neutral_operand(build: Builder, node: Node) -> Value | None:
    number, places, sign = _NEUTRAL[node.op_type]
    for place in places:
        found = uniform(node.operand(place))
        if found is None or found != number:
            continue
        if sign and node.operand(place).tensor.dtype.is_float and np.signbit(found) != (sign == "-"):
            continue
        other = _if_same_type(node.operand(1 - place), node)
        if other is not None:
            return other
    return None


@rule("Where")
def decided(build: Builder, node: Node) -> Value | None:
    condition, first, second = node.operands
    if first is second:
        return _if_same_type(first, node)
    choice = uniform(condition)
    return None if choice is None else _if_same_type(first if choice else second, node)


# ---------------------------------------------------------------------- twice


@rule("Neg", "Not", "BitwiseNot")
def undone(build: Builder, node: Node) -> Value | None:
    inner = producer(node.operand(0), node.op_type)
    return inner.operand(0) if inner is not None else None


@rule("Abs", "Relu", "Floor", "Ceil", "Round", "Sign")
def done_already(build: Builder, node: Node) -> Value | None:
    return node.operand(0) if producer(node.operand(0), node.op_type) is not None else None


@rule("Transpose")
def two_transposes(build: Builder, node: Node) -> Value | None:
    inner = producer(node.operand(0), "Transpose")
    if inner is None:
        return None
    first, second = _permutation(inner), _permutation(node)
    return build("Transpose", inner.operand(0), perm=tuple(first[axis] for axis in second))


def _permutation(node: Node) -> tuple[int, ...]:
    rank = node.operand(0).tensor.rank
    return tuple(axis % rank for axis in node.attributes.get("perm", reversed(range(rank))))


@rule("Transpose")
def transposed_ones(build: Builder, node: Node) -> Value | None:
    """Moving axes of size 1 moves no element."""
    x = node.operand(0)
    moved = [axis for axis in _permutation(node) if not (dims.is_static(x.shape[axis]) and x.shape[axis] == 1)]
    if moved != sorted(moved) or not dims.all_static(node.output.shape):
        return None
    return _reshaped(build, x, node.output.shape)


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def two_views(build: Builder, node: Node) -> Value | None:
    """A view of a view is one view."""
    inner = producer(node.operand(0), "Reshape", "Flatten", "Squeeze", "Unsqueeze")
    if inner is None:
        return None
    x = inner.operand(0)
    if dims.all_static(node.output.shape):
        return _if_same_type(x, node) or _reshaped(build, x, node.output.shape)
    if _if_same_type(x, node) is not None:
        return x
    target = known(node.input(1)) if node.op_type == "Reshape" else None
    if target is None or any(dims.is_static(dim) and dim == 0 for dim in ints(target)):
        return None  # a 0 keeps a dimension of the view in between
    return build("Reshape", x, node.operand(1))


def _reshaped(build: Builder, x: Value, shape: Sequence[int]) -> Value:
    return build("Reshape", x, build.ints(shape), allowzero=1 if 0 in shape else None)


@rule("Cast")
def two_casts(build: Builder, node: Node) -> Value | None:
    """A detour through a type that holds every value of the first one changes nothing."""
    inner = producer(node.operand(0), "Cast")
    if inner is None or not _holds(inner.output.tensor.dtype, inner.operand(0).tensor.dtype):
        return None
    return build("Cast", inner.operand(0), **node.attributes)


_DIGITS = {DType.FLOAT16: 11, DType.BFLOAT16: 8, DType.FLOAT32: 24, DType.FLOAT64: 53}
_WIDER = {DType.FLOAT16: (DType.FLOAT32, DType.FLOAT64), DType.BFLOAT16: (DType.FLOAT32, DType.FLOAT64)}


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is one of `wide`, as a number."""
    if narrow is DType.BOOL or wide is narrow:
        return wide.is_integer or wide in _DIGITS
    if narrow.is_integer and wide.is_integer:
        return wide.bits > narrow.bits and (wide.is_signed or not narrow.is_signed)
    if narrow.is_integer:
        return wide in (DType.FLOAT32, DType.FLOAT64) and narrow.bits <= _DIGITS[wide]
    return wide in _WIDER.get(narrow, (DType.FLOAT64,) if narrow is DType.FLOAT32 else ())


# ---------------------------------------------------------------------- less work


@rule("Concat")
def empty_parts(build: Builder, node: Node) -> Value | None:
    """Parts of size 0 add nothing."""
    axis = node.attributes["axis"]
    parts = [v for v in node.operands if not (dims.is_static(v.shape[axis]) and v.shape[axis] == 0)]
    return build("Concat", *parts, **node.attributes) if 0 < len(parts) < len(node.operands) else None


@rule("CastLike")
def cast(build: Builder, node: Node) -> Value | None:
    return build("Cast", node.operand(0), to=node.operand(1).tensor.dtype.onnx, **node.attributes)


_BROADCASTING = (
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "And", "Or", "Xor", "Equal", "Less", "LessOrEqual", "Greater",
    "GreaterOrEqual", "Where", "Sum", "Max", "Min", "Mean", "PRelu", "BitShift", "BitwiseAnd", "BitwiseOr",
    "BitwiseXor",
)  # fmt: skip


@rule(*_BROADCASTING)
def needless_expand(build: Builder, node: Node) -> Value | None:
    """An operand need not be expanded to a shape that the others have anyway."""
    for place, value in enumerate(node.operands):
        inner = producer(value, "Expand")
        if inner is None:
            continue
        operands = [inner.operand(0) if n == place else other for n, other in enumerate(node.operands)]
        shape = dims.broadcast_shapes(*(operand.shape for operand in operands))
        if dims.same_shape(shape, node.output.shape):
            return build(node.op_type, *operands, **node.attributes)
    return None
