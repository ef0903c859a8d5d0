"""Operators that read or write elements at places given by data."""

from __future__ import annotations

from collections.abc import Callable

from partita.errors import ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.expression import Axis, Computation, Expr, Index, call, literal
from partita.ir.formula import cast, compute, load, only, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import axis_of, normalized_axis, required, required_ints
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.operators.movement import wrapped
from partita.ir.operators.older import attributes_to_inputs
from partita.ir.operators.registry import computes, infers, keeps_type, performs, sized_by_data, upgrades
from partita.ir.procedure import Loops, Procedure, axes_of, current, fill, once, store, temporary
from partita.ir.types import DType, TensorType, Type

# ---------------------------------------------------------------------- reading


@computes("GatherElements")
def gather_elements(node: Node) -> Computation:
    x, indices = node.operand(0), node.operand(1)
    axis = axis_of(node, len(x.shape))

    def body(*i: Expr) -> Expr:
        place = wrapped(load(indices, *i), x.shape[axis])
        return load(x, *(place if n == axis else index for n, index in enumerate(i)))

    return compute(indices.shape, body)


@computes("GatherND")
def gather_nd(node: Node) -> Computation:
    """Slices of the operand at index vectors: the last axis of the indices counts axes after the batch's."""
    x, indices = node.operand(0), node.operand(1)
    batch, depth = node.attributes.get("batch_dims", 0), indices.shape[-1]
    lead = len(indices.shape) - 1
    if not dims.is_static(depth) or depth > len(x.shape) - batch:
        raise ShapeError(f"{node.describe()}: index vectors of length {depth} into {len(x.shape) - batch} axes")

    def body(*i: Expr) -> Expr:
        place = [wrapped(load(indices, *i[:lead], n), x.shape[batch + n]) for n in range(depth)]
        return load(x, *i[:batch], *place, *i[lead:])

    return compute((*indices.shape[:-1], *x.shape[batch + depth :]), body)


@computes("ReverseSequence")
def reverse_sequence(node: Node) -> Computation:
    x, lengths = node.operand(0), node.operand(1)
    batch, time = node.attributes.get("batch_axis", 1), node.attributes.get("time_axis", 0)

    def body(*i: Expr) -> Expr:
        length = load(lengths, i[batch])
        place = select(i[time] < length, length - 1 - i[time], i[time])
        return load(x, *(place if n == time else index for n, index in enumerate(i)))

    return compute(x.shape, body)


# ---------------------------------------------------------------------- choosing


@sized_by_data("NonZero", operands=[])
def non_zero(build: Builder, node: Node) -> Value:
    return indices_where(build, node.operand(0))


def indices_where(build: Builder, x: Value) -> Value:
    """Indices of the elements that are not 0, a column each, in row-major order: [rank, count]."""
    ones = build("Cast", build("Cast", x, to=DType.BOOL.onnx), to=DType.INT64.onnx)
    count = observe(build, build("ReduceSum", ones, keepdims=0))
    return build("NonZero", x, count, domain=DOMAIN)


@infers("NonZero", domain=DOMAIN)
def non_zero_type(node: Node) -> Type:
    return TensorType(DType.INT64, (len(node.operand(0).shape), required(node, 1).item()))


@performs("NonZero", domain=DOMAIN)
def places_of_others(node: Node) -> Procedure:
    x, y = node.operand(0), node.output
    count = temporary("count", DType.INT64, [])
    axes = axes_of(x.shape)
    is_other = cast(load(x, *map(Index, axes)), DType.BOOL)
    stores = [store(y, [n, current(count)], Index(axis)) for n, axis in enumerate(axes)]
    step = once(*stores, store(count, [], current(count) + 1), when=is_other)
    return Procedure((once(store(count, [], 0)), Loops(axes, (step,))), (count,))


@sized_by_data("Compress", operands=[])
def compress(build: Builder, node: Node) -> Value:
    """The slices of an axis, or the elements, where a condition holds."""
    x, axis = node.operand(0), node.attributes.get("axis")
    if axis is None:
        x, axis = build("Reshape", x, build.ints([-1])), 0
    places = build("Squeeze", indices_where(build, node.operand(1)), build.ints([0]))
    return build("Gather", x, places, axis=axis)


# ---------------------------------------------------------------------- patterns


@computes("OneHot")
def one_hot(node: Node) -> Computation:
    """Places outside [-depth, depth) are off everywhere."""
    indices, values = node.operand(0), node.operand(2)
    extent = required_ints(node, 1)[0]
    axis = normalized_axis(node, node.attributes.get("axis", -1), len(indices.shape) + 1)

    def body(*i: Expr) -> Expr:
        given = cast(load(indices, *i[:axis], *i[axis + 1 :]), DType.INT64)
        place = select(given < 0, given + size(extent), given)
        return select(call("eq", place, i[axis]), load(values, 1), load(values, 0))

    return compute((*indices.shape[:axis], extent, *indices.shape[axis:]), body)


@computes("Trilu")
def triangle(node: Node) -> Computation:
    x, diagonal = node.operand(0), node.input(1)

    def body(*i: Expr) -> Expr:
        offset = literal(0, DType.INT64) if diagonal is None else only(diagonal)
        distance = i[-1] - i[-2]
        inside = distance >= offset if node.attributes.get("upper", 1) else distance <= offset
        return select(inside, load(x, *i), 0)

    return compute(x.shape, body)


@computes("EyeLike")
def eye_like(node: Node) -> Computation:
    x = node.operand(0)
    kind = DType.from_onnx(node.attributes["dtype"]) if "dtype" in node.attributes else x.tensor.dtype
    offset = node.attributes.get("k", 0)
    on, off = (literal(value, kind) for value in ((True, False) if kind is DType.BOOL else (1, 0)))
    return compute(x.shape, lambda i, j: select(call("eq", j - i, offset), on, off))


# ---------------------------------------------------------------------- writing


keeps_type("ScatterElements", "ScatterND")


_COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "max": lambda old, new: call("max", old, new),
    "min": lambda old, new: call("min", old, new),
}


def _scatter(node: Node, axes: tuple[Axis, ...], place: list[Expr]) -> Procedure:
    """A copy of the data, then every update at its place."""
    x, updates, y = node.operand(0), node.operand(2), node.output
    combine = _COMBINE[node.attributes.get("reduction", "none")]
    new = load(updates, *map(Index, axes))
    update = store(y, place, combine(current(y, place), new))
    return Procedure((once(fill(y, lambda *i: load(x, *i))), Loops(axes, (update,))))


@performs("ScatterElements")
def scatter_elements(node: Node) -> Procedure:
    x, indices = node.operand(0), node.operand(1)
    axis = axis_of(node, len(x.shape))
    axes = axes_of(indices.shape)
    place: list[Expr] = [Index(a) for a in axes]
    place[axis] = wrapped(cast(load(indices, *map(Index, axes)), DType.INT64), x.shape[axis])
    return _scatter(node, axes, place)


@performs("ScatterND")
def scatter_nd(node: Node) -> Procedure:
    x, indices, updates = node.operands
    lead, depth = len(indices.shape) - 1, indices.shape[-1]
    if not dims.is_static(depth):
        raise ShapeError(f"{node.describe()}: the length of index vectors must be known when compiling")
    axes = axes_of(updates.shape)
    i = [Index(axis) for axis in axes]
    place = [wrapped(load(indices, *i[:lead], n), x.shape[n]) for n in range(depth)]
    return _scatter(node, axes, [*place, *i[lead:]])


@computes("TensorScatter")
def tensor_scatter(node: Node) -> Computation:
    """A cache with an update written at a place of its own for each sample, or around its end (`circular`)."""
    cache, update, places = node.operand(0), node.operand(1), node.input(2)
    axis = axis_of(node, len(cache.shape), -2)

    def body(*i: Expr) -> Expr:
        offset = i[axis] - (load(places, i[0]) if places is not None else 0)
        if node.attributes.get("mode", "linear") == "circular":
            offset = call("mod", offset, size(cache.shape[axis]))
        inside = (offset >= 0) & (offset < size(update.shape[axis]))
        new = load(update, *(offset if n == axis else index for n, index in enumerate(i)))
        return select(inside, new, load(cache, *i))

    return compute(cache.shape, body)


@computes("BitCast")
def bit_cast(node: Node) -> Computation:
    x, kind = node.operand(0), DType.from_onnx(node.attributes["to"])
    if kind.bits != x.tensor.dtype.bits:
        raise ShapeError(f"{node.describe()}: {kind!r} has another width than {x.tensor.dtype!r}")
    return compute(x.shape, lambda *i: call("bit_cast", load(x, *i), dtype=kind))


# ---------------------------------------------------------------------- older opsets

attributes_to_inputs("TopK", before=10, k=1)


@upgrades("Scatter", before=11)
def scatter_was_elements(build: Builder, node: Node) -> None:
    node.op_type = "ScatterElements"
