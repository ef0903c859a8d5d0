"""TfIdfVectorizer: how often each of a list of n-grams occurs in rows of integers or strings."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from partita.errors import ModelError
from partita.ir.builder import Builder
from partita.ir.expression import Computation, Expr, call
from partita.ir.formula import cast, compute, load, reduction, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN
from partita.ir.operators.registry import computes, decomposes, infers
from partita.ir.operators.strings import find
from partita.ir.types import DType, TensorType, Type


@infers("TfIdfVectorizer")
def tf_idf_type(node: Node) -> Type:
    columns = max(node.attributes["ngram_indexes"], default=-1) + 1
    return TensorType(DType.FLOAT32, (*node.operand(0).shape[:-1], columns))


@decomposes("TfIdfVectorizer")
def tf_idf(build: Builder, node: Node) -> Value:
    """Counts of the n-grams of each length, weighted, and put into their columns."""
    attributes = node.attributes
    columns, is_text = attributes["ngram_indexes"], node.operand(0).tensor.dtype is DType.STRING
    pool = attributes.get("pool_strings" if is_text else "pool_int64s", ())
    if not pool:
        raise ModelError(f"{node.describe()}: the pool of n-grams is missing, or is of another type than the operand")
    if len(set(columns)) != len(columns):
        raise ModelError(f"{node.describe()}: two n-grams have one column; every column must be of one")
    x, pool = numbered(build, node.operand(0), pool) if is_text else (node.operand(0), pool)
    x, counts, first = build("Cast", x, to=DType.INT64.onnx), [], 0
    chosen: list[int] = []
    bounds = [*attributes["ngram_counts"], len(pool)]
    for n, (start, end) in enumerate(pairwise(bounds), start=1):
        number = (end - start) // n
        if number and attributes["min_gram_length"] <= n <= attributes["max_gram_length"]:
            grams = build.constant(np.reshape(pool[start:end], (number, n)), DType.INT64)
            skips = attributes["max_skip_count"] if n > 1 else 0
            counts.append(build("CountGrams", x, grams, domain=DOMAIN, skips=skips))
            chosen += range(first, first + number)
        first += number
    none = build("Slice", x, build.ints([0]), build.ints([1]), build.ints([-1]))
    zero = build("CountGrams", none, build.constant(np.zeros((1, 2)), DType.INT64), domain=DOMAIN, skips=0)
    result = build("Concat", *counts, zero, axis=-1)
    if attributes["mode"] == "IDF":
        result = build("Min", result, build.scalar(1, result))
    if attributes["mode"] != "TF" and "weights" in attributes:
        weights = [attributes["weights"][gram] for gram in chosen]
        result = build("Mul", result, build.constant([*weights, 0.0], DType.FLOAT32))
    places = {columns[gram]: place for place, gram in enumerate(chosen)}
    width = max(columns, default=-1) + 1
    return build("Gather", result, build.ints([places.get(n, len(chosen)) for n in range(width)]), axis=-1)


def numbered(build: Builder, x: Value, pool: Sequence[str]) -> tuple[Value, Sequence[int]]:
    """Strings as their places among the pool's."""
    places, order = find(build, x, list(dict.fromkeys(pool)))
    place = {text: n for n, text in enumerate(np.array(list(dict.fromkeys(pool)), object)[order])}
    return places, [place[text] for text in pool]


@computes("CountGrams", domain=DOMAIN)
def count_grams(node: Node) -> Computation:
    """How often each row of `grams` `[count, n]` is found along the last axis, with up to `skips` elements skipped."""
    x, grams = node.operand(0), node.operand(1)
    length, n = x.shape[-1], grams.shape[1]

    def body(*i: Expr) -> Expr:
        def term(skip: Expr, start: Expr) -> Expr:
            found = call("eq", load(x, *i[:-1], start), load(grams, i[-1], 0))
            for place in range(1, n):
                element = load(x, *i[:-1], start + (skip + 1) * place)
                found = found & call("eq", element, load(grams, i[-1], place))
            return cast(select(start + (skip + 1) * (n - 1) < size(length), found, False), DType.FLOAT32)

        return reduction("sum", [node.attributes["skips"] + 1, length], term, 0.0)

    return compute((*x.shape[:-1], grams.shape[0]), body)
