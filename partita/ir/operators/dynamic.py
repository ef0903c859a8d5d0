"""Operators whose result is shaped by data: the sizes are computed, observed, and then known by name.

What follows an observation is an ordinary node with symbolic dimensions. Where the operator's own form says more than
sizes (a negative start, a step), its counterpart in the domain `partita` reads that from memory while it runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.expression import Axis, Computation, Expr, Index
from partita.ir.formula import cast, compute, load, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import (
    axis_of,
    known,
    normalized_axes,
    required_ints,
)
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.operators.movement import padded, window_of
from partita.ir.operators.reduction import REDUCTIONS
from partita.ir.operators.registry import computes, sized_by_data
from partita.ir.types import DType

INT64 = DType.INT64


# ---------------------------------------------------------------------- small vectors of sizes, as nodes


def wide(build: Builder, value: Value) -> Value:
    """Integers as int64."""
    return value if value.tensor.dtype is INT64 else build("Cast", value, to=INT64.onnx)


def flat(build: Builder, value: Value) -> Value:
    """A vector of what may be a scalar."""
    return value if value.shape else build("Unsqueeze", value, build.ints([0]))


def from_front(build: Builder, axes: Value, rank: int) -> Value:
    """Axes counted from the front."""
    axes = flat(build, wide(build, axes))
    return build("Where", build("Less", axes, build.ints([0])), build("Add", axes, build.ints([rank])), axes)


def is_among(build: Builder, axes: Value, rank: int) -> Value:
    """Matrix [axes, rank] of whether an axis given is the one at that place, as 0 and 1."""
    places = build.ints(range(rank))
    match = build("Equal", build("Unsqueeze", from_front(build, axes, rank), build.ints([1])), places)
    return build("Cast", match, to=INT64.onnx)


def flags(build: Builder, axes: Value, rank: int) -> Value:
    """Vector [rank] of whether each axis is among `axes`, as 0 and 1."""
    return build("ReduceMax", is_among(build, axes, rank), build.ints([0]), keepdims=0)


def spread(build: Builder, content: Value, match: Value, default: Value) -> Value:
    """What is given for some axes as a vector for all of them; see `is_among`."""
    column = build("Unsqueeze", flat(build, wide(build, content)), build.ints([1]))
    given = build("ReduceSum", build("Mul", match, column), build.ints([0]), keepdims=0)
    touched = build("ReduceMax", match, build.ints([0]), keepdims=0)
    return build("Where", build("Cast", touched, to=DType.BOOL.onnx), given, default)


def before_each(build: Builder, vector: Value) -> Value:
    """Sums of the elements before each one."""
    return build("CumSum", vector, build.constant(0, INT64), exclusive=1)


def compacted(build: Builder, content: Value, keep: Value, count: int) -> Value:
    """The `count` elements of `content` where `keep` is 1, in order."""
    places = build("Unsqueeze", build.ints(range(count)), build.ints([1]))
    chosen = build("Cast", build("Equal", before_each(build, keep), places), to=INT64.onnx)
    return build("ReduceSum", build("Mul", build("Mul", chosen, keep), content), build.ints([1]), keepdims=0)


def is_zero(build: Builder, value: Value) -> Value:
    return build("Equal", value, build.scalar(0, value))


def is_negative(build: Builder, value: Value) -> Value:
    return build("Less", value, build.scalar(0, value))


def everywhere(build: Builder, condition: Value) -> Value:
    return build("ReduceMin", condition, keepdims=0)


def viewed(build: Builder, value: Value, sizes: Value) -> Value:
    """`value` under a shape that is computed; a run fails where it holds another number of elements."""
    total = build("ReduceProd", sizes, keepdims=0)
    same = build("Equal", total, build("Size", value))
    shape = observe(build, sizes, same, "the shape does not hold the elements of the operand")
    return build("Reshape", value, shape, allowzero=1)


# ---------------------------------------------------------------------- shapes


@sized_by_data("Reshape", operands=[1])
def reshape(build: Builder, node: Node) -> Value:
    x, shape = node.operand(0), wide(build, node.operand(1))
    rank, source = shape.shape[0], build("Shape", x)
    if not node.attributes.get("allowzero", 0):
        kept = [n if n < len(x.shape) else 0 for n in range(rank)]
        copied = build("Gather", source, build.ints(kept)) if x.shape else build.ints([0] * rank)
        shape = build("Where", is_zero(build, shape), copied, shape)
    wild = is_negative(build, shape)
    rest = build("ReduceProd", build("Where", wild, build.ints([1]), shape), keepdims=0)
    left = build("Div", build("Size", x), rest)
    return viewed(build, x, build("Where", wild, left, shape))


@sized_by_data("Unsqueeze", operands=[1])
def unsqueeze(build: Builder, node: Node) -> Value:
    x = node.operand(0)
    rank = len(x.shape) + dims.product(node.operand(1).shape)
    fresh = flags(build, node.operand(1), rank)
    old = build("Sub", build.ints([1]), fresh)
    sizes = build("Concat", build("Shape", x), build.ints([1]), axis=0)
    moved = build("Gather", sizes, before_each(build, old))
    return viewed(build, x, build("Where", build("Cast", fresh, to=DType.BOOL.onnx), build.ints([1]), moved))


@sized_by_data("Squeeze", operands=[1])
def squeeze(build: Builder, node: Node) -> Value:
    x = node.operand(0)
    rank = len(x.shape)
    kept = build("Sub", build.ints([1]), flags(build, node.operand(1), rank))
    count = rank - dims.product(node.operand(1).shape)
    return viewed(build, x, compacted(build, build("Shape", x), kept, count))


@sized_by_data("Expand", operands=[1])
def expand(build: Builder, node: Node) -> Value:
    x, shape = node.operand(0), wide(build, node.operand(1))
    rank = max(len(x.shape), shape.shape[0])

    def padded(vector: Value, own: int) -> Value:
        return vector if own == rank else build("Concat", build.ints([1] * (rank - own)), vector, axis=0)

    mine, other = padded(build("Shape", x), len(x.shape)), padded(shape, shape.shape[0])
    sizes = build("Where", build("Equal", mine, build.ints([1])), other, mine)
    fits = build("Or", build("Equal", other, sizes), build("Equal", other, build.ints([1])))
    target = observe(build, sizes, everywhere(build, fits), "the shapes do not broadcast")
    return build("Expand", x, target)


def by_observed_sizes(*names: str, operands: Sequence[int]) -> None:
    """Operators that take sizes as they are."""

    def rule(build: Builder, node: Node) -> Sequence[Value]:
        inputs = [observed(build, value) if n in operands else value for n, value in enumerate(node.inputs)]
        return build.node(node.op_type, *inputs, outputs=len(node.outputs), **node.attributes)

    sized_by_data(*names, operands=operands)(rule)


def observed(build: Builder, value: Value | None) -> Value | None:
    """Sizes, by name where they are not known."""
    return value if value is None or known(value) is not None else observe(build, wide(build, value))


by_observed_sizes("Tile", operands=[1])
by_observed_sizes("ConstantOfShape", operands=[0])
by_observed_sizes("OneHot", operands=[1])


@sized_by_data("Range", operands=[0, 1, 2])
def range_operator(build: Builder, node: Node) -> Value:
    start, limit, delta = node.operands
    span = build("Sub", limit, start)
    if start.tensor.dtype.is_float:
        steps = build("Ceil", build("Div", build("Cast", span, to=11), build("Cast", delta, to=11)))
        count = build("Cast", steps, to=INT64.onnx)
    else:
        count = _steps(build, wide(build, span), wide(build, delta))
    sizes = observe(build, build("Max", count, build.scalar(0, count)))
    return build("Range", start, delta, sizes, domain=DOMAIN)


def _steps(build: Builder, span: Value, step: Value) -> Value:
    """How many steps fit into a span, rounded up; not above 0 where they lead away from its end."""
    return build("Div", build("Add", span, build("Sub", step, build("Sign", step))), step)


@computes("Range", domain=DOMAIN)
def sized_range(node: Node) -> Computation:
    start, delta = load(node.operand(0)), load(node.operand(1))
    return compute(required_ints(node, 2), lambda i: start + cast(i, start.dtype) * delta)


# ---------------------------------------------------------------------- windows of a tensor


@sized_by_data("Slice", operands=[1, 2, 3, 4])
def slice_operator(build: Builder, node: Node) -> Value:
    x = node.operand(0)
    rank, count = len(x.shape), dims.product(node.operand(1).shape)
    sizes = build("Shape", x)
    match = is_among(build, node.input(3) or build.ints(range(count)), rank)
    step = spread(build, node.input(4) or build.ints([1] * count), match, build.ints([1]))
    backward = is_negative(build, step)
    last = build("Where", backward, build("Sub", sizes, build.ints([1])), sizes)

    def bound(content: Value, default: Value, low: Value) -> Value:
        given = spread(build, content, match, default)
        given = build("Where", is_negative(build, given), build("Add", given, sizes), given)
        return build("Min", build("Max", given, low), last)

    start = bound(node.operand(1), build.ints([0]), build.ints([0]))
    end = bound(node.operand(2), sizes, build("Where", backward, build.ints([-1]), build.ints([0])))
    steps = _steps(build, build("Sub", end, start), step)
    return build("Slice", x, start, step, observe(build, build("Max", steps, build.ints([0]))), domain=DOMAIN)


@computes("Slice", domain=DOMAIN)
def strided_window(node: Node) -> Computation:
    """Elements `start + index * step`, for sizes that are known."""
    x, start, step = node.operand(0), node.operand(1), node.operand(2)
    starts, steps = ([_number(value, n) for n in range(len(x.shape))] for value in (start, step))
    return window_of(x, required_ints(node, 3), starts, steps)


def _number(value: Value, place: int) -> Expr:
    """An element of a vector of sizes: itself where it is known, what memory holds where it is not."""
    is_ours = value.parameter is None or value.parameter.is_constant
    content = known(value) if is_ours else None
    return load(value, place) if content is None else size(content[place])


@sized_by_data("Split", operands=[1])
def split(build: Builder, node: Node) -> Sequence[Value]:
    x, parts = node.operand(0), wide(build, node.operand(1))
    axis = axis_of(node, len(x.shape))
    length = build("Gather", build("Shape", x), build.constant(axis, INT64))
    fits = build("Equal", build("ReduceSum", parts, keepdims=0), length)
    if parts.shape != (0,):
        fits = build("And", fits, build("Not", is_negative(build, build("ReduceMin", parts, keepdims=0))))
    sizes = observe(build, parts, fits, "the parts are not the whole")
    return build.node("Split", x, sizes, outputs=len(node.outputs), axis=axis)


@sized_by_data("Pad", operands=[1, 3])
def pad(build: Builder, node: Node) -> Value:
    x = node.operand(0)
    rank = len(x.shape)
    count = dims.product(node.operand(1).shape) // 2
    match = is_among(build, node.input(3) or build.ints(range(count)), rank)
    halves = build("Reshape", wide(build, node.operand(1)), build.ints([2, count]))
    before, after = (
        spread(build, build("Gather", halves, build.constant(half, INT64)), match, build.ints([0])) for half in (0, 1)
    )
    total = build("Add", build("Add", build("Shape", x), before), after)
    sizes = observe(build, build("Max", total, build.ints([0])))
    mode = node.attributes.get("mode", "constant")
    return build("Pad", x, before, sizes, node.input(2), domain=DOMAIN, mode=mode)


@computes("Pad", domain=DOMAIN)
def shifted_window(node: Node) -> Computation:
    x, before = node.operand(0), node.operand(1)
    axes = range(len(x.shape))
    begin = [load(before, n) for n in axes]
    return padded(x, required_ints(node, 2), begin, axes, node.attributes["mode"], node.input(3))


by_observed_sizes("CenterCropPad", operands=[1])


@computes("CenterCropPad")
def center_crop_pad(node: Node) -> Computation:
    """The middle of what is too long; zeros around what is too short. The larger half lies behind."""
    x = node.operand(0)
    axes = normalized_axes(node, node.attributes.get("axes", range(len(x.shape))), len(x.shape))
    wanted = dict(zip(axes, required_ints(node, 1), strict=True))
    shape = [wanted.get(n, dim) for n, dim in enumerate(x.shape)]
    cut = [dims.floor_div(dims.maximum(dim - new, 0), 2) for dim, new in zip(x.shape, shape, strict=True)]
    added = [dims.floor_div(dims.maximum(new - dim, 0), 2) for dim, new in zip(x.shape, shape, strict=True)]
    before = [size(dims.simplified(b - a)) for a, b in zip(cut, added, strict=True)]
    return padded(x, shape, before, wanted, "constant", None)


# ---------------------------------------------------------------------- reductions over axes from data


@sized_by_data(*REDUCTIONS, operands=[1])
def reduce_operator(build: Builder, node: Node) -> Value:
    """Each axis becomes two, one that is reduced and one that is kept; one of both has size 1."""
    x, axes = node.operand(0), node.operand(1)
    rank = len(x.shape)
    sizes, one = build("Shape", x), build.ints([1])
    chosen = flags(build, axes, rank)
    is_reduced = build("Cast", chosen, to=DType.BOOL.onnx)
    inner = observe(build, build("Where", is_reduced, sizes, one))
    outer = observe(build, build("Where", is_reduced, one, sizes))
    result = build("Reduce", x, inner, outer, domain=DOMAIN, operator=node.op_type)
    if node.attributes.get("keepdims", 1):
        return result
    kept = build("Sub", one, chosen)
    return viewed(build, result, compacted(build, sizes, kept, rank - dims.product(axes.shape)))


@computes("Reduce", domain=DOMAIN)
def split_reduction(node: Node) -> Computation:
    x = node.operand(0)
    inner = [Axis(f"k{n}", dim) for n, dim in enumerate(required_ints(node, 1))]
    outer = [Axis(f"i{n}", dim) for n, dim in enumerate(required_ints(node, 2))]
    place = [Index(o) + Index(k) for o, k in zip(outer, inner, strict=True)]
    kind = REDUCTIONS[node.attributes["operator"]]
    return Computation(tuple(outer), kind.apply(load(x, *place), inner))


def around(build: Builder, sizes: Value, place: Value) -> Value:
    """Vector of the products of the sizes before the axis at `place`, of its size, and of those after it."""
    places, one = build.ints(range(dims.product(sizes.shape))), build.ints([1])
    parts = (build("Where", build(name, places, place), sizes, one) for name in ("Less", "Equal", "Greater"))
    return build("Concat", *(build("ReduceProd", part, build.ints([0])) for part in parts), axis=0)


@sized_by_data("CumSum", "CumProd", operands=[1])
def cumulative(build: Builder, node: Node) -> Value:
    x = node.operand(0)
    sides = around(build, build("Shape", x), from_front(build, node.operand(1), len(x.shape)))
    lines = viewed(build, x, sides)
    result = build(node.op_type, lines, build.constant(1, INT64), **node.attributes)
    return build("Reshape", result, build("Shape", x), allowzero=1)
