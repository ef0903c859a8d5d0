"""Operators that read or write elements at places given by data, and tensors made of places and sizes alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from partita.errors import ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import Known, axis_of, required, required_ints
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, Index, call, literal
from partita.ir.formula import cast, compute, indices_over, load, only, put, select, size, tensor
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN, chosen, observe
from partita.ir.operators.movement import wrapped
from partita.ir.procedure import Procedure, current, each, fill, once, procedure, store, temporary
from partita.ir.registry import becomes, computes, infers, performs, upgrades
from partita.ir.types import DType, TensorType

# ---------------------------------------------------------------------- reading


@computes("GatherElements")
def gather_elements(node: Node, x: Value, indices: Value) -> Computation:
    axis = axis_of(node, len(x.shape))
    return compute(indices.shape, lambda *i: load(x, *put(i, axis, wrapped(load(indices, *i), x.shape[axis]))))


@computes("GatherND")
def gather_nd(node: Node, x: Value, indices: Value, *, batch_dims: int = 0) -> Computation:
    """Slices of the operand at index vectors: the last axis of the indices counts axes after the batch's."""
    lead, depth = len(indices.shape) - 1, indices.shape[-1]
    if not dims.is_static(depth):
        raise ShapeError(f"{node.describe()}: the indices' last axis decides the result's rank: fix it with `shapes`")
    if depth > len(x.shape) - batch_dims:
        raise ShapeError(f"{node.describe()}: index vectors of length {depth} into {len(x.shape) - batch_dims} axes")
    i = indices_over((*indices.shape[:-1], *x.shape[batch_dims + depth :]))
    place = [wrapped(load(indices, *i[:lead], n), x.shape[batch_dims + n]) for n in range(depth)]
    return tensor(i, load(x, *i[:batch_dims], *place, *i[lead:]))


@computes("ReverseSequence")
def reverse_sequence(node: Node, x: Value, lengths: Value, *, batch_axis: int = 1, time_axis: int = 0) -> Computation:
    i = indices_over(x.shape)
    length, time = load(lengths, i[batch_axis]), i[time_axis]
    return tensor(i, load(x, *put(i, time_axis, select(time < length, length - 1 - time, time))))


# ---------------------------------------------------------------------- choosing


def indices_where(build: Builder, x: Value) -> Value:
    """Indices of the elements that are not 0, a column each, in row-major order: [rank, count]."""
    ones = build.cast(build.cast(x, DType.BOOL), DType.INT64)
    return build("NonZero", x, observe(build, build("ReduceSum", ones, keepdims=0)), domain=DOMAIN)


becomes("NonZero")(lambda build, node, x: indices_where(build, x))


infers("NonZero", domain=DOMAIN)(lambda node, x: TensorType(DType.INT64, (len(x.shape), required(node, 1).item())))


@performs("NonZero", domain=DOMAIN)
def places_of_others(node: Node, x: Value) -> Procedure:
    count, i = temporary("count", DType.INT64, []), indices_over(x.shape)
    stores = [store(node.output, [n, current(count)], index) for n, index in enumerate(i)]
    step = once(*stores, store(count, [], current(count) + 1), when=cast(load(x, *i), DType.BOOL))
    return procedure(store(count, [], 0), each(i, step))


@becomes("Compress")
def compress(build: Builder, node: Node, x: Value, condition: Value, *, axis: int | None = None) -> Value:
    """The slices of an axis, or the elements, where a condition holds."""
    x = build("Reshape", x, [-1]) if axis is None else x
    places = build("Squeeze", indices_where(build, condition), [0])
    return build("Gather", x, places, axis=axis or 0)


# ---------------------------------------------------------------------- places and sizes


@computes("Shape")
def shape_operator(node: Node, x: Value, *, start: int = 0, end: int | None = None) -> Computation:
    elements = x.shape[start:end]
    return compute([len(elements)], lambda i: chosen(elements, i))


computes("Size")(lambda node, x: compute([], lambda: size(dims.product(x.shape))))


@computes("ConstantOfShape")
def constant_of_shape(node: Node, *, value: Known | None = None) -> Computation:
    content = literal(0.0, DType.FLOAT32) if value is None else literal(value.item(), DType.of(value.dtype))
    return compute(required_ints(node, 0), lambda *i: content)


@computes("Range")
def range_operator(node: Node, first: Value, _: Value, step: Value) -> Computation:
    start, limit, delta = (required(node, n).item() for n in range(3))
    dtype, span = first.tensor.dtype, limit - start
    if dtype.is_float:
        count: Dim = int(np.ceil(span / delta))
    else:
        count = dims.ceil_div(span, delta) if delta > 0 else dims.ceil_div(-span, -delta)
    count = max(count, 0) if dims.is_static(count) else count
    return compute([count], lambda i: load(first) + cast(i, dtype) * load(step))


@computes("OneHot")
def one_hot(node: Node, indices: Value, _: Value, values: Value) -> Computation:
    """Places outside [-depth, depth) are off everywhere."""
    (extent,), axis = required_ints(node, 1), axis_of(node, len(indices.shape) + 1, -1)
    i = indices_over((*indices.shape[:axis], extent, *indices.shape[axis:]))
    given = cast(load(indices, *put(i, axis)), DType.INT64)
    place = select(given < 0, given + size(extent), given)
    return tensor(i, select(call("eq", place, i[axis]), load(values, 1), load(values, 0)))


@computes("Trilu")
def triangle(node: Node, x: Value, diagonal: Value | None, *, upper: int = 1) -> Computation:
    i, offset = indices_over(x.shape), 0 if diagonal is None else only(diagonal)
    distance = i[-1] - i[-2]
    return tensor(i, select(distance >= offset if upper else distance <= offset, load(x, *i), 0))


@computes("EyeLike")
def eye_like(node: Node, x: Value, *, dtype: int | None = None, k: int = 0) -> Computation:
    kind = DType.from_onnx(dtype or x.tensor.dtype.onnx)
    on, off = (literal(value, kind) for value in ((True, False) if kind is DType.BOOL else (1, 0)))
    return compute(x.shape, lambda i, j: select(call("eq", j - i, k), on, off))


# ---------------------------------------------------------------------- writing


def _scatter(node: Node, i: Sequence[Index], place: Sequence[Expr]) -> Procedure:
    """A copy of the data, then every update at its place."""
    x, _, updates = node.operands
    combine, y, new = node.attributes.get("reduction", "none"), node.output, load(updates, *i)
    update = store(y, place, new if combine == "none" else call(combine, current(y, place), new))
    return Procedure((once(fill(y, lambda *j: load(x, *j))), each(i, update)))


@performs("ScatterElements")
def scatter_elements(node: Node, x: Value, indices: Value) -> Procedure:
    axis, i = axis_of(node, len(x.shape)), indices_over(indices.shape)
    place = wrapped(cast(load(indices, *i), DType.INT64), x.shape[axis])
    return _scatter(node, i, put(i, axis, place))


@performs("ScatterND")
def scatter_nd(node: Node, x: Value, indices: Value, updates: Value) -> Procedure:
    lead = len(indices.shape) - 1
    depth = lead + len(x.shape) - len(updates.shape)  # of index vectors
    if not 0 <= depth <= len(x.shape) or not dims.may_equal(indices.shape[-1], depth):
        raise ShapeError(f"{node.describe()}: index vectors of length {indices.shape[-1]} cannot place these updates")
    i = indices_over(updates.shape)
    place = [wrapped(load(indices, *i[:lead], n), x.shape[n]) for n in range(depth)]
    return _scatter(node, i, [*place, *i[lead:]])


@computes("TensorScatter")
def tensor_scatter(node: Node, cache: Value, update: Value, places: Value | None, *, mode: str = "") -> Computation:
    """A cache with an update written at a place of its own for each sample, or around its end (`circular`)."""
    axis, i = axis_of(node, len(cache.shape), -2), indices_over(cache.shape)
    offset = i[axis] - (load(places, i[0]) if places is not None else 0)
    offset = call("mod", offset, size(cache.shape[axis])) if mode == "circular" else offset
    inside = (offset >= 0) & (offset < size(update.shape[axis]))
    return tensor(i, select(inside, load(update, *put(i, axis, offset)), load(cache, *i)))


@computes("BitCast")
def bit_cast(node: Node, x: Value, *, to: int) -> Computation:
    kind = DType.from_onnx(to)
    if kind.bits != x.tensor.dtype.bits:
        raise ShapeError(f"{node.describe()}: {kind!r} has another width than {x.tensor.dtype!r}")
    return compute(x.shape, lambda *i: call("bit_cast", load(x, *i), dtype=kind))


# ---------------------------------------------------------------------- older opsets


@upgrades("TopK", before=10)
def count_as_vector(build: Builder, node: Node, *, k: int) -> None:
    node.attributes["k"] = (k,)


@upgrades("Scatter", before=11)
def scatter_was_elements(build: Builder, node: Node) -> None:
    node.op_type = "ScatterElements"
