"""Operators on strings: joined, split, normalized, matched, looked up, and counted as n-grams."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from partita.errors import ModelError, ShapeError, UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call
from partita.ir.formula import cast, compute, load, reduction, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import required_ints
from partita.ir.operators.elementwise import broadcast
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.operators.registry import becomes, calls, computes, decomposes, infers
from partita.ir.regular_expression import PatternError, compiled
from partita.ir.routine import Routine
from partita.ir.types import DType, TensorType, Type

LIBRARY = "text"
INT64 = DType.INT64


def elements(value: Value) -> Dim:
    return dims.product(value.shape)


def words(build: Builder, content: Sequence[str]) -> Value:
    """A constant of strings."""
    array = np.empty(len(content), object)
    array[:] = list(content)
    return build.constant(array, DType.STRING)


@computes("StringConcat")
def string_concat(node: Node) -> Computation:
    return broadcast(node, lambda a, b: call("string_concat", a, b))


# ---------------------------------------------------------------------- split


@becomes("StringSplit")
def string_split(build: Builder, node: Node) -> list[Value]:
    """The pieces are counted first: the most decide how many there is room for."""
    x = node.operand(0)
    delimiter, most = node.attributes.get("delimiter", ""), node.attributes.get("maxsplit", -1)
    counts = build("CountPieces", x, domain=DOMAIN, delimiter=delimiter, maxsplit=most)
    every = build("Concat", build("Reshape", counts, build.ints([-1])), build.ints([0]), axis=0)
    room = observe(build, build("ReduceMax", every, build.ints([0]), keepdims=1))
    pieces = build("SplitStrings", x, room, domain=DOMAIN, delimiter=delimiter, maxsplit=most)
    return [pieces, counts]


@calls("CountPieces", domain=DOMAIN)
def count_pieces(node: Node) -> Routine:
    return _split(node, "count_pieces", (), TensorType(INT64, node.operand(0).shape))


@calls("SplitStrings", domain=DOMAIN)
def split_strings(node: Node) -> Routine:
    """Room for as many pieces as operand 1 says; those missing are empty."""
    room = required_ints(node, 1)
    return _split(node, "split_strings", room, TensorType(DType.STRING, (*node.operand(0).shape, *room)))


def _split(node: Node, function: str, room: tuple[Dim, ...], result: TensorType) -> Routine:
    x, attributes = node.operand(0), node.attributes
    arguments = (x, attributes["delimiter"], int(attributes["maxsplit"]), *room)
    return Routine(LIBRARY, function, elements(x), arguments, (result,))


# ---------------------------------------------------------------------- normalize


@functools.cache
def case_table(to_upper: bool) -> np.ndarray:
    """Rows (character, what it becomes): Python's mapping, up to three characters for one, 0 where there are fewer.
    What depends on neighbours (a final sigma) is left out."""
    rows = []
    for c in range(0x1F000):
        other = chr(c).upper() if to_upper else chr(c).lower()
        if other != chr(c):
            rows.append([c, *map(ord, other), 0, 0][:4])
    return np.asarray(rows, np.int32)


@becomes("StringNormalizer")
def string_normalizer(build: Builder, node: Node) -> Value:
    """What is left of the strings once the stop words are out; one empty string where that is none."""
    x, attributes = node.operand(0), node.attributes
    if len(x.shape) not in (1, 2) or (len(x.shape) == 2 and dims.is_static(x.shape[0]) and x.shape[0] != 1):
        raise ShapeError(f"{node.describe()}: strings are normalized in the shapes [C] and [1, C]")
    action = attributes.get("case_change_action", "NONE")
    if action not in ("NONE", "LOWER", "UPPER"):
        raise ModelError(f"{node.describe()}: case_change_action is {action!r}; NONE, LOWER and UPPER are known")
    row = x if len(x.shape) == 1 else build("Squeeze", x, build.ints([0]))
    is_sensitive = bool(attributes.get("is_case_sensitive", 0))
    stopwords = [word if is_sensitive else word.lower() for word in attributes.get("stopwords", ())]
    dropped = words(build, sorted(set(stopwords), key=lambda word: word.encode()))
    table = build.constant(np.zeros((0, 4)) if is_sensitive else case_table(False), DType.INT32)  # before comparing
    kept, count = build.node("DropWords", row, dropped, table, outputs=2, domain=DOMAIN)
    kept = build("Slice", kept, build.ints([0]), build.ints([1]), observe(build, count), domain=DOMAIN)
    if action != "NONE":
        table = build.constant(case_table(action == "UPPER"), DType.INT32)
        kept = build("ChangeCase", kept, table, domain=DOMAIN)
    return kept if len(x.shape) == 1 else build("Unsqueeze", kept, build.ints([0]))


@calls("DropWords", domain=DOMAIN)
def drop_words(node: Node) -> Routine:
    """Room for all strings, of which the first are left; their number, [1]."""
    x, stopwords, table = node.operands
    arguments = (x, elements(x), stopwords, elements(stopwords), table, table.shape[0])
    kept = TensorType(DType.STRING, (dims.maximum(x.shape[0], 1),))
    return Routine(LIBRARY, "drop_words", 1, arguments, (kept, TensorType(INT64, (1,))))


@calls("ChangeCase", domain=DOMAIN)
def change_case(node: Node) -> Routine:
    x, table = node.operands
    return Routine(LIBRARY, "change_case", elements(x), (x, table, table.shape[0]), (x.tensor,), cost=500.0)


# ---------------------------------------------------------------------- match


@decomposes("RegexFullMatch")
def regex_full_match(build: Builder, node: Node) -> Value:
    try:
        program, ranges = compiled(node.attributes.get("pattern", ""))
    except PatternError as error:
        message = f"{node.describe()}: the pattern {node.attributes['pattern']!r} cannot be used: {error}"
        raise UnsupportedOperatorError(message) from error
    tables = [build.constant(np.reshape(rows, (-1, n)), DType.INT32) for rows, n in ((program, 3), (ranges, 2))]
    return build("MatchProgram", node.operand(0), *tables, domain=DOMAIN)


@infers("RegexFullMatch")
def match_type(node: Node) -> TensorType:
    return TensorType(DType.BOOL, node.operand(0).shape)


@calls("MatchProgram", domain=DOMAIN)
def match_program(node: Node) -> Routine:
    x, program, ranges = node.operands
    arguments = (x, program, program.shape[0], ranges)
    return Routine(LIBRARY, "match_program", elements(x), arguments, (match_type(node),), cost=2000.0)


# ---------------------------------------------------------------------- look up


def find(build: Builder, x: Value, keys: Sequence[str] | np.ndarray) -> tuple[Value, np.ndarray]:
    """Where each element of `x` is among sorted `keys`, their number where it is not; and the order that sorts them, as
    places. Of equal keys the last counts. Numbers are compared as int64 or float64; a NaN is equal to another."""
    kind = DType.STRING if x.tensor.dtype is DType.STRING else DType.FLOAT64 if x.tensor.dtype.is_float else INT64
    if kind is DType.STRING:
        last = {word: place for place, word in enumerate(keys)}
        order = np.array([last[word] for word in sorted(last, key=lambda word: word.encode())], np.int64)
        table = words(build, [keys[place] for place in order])
    else:
        numbers = np.asarray(keys, kind.numpy)
        order = len(numbers) - 1 - np.unique(numbers[::-1], return_index=True)[1] if len(numbers) else np.zeros(0, int)
        table = build.constant(numbers[order], kind)
        x = x if x.tensor.dtype is kind else build("Cast", x, to=kind.onnx)
    return build("Find", x, table, domain=DOMAIN), order


@calls("Find", domain=DOMAIN)
def find_places(node: Node) -> Routine:
    x, keys = node.operands
    function = f"find_{x.tensor.dtype.name.lower()}"
    result = TensorType(INT64, x.shape)
    return Routine(LIBRARY, function, elements(x), (x, keys, elements(keys)), (result,), cost=50.0)


# ---------------------------------------------------------------------- n-grams, counted


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

        return reduction("sum", [node.attributes["skips"] + 1, length], term)

    return compute((*x.shape[:-1], grams.shape[0]), body)
