"""Operators whose result is shaped by data: the sizes are computed, observed, and then known by name.

What follows an observation is an ordinary node with symbolic dimensions. Where the operator's own form says more than
sizes (a negative start, a step), its counterpart in the domain `partita` reads that from memory while it runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import certain, known, normalized_axes, required_ints
from partita.ir.expression import Computation, Expr
from partita.ir.formula import load, size
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.operators.movement import window_of
from partita.ir.operators.reduction import REDUCTIONS
from partita.ir.registry import computes, sized_by_data
from partita.ir.types import DType

INT64 = DType.INT64


# ---------------------------------------------------------------------- small vectors of sizes, as nodes


def flat(build: Builder, value: Value) -> Value:
    """A vector of what may be a scalar."""
    return value if value.shape else build("Unsqueeze", value, [0])


def from_front(build: Builder, axes: Value, rank: int) -> Value:
    """Axes counted from the front."""
    axes = flat(build, build.cast(axes, INT64))
    return build("Where", build("Less", axes, 0), build("Add", axes, rank), axes)


def spread(build: Builder, default: Value | Sequence[int], axes: Value, content: Value) -> Value:
    """A vector with a number for each axis: what `content` gives for some `axes`, and `default` for the others."""
    return build("ScatterElements", default, flat(build, axes), flat(build, build.cast(content, INT64)))


def flags(build: Builder, axes: Value, rank: int) -> Value:
    """Vector [rank] of whether each axis is among `axes`, as 0 and 1."""
    axes = flat(build, axes)
    return spread(build, [0] * rank, axes, build("Expand", [1], build("Shape", axes)))


def others(build: Builder, axes: Value, rank: int) -> Value:
    """The axes that are not among `axes`, in order."""
    count = rank - dims.product(axes.shape)
    return build.node("TopK", flags(build, axes, rank), [count], outputs=2, largest=0)[1]  # of equals, the first


def viewed(build: Builder, value: Value, sizes: Value) -> Value:
    """`value` under a shape that is computed."""
    return build("Reshape", value, observe(build, sizes), allowzero=1)


# ---------------------------------------------------------------------- shapes


@sized_by_data("Reshape", operands=[1])
def reshape(build: Builder, node: Node, x: Value, shape: Value, *, allowzero: int = 0) -> Value:
    shape = build.cast(shape, INT64)
    if not allowzero:
        sizes = build("Concat", build("Shape", x), [0], axis=0)
        copied = build("Gather", sizes, [min(n, len(x.shape)) for n in range(shape.shape[0])])
        shape = build("Where", build("Equal", shape, 0), copied, shape)
    wild = build("Less", shape, 0)
    rest = build("ReduceProd", build("Where", wild, 1, shape), keepdims=0)
    return viewed(build, x, build("Where", wild, build("Div", build("Size", x), rest), shape))


@sized_by_data("Unsqueeze", operands=[1])
def unsqueeze(build: Builder, node: Node, x: Value, axes: Value) -> Value:
    rank = len(x.shape) + dims.product(axes.shape)
    return viewed(build, x, spread(build, [1] * rank, others(build, axes, rank), build("Shape", x)))


def without(build: Builder, x: Value, axes: Value) -> Value:
    """`x` without `axes` of size 1."""
    return viewed(build, x, build("Gather", build("Shape", x), others(build, axes, len(x.shape))))


sized_by_data("Squeeze", operands=[1])(lambda build, node, x, axes: without(build, x, axes))


@sized_by_data("Expand", operands=[1])
def expand(build: Builder, node: Node, x: Value, shape: Value) -> Value:
    rank = max(len(x.shape), shape.shape[0])
    vectors = (build("Shape", x), build.cast(shape, INT64))
    mine, other = (build("Concat", [1] * (rank - vector.shape[0]), vector, axis=0) for vector in vectors)
    return build("Expand", x, observe(build, build("Where", build("Equal", other, 1), mine, other)))


def by_observed_sizes(*names: str, operands: Sequence[int]) -> None:
    """Operators that take sizes as they are."""

    def rule(build: Builder, node: Node) -> Sequence[Value]:
        inputs = [observed(build, value) if n in operands else value for n, value in enumerate(node.inputs)]
        return build.node(node.op_type, *inputs, outputs=len(node.outputs), **node.attributes)

    sized_by_data(*names, operands=operands)(rule)


def observed(build: Builder, value: Value | None) -> Value | None:
    """Sizes, by name where they are not known."""
    return value if value is None or known(value) is not None else observe(build, build.cast(value, INT64))


by_observed_sizes("Tile", "OneHot", "CenterCropPad", "Split", operands=[1])
by_observed_sizes("ConstantOfShape", operands=[0])


@sized_by_data("Range", operands=[0, 1, 2])
def range_operator(build: Builder, node: Node, start: Value, limit: Value, delta: Value) -> Value:
    span = build("Sub", limit, start)
    if start.tensor.dtype.is_float:
        steps = build("Div", build.cast(span, DType.FLOAT64), build.cast(delta, DType.FLOAT64))
        count = build.cast(build("Ceil", steps), INT64)
    else:
        count = _steps(build, build.cast(span, INT64), build.cast(delta, INT64))
    places = build("Range", 0, observe(build, build("Max", count, 0)), 1)
    return build("Add", start, build("Mul", build.cast(places, start.tensor.dtype), delta))


def _steps(build: Builder, span: Value, step: Value) -> Value:
    """How many steps fit into a span, rounded up; not above 0 where they lead away from its end."""
    return build("Div", build("Add", span, build("Sub", step, build("Sign", step))), step)


# ---------------------------------------------------------------------- windows of a tensor


@sized_by_data("Slice", operands=[1, 2, 3, 4])
def slice_operator(
    build: Builder, node: Node, x: Value, starts: Value, ends: Value, axes: Value | None, steps: Value | None
) -> Value:
    rank, sizes = len(x.shape), build("Shape", x)
    axes = axes or build.ints(range(dims.product(starts.shape)))
    step = build.ints([1] * rank) if steps is None else spread(build, [1] * rank, axes, steps)
    backward = build("Less", step, 0)
    last = build("Where", backward, build("Sub", sizes, 1), sizes)

    def bound(content: Value, default: Value | Sequence[int], low: Value | int) -> Value:
        given = spread(build, default, axes, content)
        given = build("Where", build("Less", given, 0), build("Add", given, sizes), given)
        return build("Min", build("Max", given, low), last)

    start = bound(starts, [0] * rank, 0)
    end = bound(ends, sizes, build("Where", backward, [-1], build.ints([0])))
    count = build("Max", _steps(build, build("Sub", end, start), step), [0])
    return build("Window", x, observe(build, count), start, step, domain=DOMAIN)


@computes("Window", domain=DOMAIN)
def window(
    node: Node, x: Value, _: Value, start: Value, step: Value, fill: Value | None, *, mode: str | None = None
) -> Computation:
    """Elements `start + index * step`, for sizes that are known; what lies outside is as the `mode` of a Pad says."""
    axes = range(len(x.shape))
    starts, steps = ([_number(value, n) for n in axes] for value in (start, step))
    return window_of(x, required_ints(node, 1), starts, steps, axes if mode else (), mode or "constant", fill)


def _number(value: Value, place: int) -> Expr:
    """An element of a vector of sizes: itself where it is known, what memory holds where it is not."""
    content = certain(value)
    return load(value, place) if content is None else size(content[place])


@sized_by_data("Pad", operands=[1, 3])
def pad(
    build: Builder, node: Node, x: Value, pads: Value, fill: Value | None, axes: Value | None, *, mode: str = "constant"
) -> Value:
    count = dims.product(pads.shape) // 2
    halves = build.node("Split", pads, [count, count], outputs=2)
    axes = axes or build.ints(range(count))
    before, after = (spread(build, [0] * len(x.shape), axes, half) for half in halves)
    total = build("Add", build("Add", build("Shape", x), before), after)
    sizes, ones = observe(build, build("Max", total, [0])), build.ints([1] * len(x.shape))
    return build("Window", x, sizes, build("Neg", before), ones, fill, domain=DOMAIN, mode=mode)


@computes("CenterCropPad")
def center_crop_pad(node: Node, x: Value, *, axes: Sequence[int] | None = None) -> Computation:
    """The middle of what is too long; zeros around what is too short. The larger half lies behind."""
    chosen = normalized_axes(node, range(len(x.shape)) if axes is None else axes, len(x.shape))
    wanted = dict(zip(chosen, required_ints(node, 1), strict=True))
    shape = [wanted.get(n, dim) for n, dim in enumerate(x.shape)]
    spare = [dims.simplified(dim - new) for dim, new in zip(x.shape, shape, strict=True)]
    starts = [size(dims.floor_div(dims.maximum(n, 0), 2) - dims.floor_div(dims.maximum(-n, 0), 2)) for n in spare]
    return window_of(x, shape, starts, [1] * len(shape), wanted)


# ---------------------------------------------------------------------- reductions over axes from data


@sized_by_data(*REDUCTIONS, operands=[1])
def reduce_operator(build: Builder, node: Node, x: Value, axes: Value, *, keepdims: int = 1) -> Value:
    """Each axis becomes two, one that is kept and one that is reduced; one of both has size 1."""
    rank, sizes = len(x.shape), build("Shape", x)
    is_reduced = build.cast(flags(build, axes, rank), DType.BOOL)
    pairs = build("Where", is_reduced, build.ints([1]), sizes), build("Where", is_reduced, sizes, 1)
    shape = build("Reshape", build("Concat", *(build("Unsqueeze", half, [1]) for half in pairs), axis=1), [2 * rank])
    result = build(node.op_type, viewed(build, x, shape), range(1, 2 * rank, 2), keepdims=0)
    return result if keepdims else without(build, result, axes)


def around(build: Builder, sizes: Value, place: Value) -> Value:
    """Vector of the products of the sizes before the axis at `place`, of its size, and of those after it."""
    places = build.ints(range(dims.product(sizes.shape)))
    parts = (build("Where", build(name, places, place), sizes, [1]) for name in ("Less", "Equal", "Greater"))
    return build("Concat", *(build("ReduceProd", part, [0]) for part in parts), axis=0)


@sized_by_data("CumSum", "CumProd", operands=[1])
def cumulative(build: Builder, node: Node, x: Value, axis: Value) -> Value:
    lines = viewed(build, x, around(build, build("Shape", x), from_front(build, axis, len(x.shape))))
    result = build(node.op_type, lines, build.constant(1, INT64), **node.attributes)
    return build("Reshape", result, build("Shape", x), allowzero=1)
