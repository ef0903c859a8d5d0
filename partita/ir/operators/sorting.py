"""Operators that order elements: TopK, Unique."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from partita.errors import ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import axis_of, normalized_axis, required_ints
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, Index, Literal, Reduce, call, literal
from partita.ir.formula import cast, compute, indices_over, load, over, put, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.indexing import indices_where
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.procedure import Procedure, Step, current, each, once, procedure, store, temporary
from partita.ir.registry import becomes, computes, infers, performs, sized_by_data
from partita.ir.types import DType, TensorType, Type

INT64, UINT64, BOOL = DType.INT64, DType.UINT64, DType.BOOL
DIGIT = 8  # bits
DIGITS = 1 << DIGIT
FEW = 32  # elements that are chosen by inserting each where it belongs
MOST_COLUMNS = 8  # that are worth a sort each
PASSES = 40  # of a merge sort: more than any tensor needs


def counter(name: str) -> Value:
    return temporary(name, INT64, [])


def advance(value: Value, place: Sequence[Expr] = (), when: Expr | None = None) -> Step:
    """Counts one more."""
    return store(value, place, current(value, place) + 1, when)


# ---------------------------------------------------------------------- sorting


class Places:
    """The places 0, 1, 2 ... as they are sorted, from one half of `order` to the other; equal ones stay as they are."""

    def __init__(self, longest: Dim) -> None:
        self.longest = longest
        self.order = temporary("order", INT64, [2, longest + 1])  # one more, that is read past the end and dropped
        self.side = counter("side")

    def at(self, place: Expr | int) -> Expr:
        """What comes at a place once all is sorted."""
        return current(self.order, [current(self.side), place])

    def start(self) -> Sequence[Step]:
        """The places in order."""
        side, n = indices_over(self.order.shape)
        places = each([side, n], store(self.order, [side, n], select(n < size(self.longest), n, 0)))
        return places, store(self.side, [], 0)

    def merge(self, count: Expr, before: Callable[[Expr, Expr], Expr]) -> Step:
        """Sorts the first `count` places by comparing: of runs sorted so far, two at a time become one of twice the
        width. `before(a, b)` tells whether what is at `a` must precede what is at `b`."""
        left, takes_right = counter("left"), counter("takes_right")
        now, other, turn = over("t", self.longest), 1 - current(self.side), over("pass", PASSES)
        width = call("shift_left", literal(1, INT64), turn)
        begin = call("bit_and", now, width * -2)  # of the two runs, which one is made of
        middle, stop = (call("min", begin + run, count) for run in (width, width * 2))
        heads = [middle + now - current(left), current(left)]  # of the right run and of the left
        is_right_next = (heads[1] >= middle) | ((heads[0] < stop) & before(*map(self.at, heads)))
        merge = each(
            [now],
            store(left, [], now, when=call("eq", now, begin)),
            store(takes_right, [], cast(is_right_next, INT64)),
            store(self.order, [other, now], self.at(select(current(takes_right) > 0, *heads))),
            store(left, [], heads[1] + 1 - current(takes_right)),  # quicker than a branch
            until=now >= count,
        )
        return once(store(left, [], 0), each([turn], merge, store(self.side, [], other), until=width >= count))

    def sort(self, count: Expr, element: Callable[[Expr], Expr], *, is_falling: bool = False) -> Step:
        """Sorts the first `count` places by the numbers there, NaN above all: by the digits of keys, the last digit
        first; one that all have in common is left out."""
        keys = temporary("keys", UINT64, [2, self.longest + 1])
        starts = temporary("starts", INT64, [DIGITS + 1])  # of the places for each digit, counted up from 0
        digit, n, value = counter("digit"), over("t", self.longest), over("v", DIGITS)
        key, bits = key_of(element(self.at(n)), is_falling)
        number, here, there = over("digit", -(-bits // DIGIT)), current(self.side), 1 - current(self.side)
        own, next_own = current(digit), current(digit) + 1

        def find(place: Expr | int) -> Step:
            rest = call("shift_right", current(keys, [here, place]), cast(number * DIGIT, UINT64))
            return store(digit, [], cast(call("bit_and", rest, literal(DIGITS - 1, UINT64)), INT64))

        count_up = each([n], find(n), advance(starts, [next_own]), until=n >= count)
        add_up = each([value], store(starts, [value + 1], current(starts, [value + 1]) + current(starts, [value])))
        halves = ((self.order, self.at(n)), (keys, current(keys, [here, n])))
        moves = (store(half, [there, current(starts, [own])], what) for half, what in halves)
        move = each([n], find(n), *moves, advance(starts, [own]), until=n >= count)
        differ = once(add_up, move, store(self.side, [], there), when=current(starts, [next_own]) < count)
        clear = (store(starts, [0], 0), each([value], store(starts, [value + 1], 0)))
        by_digit = each([number], *clear, count_up, find(0), differ)
        return once(each([n], store(keys, [here, n], key), until=n >= count), by_digit)


def key_of(x: Expr, is_falling: bool) -> tuple[Expr, int]:
    """A uint64 that is ordered as `x` is, NaN above all, or the other way round; and how many bits it has."""
    if x.dtype.is_float:
        x = cast(x, DType.FLOAT64 if x.dtype is DType.FLOAT64 else DType.FLOAT32) + 0.0  # -0 is 0
        bits, raw = x.dtype.bits, cast(call("bit_cast", x, dtype=DType.of(np.dtype(f"u{x.dtype.itemsize}"))), UINT64)
        first, last = 1 << (bits - 1), (1 << bits) - 1
        key = select(is_nan(x), literal(last, UINT64), select(raw >= first, last - raw, raw + first))
    else:
        bits, last = x.dtype.bits, (1 << x.dtype.bits) - 1
        key = cast(x, UINT64) + (1 << (bits - 1) if x.dtype.is_signed else 0)
    return last - key if is_falling else key, bits


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
def top_k_types(node: Node, x: Value) -> list[Type]:
    (count,), axis = required_ints(node, 1), axis_of(node, len(x.shape), -1)
    if dims.all_static([count, x.shape[axis]]) and not 0 <= count <= x.shape[axis]:
        raise ShapeError(f"{node.describe()}: k is {count}, but axis {axis} has {x.shape[axis]} elements")
    shape = put(x.shape, axis, count)
    return [TensorType(x.tensor.dtype, shape), TensorType(INT64, shape)]


@performs("TopK")
def top_k(node: Node, x: Value, *, largest: int = 1) -> Procedure:
    """The largest (or smallest) first; NaN is the largest of all; of equals, the first comes first."""
    axis = axis_of(node, len(x.shape), -1)
    rows, most = indices_over(x.shape), node.output.shape[axis]
    k, candidate = over("k", most), over("n", x.shape[axis])

    def element(place: Expr) -> Expr:
        return load(x, *put(rows, axis, place))

    choose = _few if dims.is_static(most) and 0 < most <= FEW else _many
    steps, place = choose(most, candidate, element, largest)
    results = zip(node.outputs, (element(place(k)), place(k)), strict=False)
    write = each([k], *(store(y, put(rows, axis, k), result) for y, result in results))
    return procedure(*steps, write, rows=put(rows, axis))


Chosen = tuple[Sequence[Step], Callable[[Expr], Expr]]
"""The steps that choose; and the place of the k-th that was chosen."""


def is_better(a: Expr, b: Expr, largest: int) -> Expr:
    return is_less(b, a) if largest else is_less(a, b)


def _few(most: int, candidate: Index, element: Callable[[Expr], Expr], largest: int) -> Chosen:
    """The best so far are kept in order; what is better than the last of them goes up to its place."""
    mine = element(candidate)
    best, order = temporary("best", mine.dtype, [most]), temporary("order", INT64, [most])
    place = counter("place")
    now, above = current(place), call("max", current(place) - 1, 0)
    down = (store(kept, [now], current(kept, [above])) for kept in (best, order))
    stays = call("logical_not", is_better(mine, current(best, [above]), largest))
    take = once(
        store(place, [], call("min", candidate, most - 1)),
        each([over("s", most)], *down, store(place, [], above), until=(now <= 0) | stays),
        *(store(kept, [now], new) for kept, new in ((best, mine), (order, candidate))),
        when=(candidate < most) | is_better(mine, current(best, [most - 1]), largest),
    )
    return [each([candidate], take)], lambda k: current(order, [k])


def _many(most: Dim, candidate: Index, element: Callable[[Expr], Expr], largest: int) -> Chosen:
    """Candidates are collected; when there is no room for more, the best remain, and the worst of these is a limit."""
    length = candidate.axis.extent
    room = dims.minimum(length, dims.maximum(2 * most, DIGITS))
    places, count, mine = Places(room), counter("count"), element(candidate)
    limit = temporary("limit", mine.dtype, [])  # once there was no room
    sort = places.sort(current(count), element, is_falling=bool(largest))
    thin_out = once(
        sort,
        store(limit, [], element(places.at(size(dims.maximum(most - 1, 0))))),
        store(count, [], size(most)),
        when=call("eq", current(count), size(room)) & (size(room) < size(length)),
    )
    is_taken = (candidate < size(room)) | is_better(mine, current(limit), largest)
    end = [current(places.side), current(count)]
    take = once(store(places.order, end, candidate), advance(count), thin_out, when=is_taken)
    return [*places.start(), store(count, [], 0), store(limit, [], 0), each([candidate], take), sort], places.at


@sized_by_data("TopK", operands=[1])
def top_k_of_data(build: Builder, node: Node, x: Value, count: Value) -> Sequence[Value]:
    count = build("Reshape", build.cast(count, INT64), [1])
    length = build("Gather", build("Shape", x), [axis_of(node, len(x.shape), -1)])
    fits = build("And", build("LessOrEqual", count, length), build("GreaterOrEqual", count, [0]))
    k = observe(build, count, fits, "k is more than there are elements")
    return build.node("TopK", x, k, outputs=len(node.outputs), **node.attributes)


# ---------------------------------------------------------------------- equal rows


@becomes("Unique")
def unique(build: Builder, node: Node, x: Value, *, axis: int | None = None, sorted: int = 1) -> Sequence[Value]:
    """Rows along an axis, or all elements: sorted, equal ones are beside each other, and the first of them count."""
    x = build("Reshape", x, [-1]) if axis is None else x
    axis = normalized_axis(node, axis or 0, len(x.shape))
    perm = (axis, *(n for n in range(len(x.shape)) if n != axis))
    rows = build("Flatten", build("Transpose", x, perm=perm), axis=1)
    order = build("SortRows", rows, domain=DOMAIN)
    is_first = build("StartsGroup", rows, order, domain=DOMAIN)
    group = build("CumSum", build.cast(is_first, INT64), build.constant(0, INT64))
    inverse = build("ScatterElements", order, order, build("Sub", group, 1))
    first = build("Gather", order, build("Squeeze", indices_where(build, is_first), [0]))
    if not sorted:  # in the order of their first places
        order = build("SortRows", build("Unsqueeze", first, [1]), domain=DOMAIN)
        ranks = build("SortRows", build("Unsqueeze", order, [1]), domain=DOMAIN)
        first, inverse = build("Gather", first, order), build("Gather", ranks, inverse)
    zeros, ones = (build("Expand", build.constant(n, INT64), build("Shape", v)) for n, v in ((0, first), (1, inverse)))
    counts = build("ScatterElements", zeros, inverse, ones, reduction="add")
    return [build("Gather", x, first, axis=axis), first, inverse, counts][: len(node.outputs)]


infers("SortRows", domain=DOMAIN)(lambda node, x: TensorType(INT64, x.shape[:1]))


@performs("SortRows", domain=DOMAIN)
def sort_rows(node: Node, x: Value) -> Procedure:
    """The places of rows [n, m] in their order; of equal ones, the first comes first."""
    (count, width), n, places = x.shape, over("n", x.shape[0]), Places(x.shape[0])
    if x.tensor.dtype is not DType.STRING and dims.is_static(width) and width <= MOST_COLUMNS:
        column = over("c", width)
        sort: Step = each([column], places.sort(size(count), lambda a: load(x, a, width - 1 - column)))
    else:
        sort = places.merge(size(count), lambda a, b: _where_they_differ(x, a, b, is_less))
    return procedure(*places.start(), sort, each([n], store(node.output, [n], places.at(n))))


@computes("StartsGroup", domain=DOMAIN)
def starts_group(node: Node, x: Value, order: Value) -> Computation:
    """Whether a row [n, m] differs from the one before it, in an order."""

    def body(n: Expr) -> Expr:
        return select(n > 0, _where_they_differ(x, load(order, call("max", n - 1, 0)), load(order, n), is_other), True)

    return compute(order.shape, body)


def _where_they_differ(x: Value, a: Expr, b: Expr, holds: Callable[[Expr, Expr], Expr]) -> Expr:
    """Whether something holds of the elements of two rows at the first place where they differ, if they do."""
    k = over("k", x.shape[1])
    differs = is_other(load(x, a, k), load(x, b, k))
    place = Reduce("argmax", (k.axis,), differs, literal(0, INT64), INT64)
    return select(size(x.shape[1]) > 0, holds(load(x, a, place), load(x, b, place)), False)
