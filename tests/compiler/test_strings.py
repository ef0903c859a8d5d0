"""Tensors of strings: in and out, moved, compared, joined, cast; as parameters; in artifacts and in bodies."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from small_models import compiled, parsed

import partita
from partita.errors import ExecutionError, InputError, ParameterError

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
WORDS = np.array([["", "ä", "a longer text"], ["日本", "b\0c", "ä"]], object)


def run(text: str, inputs: dict[str, Any], parameters: dict[str, Any] | None = None) -> list[np.ndarray]:
    with compiled(parsed(f"{HEAD} {text}", parameters)) as module:
        return list(module.run(inputs).values())


def reference(text: str, inputs: dict[str, Any], parameters: dict[str, Any] | None = None) -> list[np.ndarray]:
    return ReferenceEvaluator(parsed(f"{HEAD} {text}", parameters)).run(None, inputs)


MOVES = {
    "identity": "y = Identity(x)",
    "reshape": "y = Reshape(x, shape)",
    "transpose": "y = Transpose(x)",
    "gather": "y = Gather <axis = 1> (x, places)",
    "concat": "y = Concat <axis = 0> (x, x)",
    "where": "e = Equal(x, one)\n y = Where(e, x, one)",
    "slice": "y = Slice(x, start, end)",
    "split": "y, z = Split <axis = 1, num_outputs = 2> (x)",
    "tile": "y = Tile(x, twice)",
    "expand": "u = Unsqueeze(x, axis)\n y = Expand(u, wide)",
    "pad with text": 'c = Constant <value_string = "\\"/"> ()\n y = Pad(x, pads, c)',
    "squeeze": "u = Unsqueeze(x, axis)\n t = Transpose <perm = [1, 2, 0]> (u)\n y = Squeeze(t)",
}
GIVEN = {
    "shape": np.array([3, 2]),
    "places": np.array([2, 0, -1]),
    "one": np.array(["ä"], object),
    "start": np.array([0, 1]),
    "end": np.array([1, 3]),
    "twice": np.array([2, 1]),
    "pads": np.array([0, 1, 1, 0]),
    "axis": np.array([0]),
    "wide": np.array([2, 2, 3]),
}


def test_a_parameter_that_is_an_output():
    """Of a model, and of a branch."""
    text = "g (float[1] z) => (float[1] q, string[2, 3] s) { q = Neg (z) }"
    (_, found) = run(text, {"z": np.zeros(1, np.float32)}, {"s": WORDS})
    np.testing.assert_array_equal(found, WORDS)
    text = """g (bool b) => (string[1] y) {
        y = If (b) <then_branch = t () => (string[1] u) <string[1] u = {"yes"}> {},
                    else_branch = e () => (string[1] v) <string[1] v = {"no"}> {}>
    }"""
    assert [run(text, {"b": np.array(b)})[0].item() for b in (True, False)] == ["yes", "no"]


@pytest.mark.parametrize("name", MOVES)
def test_strings_move_like_numbers(name):
    shape = "A, B, C" if name == "expand" else "A, B"
    text = f"g (string[2, 3] x) => (string[{shape}] y) {{ {MOVES[name]} }}"
    parameters = {key: array for key, array in GIVEN.items() if key in re.findall(r"\w+(?=[,)])", MOVES[name])}
    (found,) = run(text, {"x": WORDS}, parameters)
    (wanted,) = reference(text, {"x": WORDS}, parameters)
    assert found.dtype == object
    assert found.tolist() == wanted.tolist()


def test_pads_are_empty_strings():
    (found,) = run("g (string[2] x) => (string[4] y) { y = Pad(x, p) }", {"x": WORDS[1, 1:]}, {"p": np.array([1, 1])})
    assert found.tolist() == ["", "b\0c", "ä", ""]


def test_unique_strings():
    text = "g (string[N] x) => (string[M] y, int64[M] a, int64[N] b, int64[M] c) { y, a, b, c = Unique(x) }"
    words = np.array(["b", "ä", "", "b", "aa", "ä", "a"], object)
    for found, wanted in zip(run(text, {"x": words}), np.unique(words, True, True, True), strict=True):
        assert found.tolist() == wanted.tolist()


def test_sequences_of_strings():
    text = """g (string[2] x, seq(string[2]) s) => (seq(string[2]) y, string[2] z) {
        t = StringConcat(x, x)  y = SequenceInsert(s, t)  one = Constant <value_int = 1> ()  z = SequenceAt(y, one) }"""
    sequence, element = run(text, {"x": np.array(["a", "ü"], object), "s": [np.array(["c", "d"], object)]})
    assert [array.tolist() for array in sequence] == [["c", "d"], ["aa", "üü"]]
    assert element.tolist() == ["aa", "üü"]


@pytest.mark.parametrize("rows", [2, 0, 1, 5])
def test_sizes_of_strings_may_be_symbolic(rows):
    words = np.array([["a", "b" * n] for n in range(rows)], object).reshape(rows, 2)
    text = "g (string[N, 2] x) => (string[M, 2] y) { c = StringConcat(x, w)  y = Concat <axis = 0> (c, x) }"
    (found,) = run(text, {"x": words}, {"w": np.array(["+", "-"], object)})
    assert found.tolist() == [[a + "+", b + "-"] for a, b in words.tolist()] + words.tolist()


@pytest.mark.parametrize(
    "given",
    [np.array(["ab", "c"]), ["ab", "c"], np.array([b"ab", b"c"]), np.array(["ab", b"c"], object),
     np.array(["ab", "c"], np.dtypes.StringDType())],
    ids=["unicode", "list", "bytes", "mixed", "StringDType"],
)  # fmt: skip
def test_strings_come_in_many_forms(given):
    (found,) = run("g (string[2] x) => (string[2] y) { y = Identity(x) }", {"x": given})
    assert found.tolist() == ["ab", "c"]


def test_bytes_that_are_no_utf8_come_back_as_surrogates():
    (found,) = run("g (string[1] x) => (string[1] y) { y = Identity(x) }", {"x": np.array([b"\xff"], object)})
    assert found[0].encode("utf-8", "surrogateescape") == b"\xff"


@pytest.mark.parametrize("element", [1, None, 2.5, "\ud800"])
def test_what_is_no_string_is_refused(element):
    with pytest.raises(InputError):
        run("g (string[2] x) => (string[2] y) { y = Identity(x) }", {"x": np.array(["a", element], object)})


def test_numbers_are_refused_for_strings():
    with pytest.raises(InputError, match=r"float64\(2,\), expected string\(2,\)"):
        run("g (string[2] x) => (string[2] y) { y = Identity(x) }", {"x": np.zeros(2)})


def test_results_stay_when_the_model_runs_again():
    model = parsed(f"{HEAD} g (string[1] x) => (string[1] y) {{ y = StringConcat(x, x) }}")
    with compiled(model) as module:
        first = module.run({"x": np.array(["a"], object)})["y"]
        again = module.run({"x": first})["y"]
        for _ in range(5):
            again = module.run({"x": again})["y"]
    assert first.tolist() == ["aa"]
    assert again.tolist() == ["a" * 128]


def test_long_texts_and_many_of_them():
    words = np.array([chr(97 + n % 26) * (n * 37 % 2000) for n in range(3000)] + ["x" * 200_000], object)
    (found,) = run("g (string[N] x) => (string[N] y) { y = StringConcat(x, x) }", {"x": words})
    assert found.tolist() == [word + word for word in words]


NUMBERS = np.array(["1", "-2.5", " 1e3 ", "3.4028235e38", "INF", "-inf", "NaN", "0.1"], object)


@pytest.mark.parametrize("kind", ["float", "double"])
def test_strings_become_floats(kind):
    number = {"float": 1, "double": 11}[kind]
    (found,) = run(f"g (string[8] x) => ({kind}[8] y) {{ y = Cast <to = {number}> (x) }}", {"x": NUMBERS})
    np.testing.assert_array_equal(found, [np.float64(text).astype(found.dtype) for text in NUMBERS])


def test_floats_become_strings_that_read_as_the_same():
    numbers = np.array([0, -0.0, 1, 0.1, 1e-7, 3.4e38, 1 / 3, 16777216], np.float32)
    (found,) = run("g (float[8] x) => (string[8] y) { y = Cast <to = 8> (x) }", {"x": numbers})
    np.testing.assert_array_equal(found.astype(np.float32), numbers)
    assert found[3] == "0.1"
    (found,) = run(
        "g (float[3] x) => (string[3] y) { y = Cast <to = 8> (x) }", {"x": np.float32([np.nan, np.inf, -np.inf])}
    )
    assert found.tolist() == ["NaN", "INF", "-INF"]


def test_integers_become_strings_and_back():
    numbers = np.array([0, -1, 2**63 - 1, -(2**63)])
    text = "g (int64[4] x) => (string[4] s, int64[4] y) { s = Cast <to = 8> (x)  y = Cast <to = 7> (s) }"
    strings, found = run(text, {"x": numbers})
    assert strings.tolist() == list(map(str, numbers.tolist()))
    np.testing.assert_array_equal(found, numbers)


@pytest.mark.parametrize("word", ["", "one", "1.5", "9223372036854775808", "1 2", "0x10", "1\0"])
def test_what_says_no_integer_fails_the_run(word):
    with pytest.raises(ExecutionError, match="is no number"):
        run("g (string[1] x) => (int64[1] y) { y = Cast <to = 7> (x) }", {"x": np.array([word], object)})


def test_artifacts_hold_strings(tmp_path):
    text = "g (string[N] x) => (string[N, 3] y) { u = Unsqueeze(x, axis)  y = StringConcat(u, w) }"
    parameters = {"axis": np.array([1]), "w": np.array(["", "ö\0o", '"\\n%s??/'], object)}
    path = compiled(parsed(f"{HEAD} {text}", parameters)).export_library(tmp_path / "m.so")
    loaded = partita.load_module(path)
    assert loaded.run({"x": np.array(["a"], object)})["y"].tolist() == [["a" + word for word in parameters["w"]]]
    with pytest.raises(ParameterError, match="'w'"):
        loaded.bind({**parameters, "w": np.array(["x", "y", "z"], object)})
    assert loaded.bind(parameters).run({"x": np.array([], object)})["y"].shape == (0, 3)


def test_strings_of_a_parameter_stay_out_of_the_source():
    module = compiled(
        parsed(
            f"{HEAD} g (string[N] x) => (string[N] y) {{ y = StringConcat(x, w) }}", {"w": np.array(["secret"], object)}
        )
    )
    assert not any("secret" in source.text for source in module.sources())


def test_a_loop_joins_strings():
    text = """g (int64 n, string[1] x) => (string[1] y, string[K, 1] all) {
        y, all = Loop (n, , x) <body = step (int64 i, bool go, string[1] a) => (bool again, string[1] b, string[1] c) {
            again = Identity(go)
            t = Cast <to = 8> (i)
            b = StringConcat(a, t)
            c = Identity(b)
        }>
    }"""
    found, every = run(text, {"n": np.array(3), "x": np.array(["<"], object)})
    assert found.tolist() == ["<012"]
    assert every.tolist() == [["<0"], ["<01"], ["<012"]]


@pytest.mark.parametrize("chosen", [True, False])
def test_a_branch_gives_a_constant_string(chosen):
    text = """g (bool c, string[1] x) => (string[1] y) {
        y = If (c) <then_branch = yes () => (string[1] a) { a = Constant <value_strings = ["yes"]> () },
                    else_branch = no () => (string[1] b) { b = StringConcat(x, x) }>
    }"""
    (found,) = run(text, {"c": np.array(chosen), "x": np.array(["no"], object)})
    assert found.tolist() == ["yes" if chosen else "nono"]
