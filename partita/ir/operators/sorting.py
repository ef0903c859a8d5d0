"""Operators that order elements: TopK, Unique, NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partita.errors import ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Axis, Computation, Expr, Index, Literal, Reduce, call, literal
from partita.ir.formula import cast, compute, load, only, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import axis_of, normalized_axis, required_ints
from partita.ir.operators.dynamic import wide
from partita.ir.operators.indexing import indices_where
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.operators.registry import computes, infers, performs, sized_by_data
from partita.ir.procedure import Loops, Procedure, Store, axes_of, current, each, once, over, store, temporary
from partita.ir.types import DType, TensorType, Type

INT64, BOOL = DType.INT64, DType.BOOL
PASSES = 40  # of a merge sort whose length is not known: more than any tensor needs


def counter(name: str) -> Value:
    return temporary(name, INT64, [])


def advance(value: Value, when: Expr | None = None) -> Store:
    """Counts one more."""
    return store(value, [], current(value) + 1, when)


# ---------------------------------------------------------------------- sorting


class Sorted:
    """Places, sorted by merging: stable, in n log n steps. Of runs sorted so far, two at a time become one of twice the
    width, from one half of `order` to the other."""

    def __init__(self, longest: Dim) -> None:
        self.longest = longest
        self.order = temporary("order", INT64, [2, longest + 1])  # one more, that is read past the end and dropped
        self.side, self.width = counter("side"), counter("width")
        self.left, self.middle, self.right, self.stop = map(counter, ("left", "middle", "right", "stop"))
        self.takes_right = temporary("takes_right", BOOL, [])

    @property
    def temporaries(self) -> tuple[Value, ...]:
        numbers = (self.side, self.width, self.left, self.middle, self.right, self.stop, self.takes_right)
        return (self.order, *numbers)

    def at(self, place: Expr | int) -> Expr:
        """What comes at a place once all is sorted."""
        return current(self.order, [current(self.side), place])

    def start(self) -> tuple[Store | Loops, ...]:
        """The places 0, 1, 2 ... in order."""
        n = over("n", self.longest + 1)
        place = select(n < size(self.longest), n, 0)
        return each([n], *(store(self.order, [side, n], place) for side in (0, 1))), store(self.side, [], 0)

    def sort(self, count: Expr, before: Callable[[Expr, Expr], Expr]) -> Loops:
        """Sorts the first `count` places: `before(a, b)` tells whether what is at `a` must precede what is at `b`."""
        passes = max(int(self.longest) - 1, 0).bit_length() if dims.is_static(self.longest) else PASSES
        now, width, left, right = over("t", self.longest), current(self.width), current(self.left), current(self.right)
        middle, stop, takes_right = current(self.middle), current(self.stop), current(self.takes_right)
        begin = once(
            store(self.left, [], now),
            store(self.middle, [], call("min", now + width, count)),
            store(self.right, [], middle),
            store(self.stop, [], call("min", now + width * 2, count)),
            when=call("eq", now, stop),
        )
        is_right_next = (left >= middle) | ((right < stop) & before(self.at(right), self.at(left)))
        merge = each(
            [now],
            begin,
            store(self.takes_right, [], is_right_next),
            store(self.order, [1 - current(self.side), now], self.at(select(takes_right, right, left))),
            store(self.left, [], left + cast(call("logical_not", takes_right), INT64)),  # quicker than a branch
            store(self.right, [], right + cast(takes_right, INT64)),
            until=now >= count,
        )
        turn = (store(self.side, [], 1 - current(self.side)), store(self.width, [], width * 2))
        again = each([over("pass", passes)], store(self.stop, [], 0), merge, *turn, until=width >= count)
        return once(store(self.width, [], 1), again)


def is_nan(x: Expr) -> Expr:
    return call("isnan", x) if x.dtype.is_float else Literal(False, BOOL)


def is_less(a: Expr, b: Expr) -> Expr:
    """a < b, where NaN is larger than every number."""
    return (a < b) | (is_nan(b) & call("logical_not", is_nan(a))) if a.dtype.is_float else a < b


def is_other(a: Expr, b: Expr) -> Expr:
    """a != b, where NaN equals NaN."""
    return call("ne", a, b) & call("logical_not", is_nan(a) & is_nan(b)) if a.dtype.is_float else call("ne", a, b)


# ---------------------------------------------------------------------- the largest of each line


@infers("TopK")
def top_k_types(node: Node) -> list[Type]:
    x = node.operand(0)
    axis = axis_of(node, len(x.shape), -1)
    (count,) = required_ints(node, 1)
    if dims.all_static([count, x.shape[axis]]) and not 0 <= count <= x.shape[axis]:
        raise ShapeError(f"{node.describe()}: k is {count}, but axis {axis} has {x.shape[axis]} elements")
    shape = tuple(count if n == axis else dim for n, dim in enumerate(x.shape))
    return [TensorType(x.tensor.dtype, shape), TensorType(INT64, shape)]


@performs("TopK")
def top_k(node: Node) -> Procedure:
    """The largest (or smallest) first; NaN is the largest of all; of equals, the first comes first."""
    x = node.operand(0)
    axis = axis_of(node, len(x.shape), -1)
    rows = {n: Axis(f"i{n}", dim) for n, dim in enumerate(x.shape) if n != axis}
    length, most = x.shape[axis], node.output.shape[axis]
    k, candidate = over("k", most), over("n", length)

    def along(place: Expr) -> list[Expr]:
        return [place if n == axis else Index(rows[n]) for n in range(len(x.shape))]

    def better(first: Expr, second: Expr) -> Expr:
        return is_less(second, first) if node.attributes.get("largest", 1) else is_less(first, second)

    # Candidates are collected; when there is no room for more, the best remain, and the worst of these is a limit.
    room = dims.minimum(length, dims.maximum(2 * most, 64))
    places, count = Sorted(room), counter("count")
    is_limited, limit = temporary("is_limited", BOOL, []), temporary("limit", x.tensor.dtype, [])
    element = load(x, *along(candidate))
    sort = places.sort(current(count), lambda a, b: better(load(x, *along(a)), load(x, *along(b))))
    worst = places.at(max(most - 1, 0) if dims.is_static(most) else size(dims.maximum(most - 1, 0)))
    thin_out = once(
        sort,
        store(limit, [], load(x, *along(worst))),
        store(is_limited, [], True),
        store(count, [], size(most)),
        when=call("eq", current(count), size(room)) & (size(room) < size(length)),
    )
    is_taken = call("logical_not", current(is_limited)) | better(element, current(limit))
    take = once(
        store(places.order, [current(places.side), current(count)], candidate), advance(count), thin_out, when=is_taken
    )
    results = [load(x, *along(places.at(k))), places.at(k)]
    write = each([k], *(store(y, along(k), body) for y, body in zip(node.outputs, results, strict=False)))
    begin = (store(count, [], 0), store(is_limited, [], False), store(limit, [], 0))
    nests = (once(*places.start(), *begin), each([candidate], take), once(sort, write))
    return Procedure(nests, (*places.temporaries, count, is_limited, limit), tuple(rows.values()))


@sized_by_data("TopK", operands=[1])
def top_k_of_data(build: Builder, node: Node) -> Sequence[Value]:
    x, count = node.operand(0), build("Reshape", wide(build, node.operand(1)), build.ints([1]))
    axis = axis_of(node, len(x.shape), -1)
    length = build("Gather", build("Shape", x), build.ints([axis]))
    fits = build("And", build("LessOrEqual", count, length), build("GreaterOrEqual", count, build.ints([0])))
    k = observe(build, count, fits, "k is more than there are elements")
    return build.node("TopK", x, k, outputs=len(node.outputs), **node.attributes)


# ---------------------------------------------------------------------- equal rows


@sized_by_data("Unique", operands=[])
def unique(build: Builder, node: Node) -> Sequence[Value]:
    """Rows along an axis, or all elements: sorted, equal ones are beside each other, and the first of them count."""
    x, axis = node.operand(0), node.attributes.get("axis")
    if axis is None:
        x, axis = build("Reshape", x, build.ints([-1])), 0
    axis = normalized_axis(node, axis, len(x.shape))
    perm = (axis, *(n for n in range(len(x.shape)) if n != axis))
    rows = build("Flatten", build("Transpose", x, perm=perm), axis=1)
    order = build("SortRows", rows, domain=DOMAIN)
    is_first = build("StartsGroup", rows, order, domain=DOMAIN)
    group = build("CumSum", build("Cast", is_first, to=INT64.onnx), build.constant(0, INT64))
    inverse = build("ScatterElements", order, order, build("Sub", group, build.constant(1, INT64)))
    first = build("Gather", order, build("Squeeze", indices_where(build, is_first), build.ints([0])))
    if not node.attributes.get("sorted", 1):  # in the order of their first places
        order = build("SortRows", build("Unsqueeze", first, build.ints([1])), domain=DOMAIN)
        first = build("Gather", first, order)
        inverse = build("Gather", build("SortRows", build("Unsqueeze", order, build.ints([1])), domain=DOMAIN), inverse)
    zeros, ones = (build("Expand", build.constant(n, INT64), build("Shape", v)) for n, v in ((0, first), (1, inverse)))
    counts = build("ScatterElements", zeros, inverse, ones, reduction="add")
    return [build("Gather", x, first, axis=axis), first, inverse, counts][: len(node.outputs)]


@infers("SortRows", domain=DOMAIN)
def sorted_type(node: Node) -> Type:
    return TensorType(INT64, node.operand(0).shape[:1])


@performs("SortRows", domain=DOMAIN)
def sort_rows(node: Node) -> Procedure:
    """The places of rows [n, m] in their order; of equal ones, the first comes first."""
    x, y = node.operand(0), node.output
    places, n = Sorted(x.shape[0]), over("n", x.shape[0])
    sort = places.sort(size(x.shape[0]), lambda a, b: _where_they_differ(x, a, b, is_less))
    copy = each([n], store(y, [n], places.at(n)))
    return Procedure((once(*places.start()), sort, copy), places.temporaries)


@computes("StartsGroup", domain=DOMAIN)
def starts_group(node: Node) -> Computation:
    """Whether a row [n, m] differs from the one before it, in an order."""
    x, order = node.operand(0), node.operand(1)

    def body(n: Expr) -> Expr:
        return select(n > 0, _where_they_differ(x, load(order, call("max", n - 1, 0)), load(order, n), is_other), True)

    return compute(order.shape, body)


def _where_they_differ(x: Value, a: Expr, b: Expr, holds: Callable[[Expr, Expr], Expr]) -> Expr:
    """Whether something holds of the elements of two rows at the first place where they differ, if they do."""
    k = over("k", x.shape[1])
    differs = is_other(load(x, a, k), load(x, b, k))
    place = Reduce("argmax", (k.axis,), differs, literal(0, INT64), INT64)
    return select(size(x.shape[1]) > 0, holds(load(x, a, place), load(x, b, place)), False)


# ---------------------------------------------------------------------- boxes


@sized_by_data("NonMaxSuppression", operands=[])
def non_max_suppression(build: Builder, node: Node) -> Value:
    boxes, scores = node.operand(0), node.operand(1)
    most = node.input(2)
    length = build("Gather", build("Shape", scores), build.ints([2]))
    limit = build.ints([0]) if most is None else build("Reshape", most, build.ints([1]))
    limit = build("Min", build("Max", limit, build.ints([0])), length)
    limit = limit if limit.known is not None else observe(build, limit)
    operands = [boxes, scores, limit, node.input(3), node.input(4)]
    centered = node.attributes.get("center_point_box", 0)
    chosen = build("NonMaxSuppression", *operands, domain=DOMAIN, center_point_box=centered)
    is_box = build("GreaterOrEqual", chosen, build.scalar(0, chosen))
    places = build("Transpose", indices_where(build, is_box), perm=(1, 0))  # a batch, a class and a rank each
    lead = build("Slice", places, build.ints([0]), build.ints([2]), build.ints([1]))
    return build("Concat", lead, build("Unsqueeze", build("GatherND", chosen, places), build.ints([1])), axis=1)


@infers("NonMaxSuppression", domain=DOMAIN)
def non_max_suppression_type(node: Node) -> Type:
    """Boxes chosen for each class of each sample, `[batches, classes, limit]`; -1 where there are no more."""
    return TensorType(INT64, (*node.operand(1).shape[:2], *required_ints(node, 2)))


@performs("NonMaxSuppression", domain=DOMAIN)
def suppression(node: Node) -> Procedure:
    """The best boxes that overlap none chosen before; for each class of each sample."""
    boxes, scores = node.operand(0), node.operand(1)
    (limit,), winners = required_ints(node, 2), node.output
    threshold, least = (node.input(n) for n in (3, 4))
    n, c = axes_of(scores.shape[:2], "c")
    batch, kind = Index(n), Index(c)
    length = scores.shape[2]
    places = Sorted(length)
    candidates, chosen = counter("candidates"), counter("chosen")
    overlaps = temporary("overlaps", BOOL, [])
    box, rank, other = over("box", length), over("rank", length), over("w", limit)
    best = places.at(rank)
    score = load(scores, batch, kind, box)
    keep = _reaches(score, least)
    collect = each([box], store(places.order, [0, current(candidates)], box, keep), advance(candidates, keep))
    pair = (best, current(winners, [batch, kind, other]))
    corners = [[load(boxes, batch, place, n) for n in range(4)] for place in pair]
    highest = literal(0.0, boxes.tensor.dtype) if threshold is None else only(threshold)
    compare = store(overlaps, [], _overlap(node, *corners) > highest)
    choose = each(
        [rank],
        store(overlaps, [], False),
        each([other], compare, until=(other >= current(chosen)) | current(overlaps)),
        once(
            store(winners, [batch, kind, current(chosen)], best),
            advance(chosen),
            when=call("logical_not", current(overlaps)),
        ),
        until=(rank >= current(candidates)) | (current(chosen) >= size(limit)),
    )
    none = store(winners, [batch, kind, other], -1)
    begin = (*places.start(), *(store(value, [], 0) for value in (candidates, chosen)))
    sort = places.sort(current(candidates), lambda a, b: load(scores, batch, kind, b) < load(scores, batch, kind, a))
    nests = (once(*begin), each([other], none), collect, sort, choose)
    return Procedure(nests, (*places.temporaries, candidates, chosen, overlaps), (n, c))


def _reaches(score: Expr, least: Value | None) -> Expr:
    """Whether a score counts; NaN does not."""
    return call("eq", score, score) if least is None else score >= only(least)


def _overlap(node: Node, first: Sequence[Expr], second: Sequence[Expr]) -> Expr:
    """The intersection of two boxes over their union; 0 where the intersection is empty."""
    sides = []
    for axis in (0, 1):
        ends = []
        for box in (first, second):
            if node.attributes["center_point_box"]:
                half = box[axis + 2] / 2
                ends.append((box[axis] - half, box[axis] + half))
            else:
                a, b = box[axis], box[axis + 2]
                ends.append((call("min", a, b), call("max", a, b)))
        common = call("min", ends[0][1], ends[1][1]) - call("max", ends[0][0], ends[1][0])
        sides.append((call("max", common, 0.0), ends[0][1] - ends[0][0], ends[1][1] - ends[1][0]))
    common, one, two = (a * b for a, b in zip(*sides, strict=True))
    return select(common > 0, common / (one + two - common), 0.0)
