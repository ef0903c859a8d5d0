"""Boxes: NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Sequence

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import required_ints
from partita.ir.expression import Expr, call, literal
from partita.ir.formula import cast, load, only, over, reduce, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.indexing import indices_where
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.operators.sorting import Places, advance, counter
from partita.ir.procedure import Procedure, current, each, fill, once, procedure, store, temporary
from partita.ir.registry import becomes, infers, performs
from partita.ir.types import DType, TensorType, Type

INT64 = DType.INT64
LANES = 8  # boxes that are compared with one at a time
SIDES = 5  # of a box: where it begins and ends, along both axes; its area


@becomes("NonMaxSuppression")
def non_max_suppression(
    build: Builder, node: Node, boxes: Value, scores: Value, most: Value | None, threshold: Value | None,
    least: Value | None, *, center_point_box: int = 0,
) -> Value:  # fmt: skip
    limit = build("Reshape", most or build.ints([0]), [1])
    limit = build("Min", build("Max", limit, [0]), build("Gather", build("Shape", scores), [2]))
    limit = limit if limit.known is not None else observe(build, limit)
    operands = (boxes, scores, limit, threshold, least)
    chosen = build("NonMaxSuppression", *operands, domain=DOMAIN, center_point_box=center_point_box)
    is_box = build("GreaterOrEqual", chosen, 0)
    places = build("Transpose", indices_where(build, is_box), perm=(1, 0))  # a batch, a class and a rank each
    lead = build("Slice", places, [0], [2], [1])
    return build("Concat", lead, build("Unsqueeze", build("GatherND", chosen, places), [1]), axis=1)


@infers("NonMaxSuppression", domain=DOMAIN)
def non_max_suppression_type(node: Node, boxes: Value, scores: Value) -> Type:
    """Boxes chosen for each class of each sample, `[batches, classes, limit]`; -1 where there are no more."""
    return TensorType(INT64, (*scores.shape[:2], *required_ints(node, 2)))


@performs("NonMaxSuppression", domain=DOMAIN)
def suppression(
    node: Node, boxes: Value, scores: Value, _: Value, threshold: Value | None, least: Value | None, *,
    center_point_box: int,
) -> Procedure:  # fmt: skip
    """The best boxes that overlap none chosen before; for each class of each sample."""
    (limit,), winners, length = required_ints(node, 2), node.output, scores.shape[2]
    batch, kind = over("batch", scores.shape[0]), over("kind", scores.shape[1])
    places, candidates, chosen = Places(length), counter("candidates"), counter("chosen")
    blocks, kept = dims.ceil_div(limit, LANES), boxes.tensor.dtype
    own, others = temporary("own", kept, [SIDES]), temporary("others", kept, [SIDES, blocks * LANES])
    overlaps, block, lane = temporary("overlaps", DType.FLOAT32, []), over("block", blocks), over("lane", LANES)
    box, rank, other, side = over("box", length), over("rank", length), over("w", limit), over("side", SIDES)
    best, score = places.at(rank), load(scores, batch, kind, box)
    keep = call("eq", score, score) if least is None else score > only(least)  # NaN never counts
    collect = each([box], store(places.order, [0, current(candidates)], box, keep), advance(candidates, when=keep))
    pair = [
        [current(own, [k]) for k in range(SIDES)],
        [current(others, [k, block * LANES + lane]) for k in range(SIDES)],
    ]
    highest = literal(0.0, kept) if threshold is None else only(threshold)
    hits = reduce("sum", [lane], cast(_overlap(*pair) > highest, DType.FLOAT32))
    measures = _measures([load(boxes, batch, best, k) for k in range(4)], is_centered=bool(center_point_box))
    win = store(winners, [batch, kind, current(chosen)], best)
    join = each([side], store(others, [side, current(chosen)], current(own, [side])))
    choose = each(
        [rank],
        *(store(own, [k], measure) for k, measure in enumerate(measures)),
        store(overlaps, [], 0.0),
        each([block], store(overlaps, [], hits), until=(block * LANES >= current(chosen)) | (current(overlaps) > 0)),
        once(win, join, advance(chosen), when=call("eq", current(overlaps), 0.0)),
        until=(rank >= current(candidates)) | (current(chosen) >= size(limit)),
    )
    none = store(winners, [batch, kind, other], -1)
    counts = (store(value, [], 0) for value in (candidates, chosen))
    begin = (*places.start(), *counts, fill(others, lambda *_: literal(0.0, kept)))  # which nothing overlaps
    sort = places.sort(current(candidates), lambda a: load(scores, batch, kind, a), is_falling=True)
    return procedure(*begin, each([other], none), collect, sort, choose, rows=[batch, kind])


def _measures(box: Sequence[Expr], *, is_centered: bool) -> list[Expr]:
    """Where a box begins and ends, along both axes; its area. Its ends are given in any order."""
    ends: list[Expr] = []
    for a, b in ((box[0], box[2]), (box[1], box[3])):
        ends += (a - b / 2, a + b / 2) if is_centered else (call("min", a, b), call("max", a, b))
    return [*ends, (ends[1] - ends[0]) * (ends[3] - ends[2])]


def _overlap(one: Sequence[Expr], two: Sequence[Expr]) -> Expr:
    """The intersection of two boxes over their union; 0 where the intersection is empty."""
    sides = [call("min", one[k + 1], two[k + 1]) - call("max", one[k], two[k]) for k in (0, 2)]
    common = call("max", sides[0], 0.0) * call("max", sides[1], 0.0)
    return select(common > 0, common / (one[4] + two[4] - common), 0.0)
