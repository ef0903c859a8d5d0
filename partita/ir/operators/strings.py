"""Operators on strings: joined, split, normalized, matched, looked up, and counted as n-grams."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from partita.errors import ModelError, ShapeError, UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import required_ints
from partita.ir.expression import Computation, Expr, call, literal
from partita.ir.formula import cast, indices_over, load, over, reduction, select, size, tensor
from partita.ir.graph import Node, Value
from partita.ir.operators.indexing import indices_where
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.operators.sorting import is_less, is_other
from partita.ir.procedure import Procedure, current, each, once, procedure, store, temporary
from partita.ir.registry import becomes, calls, computes, decomposes, infers, performs
from partita.ir.regular_expression import PatternError, compiled
from partita.ir.routine import Routine
from partita.ir.types import DType, TensorType

LIBRARY = "text"
INT64 = DType.INT64


@becomes("StringSplit")
def string_split(build: Builder, node: Node, x: Value, *, delimiter: str = "", maxsplit: int = -1) -> Sequence[Value]:
    """The pieces are counted first: the most decide how many there is room for."""
    attributes = {"delimiter": delimiter, "most": maxsplit}
    split = functools.partial(build.node, "SplitStrings", x, outputs=2, domain=DOMAIN, **attributes)
    _, counts = split(build.ints([0]))
    every = build("Concat", build("Reshape", counts, [-1]), [0], axis=0)
    return split(observe(build, build("ReduceMax", every, [0], keepdims=1)))


@calls("SplitStrings", domain=DOMAIN)
def split_strings(node: Node, x: Value, _: Value, *, delimiter: str, most: int) -> Routine:
    """As many pieces as operand 1 says, of which those missing are empty; and how many there are."""
    (room,) = required_ints(node, 1)
    results = (TensorType(DType.STRING, (*x.shape, room)), TensorType(INT64, x.shape))
    return Routine(LIBRARY, "split_strings", dims.product(x.shape), (x, delimiter, most, room), results)


@functools.cache
def case_table(to_upper: bool) -> np.ndarray:
    """Rows (character, what it becomes): Python's mapping, as UTF-8 filled up with 0. What depends on neighbours (a
    final sigma) is left out."""
    change = str.upper if to_upper else str.lower
    changed = [(c, change(chr(c))) for c in range(0x1F000) if change(chr(c)) != chr(c)]
    rows = [[c, *np.frombuffer(text.encode().ljust(8, b"\0"), np.int32)] for c, text in changed]
    return np.asarray(rows, np.int32)


@becomes("StringNormalizer")
def string_normalizer(
    build: Builder, node: Node, x: Value, *, case_change_action: str = "NONE", is_case_sensitive: int = 0,
    stopwords: Sequence[str] = (),
) -> Value:  # fmt: skip
    """What is left of the strings once the stop words are out; one empty string where that is none."""
    if len(x.shape) not in (1, 2) or (len(x.shape) == 2 and dims.is_static(x.shape[0]) and x.shape[0] != 1):
        raise ShapeError(f"{node.describe()}: strings are normalized in the shapes [C] and [1, C]")
    if case_change_action not in ("NONE", "LOWER", "UPPER"):
        raise ModelError(f"{node.describe()}: case_change_action {case_change_action!r} is not NONE, LOWER or UPPER")

    def changed(x: Value, to_upper: bool) -> Value:
        return build("ChangeCase", x, build.constant(case_table(to_upper), DType.INT32), domain=DOMAIN)

    kept = build("Reshape", x, [-1])
    compared = kept if is_case_sensitive or not stopwords else changed(kept, to_upper=False)
    dropped = [word if is_case_sensitive else word.lower() for word in stopwords]
    stays = looked_up(build, compared, dropped, [*(False for _ in dropped), True], DType.BOOL)
    stays = build("Concat", stays, build("Not", build("ReduceMax", stays)), axis=0)  # "", where nothing else does
    places = build("Squeeze", indices_where(build, stays), [0])
    kept = build("Gather", build("Concat", kept, build.constant([""], DType.STRING), axis=0), places)
    kept = kept if case_change_action == "NONE" else changed(kept, case_change_action == "UPPER")
    return kept if len(x.shape) == 1 else build("Unsqueeze", kept, [0])


@calls("ChangeCase", domain=DOMAIN)
def change_case(node: Node, x: Value, table: Value) -> Routine:
    return Routine(LIBRARY, "change_case", dims.product(x.shape), (x, table, table.shape[0]), (x.tensor,), cost=500.0)


@decomposes("RegexFullMatch")
def regex_full_match(build: Builder, node: Node, x: Value, *, pattern: str = "") -> Value:
    try:
        program, ranges = compiled(pattern)
    except PatternError as error:
        message = f"{node.describe()}: the pattern {pattern!r} cannot be used: {error}"
        raise UnsupportedOperatorError(message) from error
    tables = [build.constant(np.reshape(rows, (-1, n)), DType.INT32) for rows, n in ((program, 3), (ranges, 2))]
    return build("MatchProgram", x, *tables, domain=DOMAIN)


@calls("MatchProgram", domain=DOMAIN)
def match_program(node: Node, x: Value, program: Value, ranges: Value) -> Routine:
    arguments, result = (x, program, program.shape[0], ranges), TensorType(DType.BOOL, x.shape)
    return Routine(LIBRARY, "match_program", dims.product(x.shape), arguments, (result,), cost=2000.0)


def looked_up(build: Builder, x: Value, keys: Any, values: Sequence[Any], dtype: DType) -> Value:
    """The value of each element's key; the last of the values where it is none. Of equal keys the last counts. Numbers
    are compared as int64 or float64; a NaN is equal to another."""
    kind = DType.STRING if x.tensor.dtype is DType.STRING else DType.FLOAT64 if x.tensor.dtype.is_float else INT64
    comparable = [key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key for key in keys]
    _, backward = np.unique(np.asarray(comparable, kind.numpy)[::-1], return_index=True)
    table = build.constant([keys[-1 - n] for n in backward], kind)
    found = build("Find", build.cast(x, kind), table, domain=DOMAIN)
    return build("Gather", build.constant([*(values[-2 - n] for n in backward), values[-1]], dtype), found)


infers("Find", domain=DOMAIN)(lambda node, x, keys: TensorType(INT64, x.shape))


@performs("Find", domain=DOMAIN)
def find_places(node: Node, x: Value, keys: Value) -> Procedure:
    """How many keys come before each element: a sum of powers of two, the largest first."""
    i, count, place = indices_over(x.shape), keys.shape[0], temporary("place", INT64, [])
    bit = over("bit", count.bit_length())
    further = current(place) + call("shift_right", literal(1 << count.bit_length() >> 1, INT64), bit)
    last = load(keys, call("min", further, count) - 1)
    add = store(place, [], further, when=(further <= count) & is_less(last, load(x, *i)))
    other = is_other(load(keys, current(place)), load(x, *i))
    found = select(current(place) < count, select(other, count, current(place)), count)
    nest = each([], store(place, [], 0), each([bit], add), once(store(node.output, i, found)))
    return procedure(nest, rows=i)


@decomposes("TfIdfVectorizer")
def tf_idf(
    build: Builder, node: Node, x: Value, *, ngram_indexes: Sequence[int], ngram_counts: Sequence[int],
    min_gram_length: int, max_gram_length: int, max_skip_count: int, mode: str, weights: Sequence[float] = (),
) -> Value:  # fmt: skip
    """Counts of the n-grams of each length, weighted, and put into their columns; of other lengths nothing is found."""
    is_text = x.tensor.dtype is DType.STRING
    pool = node.attributes.get("pool_strings" if is_text else "pool_int64s", ())
    if not pool:
        raise ModelError(f"{node.describe()}: the pool of n-grams is missing, or is of another type than the operand")
    if len(set(ngram_indexes)) != len(ngram_indexes):
        raise ModelError(f"{node.describe()}: two n-grams have one column; every column must be of one")
    if is_text:  # numbers stand for strings
        number = {text: n for n, text in enumerate(dict.fromkeys(pool))}
        x, pool = looked_up(build, x, [*number], range(len(number) + 1), INT64), [number[text] for text in pool]
    x, counts = build.cast(x, INT64), []
    nothing = build("Slice", x, [0], [0], [-1])
    for n, (start, end) in enumerate(pairwise([*ngram_counts, len(pool)]), start=1):
        source = x if min_gram_length <= n <= max_gram_length else nothing
        grams = build.constant(np.reshape(pool[start:end], (-1, n)), INT64)
        counts.append(build("CountGrams", source, grams, domain=DOMAIN, skips=max_skip_count if n > 1 else 0))
    none = build("CountGrams", nothing, build.constant([[0]], INT64), domain=DOMAIN, skips=0)
    result = build("Concat", *counts, none, axis=-1)
    result = build("Min", result, 1) if mode == "IDF" else result
    if mode != "TF" and weights:
        result = build("Mul", result, build.constant([*weights, 0.0], DType.FLOAT32))
    column = dict(zip(ngram_indexes, range(result.shape[-1] - 1), strict=True))
    places = [column.get(n, -1) for n in range(max(ngram_indexes, default=-1) + 1)]
    return build("Gather", result, places, axis=-1)


@computes("CountGrams", domain=DOMAIN)
def count_grams(node: Node, x: Value, grams: Value, *, skips: int) -> Computation:
    """How often each row of `grams` `[count, n]` is found along the last axis, with up to `skips` elements skipped."""
    length, n = x.shape[-1], grams.shape[1]
    i = indices_over((*x.shape[:-1], grams.shape[0]))

    def term(skip: Expr, start: Expr) -> Expr:
        places = [start + (skip + 1) * place for place in range(n)]
        equal = [call("eq", load(x, *i[:-1], at), load(grams, i[-1], k)) for k, at in enumerate(places)]
        found = functools.reduce(operator.and_, equal)
        return cast(select(places[-1] < size(length), found, False), DType.FLOAT32)

    return tensor(i, reduction("sum", [skips + 1, length], term))
