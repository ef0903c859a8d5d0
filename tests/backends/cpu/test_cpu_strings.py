"""Strings split, normalized, matched and counted in generated C: what Python makes of the same texts."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from harness import BUILD
from onnx import TensorProto, helper

import partita
from partita.errors import ModelError, UnsupportedOperatorError

Array = np.ndarray[Any, Any]
TEXTS = ["", " ", "a", " a  b ", "a-b--c-", "--", "one two\tthree\n four", "ä-日本-b", "no end ", "x" * 5000, "a\0b c"]


def run(op: str, given: Array, outputs: Sequence[str] = ("y",), **attributes: Any) -> list[Array]:
    """The outputs of one node on strings, on two threads."""
    kind = TensorProto.STRING if given.dtype.kind == "O" else helper.np_dtype_to_tensor_dtype(given.dtype)
    node = helper.make_node(op, ["x"], list(outputs), **attributes)
    info = helper.make_tensor_value_info("x", kind, [f"n{axis}" for axis in range(given.ndim)])
    graph = helper.make_graph([node], "g", [info], [onnx.ValueInfoProto(name=name) for name in outputs])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    with partita.compile(onnx.shape_inference.infer_shapes(proto), build=BUILD) as module:
        return list(module.run({"x": given}).values())


def texts(*content: str) -> Array:
    return np.array(content, object)


@pytest.mark.parametrize("most", [None, 0, 1, 2, 100])
@pytest.mark.parametrize("delimiter", [None, "-", "--", "b"])
def test_split(delimiter, most):
    pieces, counts = run("StringSplit", texts(*TEXTS), ("y", "z"), delimiter=delimiter, maxsplit=most)
    wanted = [text.split(delimiter, -1 if most is None else most) for text in TEXTS]
    assert counts.tolist() == list(map(len, wanted))
    width = max(map(len, wanted))
    assert pieces.tolist() == [row + [""] * (width - len(row)) for row in wanted]


def test_split_of_nothing():
    pieces, counts = run("StringSplit", np.zeros((2, 0), object), ("y", "z"))
    assert (pieces.shape, counts.shape) == ((2, 0, 0), (2, 0))
    pieces, counts = run("StringSplit", texts("", " "), ("y", "z"))
    assert (pieces.shape, counts.tolist()) == ((2, 0), [0, 0])


WORDS = ["Monday", "monday", "ÄRGER", "Straße", "ﬁn", "ΑΣ", "", "the", "THE", "I"]


@pytest.mark.parametrize("is_sensitive", [0, 1])
@pytest.mark.parametrize("action", ["NONE", "LOWER", "UPPER"])
def test_normalize(action, is_sensitive):
    stopwords = ["Monday", "the", "ärger"]
    (found,) = run(
        "StringNormalizer",
        texts(*WORDS),
        case_change_action=action,
        is_case_sensitive=is_sensitive,
        stopwords=stopwords,
    )
    compared = stopwords if is_sensitive else [word.lower() for word in stopwords]
    kept = [word for word in WORDS if (word if is_sensitive else word.lower()) not in compared]
    change = {"NONE": str, "LOWER": lambda word: word.lower().replace("ς", "σ"), "UPPER": str.upper}[action]
    assert found.tolist() == [change(word) for word in kept]


def test_normalize_changes_every_character_as_python_does():
    everything = "".join(c for n in range(1, sys.maxunicode) if not 0xD800 <= n < 0xE000 and (c := chr(n)) not in "Σ")
    (found,) = run("StringNormalizer", texts(everything), case_change_action="UPPER")
    assert found[0] == everything.upper()
    (found,) = run("StringNormalizer", texts(everything), case_change_action="LOWER")
    assert found[0] == everything.lower()


def test_normalize_leaves_broken_text_as_it_is():
    broken = b"a\xff\xc3\xe2\x82B\xf0\x9f\xc0\x80\xed\xa0\x80\xf5z"
    (found,) = run("StringNormalizer", np.array([broken], object), case_change_action="LOWER")
    assert found[0].encode("utf-8", "surrogateescape") == broken.replace(b"B", b"b")


@pytest.mark.parametrize("given", [texts(), texts("the"), texts("the", "the")])
def test_normalize_gives_one_empty_string_for_none(given):
    assert run("StringNormalizer", given, stopwords=["the"])[0].tolist() == [""]
    assert run("StringNormalizer", given[None], stopwords=["the"])[0].tolist() == [[""]]


def test_normalize_refuses_what_it_does_not_know():
    with pytest.raises(ModelError, match="TITLE"):
        run("StringNormalizer", texts("a"), case_change_action="TITLE")


@pytest.mark.parametrize(
    "pattern", [r"(a|aa)+b?", r"\w+( \w+)*", r"[^-]*-.*", r"(?i)STRASSE|straße", r"\bone\b.*", "", r"\D{3,}"]
)
def test_match(pattern):
    given = [*TEXTS, *WORDS, "aaab", "aaa", "one", "onemore", "日本"]
    (found,) = run("RegexFullMatch", texts(*given).reshape(2, -1), pattern=pattern)
    assert found.reshape(-1).tolist() == [bool(re.fullmatch(pattern, text, re.ASCII)) for text in given]


def test_match_takes_linear_time():
    (found,) = run("RegexFullMatch", texts("a" * 20_000), pattern="(a*)*(a|aa)*(a?){20}b")
    assert not found[0]


def test_match_refuses_by_name():
    with pytest.raises(UnsupportedOperatorError, match=r"a\(\?=b\)"):
        run("RegexFullMatch", texts("a"), pattern="a(?=b)")


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
def test_n_grams_of_words(mode):
    pool = ["a", "b", "the", "a", "b", "b", "the"]
    attributes = {"mode": mode, "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1, "ngram_counts": [0, 3],
                  "ngram_indexes": [0, 2, 1, 3, 4], "weights": [1.0, 2.0, 3.0, 4.0, 5.0]}  # fmt: skip
    given = np.array([["a", "b", "x", "the"], ["b", "the", "b", "a"]], object)
    (found,) = run("TfIdfVectorizer", given, pool_strings=pool, **attributes)
    place = {"a": 1, "b": 2, "the": 3, "x": 4}
    numbers = np.vectorize(place.get)(given).astype(np.int64)
    (wanted,) = run("TfIdfVectorizer", numbers, pool_int64s=[place[word] for word in pool], **attributes)
    np.testing.assert_array_equal(found, wanted)
    assert wanted.any()
