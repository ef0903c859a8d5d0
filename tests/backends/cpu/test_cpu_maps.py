"""Maps at a model's border, as dicts: against ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest

import partita
from partita.errors import ExecutionError, InputError, ShapeError, UnsupportedOperatorError

QUICK = partita.BuildOptions(optimization="-O0")
HEADER = '<ir_version: 8, opset_import: ["" : 21, "ai.onnx.ml" : 3]>\n'
SCORES = np.array([[0.5, 0.25, 0.25], [0.0, 1.0, -2.0]], np.float32)


def model(text):
    return onnx.parser.parse_model(HEADER + text.replace("ml.", "ai.onnx.ml."))


def session(text):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model(text).SerializeToString(), options, providers=["CPUExecutionProvider"])


def same(text, inputs):
    """Both give the same, dicts, arrays and types."""
    wanted = session(text).run(None, inputs)
    found = list(partita.compile(model(text), build=QUICK).run(inputs).values())
    for a, b in zip(found, wanted, strict=True):
        if isinstance(b, list):
            assert a == b
            assert [list(map(type, row)) for row in a] == [list(map(type, row)) for row in b]
        else:
            np.testing.assert_array_equal(a, b)
            assert a.shape == b.shape


@pytest.mark.parametrize("labels", ['classlabels_strings = ["a", "b", "ä"]', "classlabels_int64s = [3, -1, 7]"])
def test_a_row_becomes_a_dict(labels):
    kind = "string" if "strings" in labels else "int64"
    text = f"g (float[N, 3] x) => (seq(map({kind}, float)) y) {{ y = ml.ZipMap <{labels}> (x) }}"
    same(text, {"x": SCORES})
    same(text, {"x": SCORES[:0]})


CLASSIFIER = """g (float[N, 2] x) => (int64[N] label, seq(map(int64, float)) y) {
    label, scores = ml.LinearClassifier <coefficients = [1.0, 0.0, 0.0, 1.0, -1.0, 0.5], intercepts = [0.0, 0.5, 1.0],
        classlabels_ints = [1, 2, 3], post_transform = "SOFTMAX"> (x)
    y = ml.ZipMap <classlabels_int64s = [1, 2, 3]> (scores) }"""


def test_a_classifier_as_it_is_exported(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    label, wanted = session(CLASSIFIER).run(None, {"x": x})
    path = partita.compile(model(CLASSIFIER), build=QUICK).export_library(tmp_path / "model.so")
    found = partita.load_module(path).run({"x": x})
    assert found["label"].tolist() == label.tolist()
    assert [list(row) for row in found["y"]] == [[1, 2, 3]] * 5
    for row, other in zip(found["y"], wanted, strict=True):
        assert row == pytest.approx(other, rel=1e-5)


VOCABULARY = """g (map(string, {0}) m) => ({0}[a, b] y) {{
    y = ml.DictVectorizer <string_vocabulary = ["a", "c", "b", "z"]> (m) }}"""


def test_a_dict_becomes_a_row():
    same(VOCABULARY.format("float"), {"m": {"a": 1.0, "b": 2.0, "other": 3.0}})
    text = """g (map(int64, float) m) => (float[a, b] y) {
        y = ml.DictVectorizer <int64_vocabulary = [10, -2, 5]> (m) }"""
    same(text, {"m": {5: 1.5, 10: 2.5, 7: 3.5}})


def given(text, inputs):
    """The one output; ONNX Runtime takes dicts of floats alone from Python."""
    (found,) = partita.compile(model(text), build=QUICK).run(inputs).values()
    return found.tolist()


@pytest.mark.parametrize(("kind", "zero"), [("int64", 0), ("double", 0.0), ("string", "")])
def test_a_dict_of_other_types_becomes_a_row(kind, zero):
    one, two = ("1", "2") if kind == "string" else (1, 2)
    text = VOCABULARY.format(kind)
    assert given(text, {"m": {"b": one, "other": one, "a": two}}) == [[two, zero, one, zero]]
    assert given(text, {"m": {}}) == [[zero] * 4]


DENSE, SPARSE = 'map_form = "DENSE"', 'map_form = "SPARSE", max_map = 5'
CAST = """g (map(int64, {}) m) => ({}[a, b] y) {{ y = ml.CastMap <cast_to = "{}", {}> (m) }}"""


@pytest.mark.parametrize("form", [DENSE, SPARSE])
@pytest.mark.parametrize(("kind", "to"), [("float", "TO_FLOAT"), ("int64", "TO_INT64")])
def test_a_map_of_numbers_is_cast(form, kind, to):
    same(CAST.format("float", kind, to, form), {"m": {3: 1.0, 0: 2.0, 1: -1.0, 9: 4.0}})


@pytest.mark.parametrize(
    ("kind", "to", "form", "wanted"),
    [
        ("float", "TO_FLOAT", DENSE, [[-2.0, 1.5]]),
        ("float", "TO_FLOAT", SPARSE, [[-2.0, 0.0, 0.0, 1.5, 0.0]]),
        ("string", "TO_STRING", DENSE, [["-2", "1.5"]]),
        ("string", "TO_STRING", SPARSE, [["-2", "", "", "1.5", ""]]),
    ],
)
def test_a_map_of_strings_is_cast(kind, to, form, wanted):
    assert given(CAST.format("string", kind, to, form), {"m": {3: "1.5", 0: "-2"}}) == wanted


def test_what_is_no_map_is_refused():
    text = 'g (map(string, float) m) => (y) { y = ml.DictVectorizer <string_vocabulary = ["a"]> (m) }'
    module = partita.compile(model(text), build=QUICK)
    with pytest.raises(InputError, match="input 'm' is a list, expected a dict"):
        module.run({"m": [1.0]})
    with pytest.raises(InputError, match="the values of input 'm' do not fit"):
        module.run({"m": {"a": "one"}})
    with pytest.raises(InputError, match=r"input 'm\.keys' is missing"):
        module.run({})
    keys = np.array(["a", "b"], object)
    assert module.run({"m.keys": keys, "m.values": np.float32([2, 3])})["y"].tolist() == [[2.0]]


def test_labels_and_values_are_as_many():
    text = "g (float[N, {}] x) => (y) {{ y = ml.ZipMap <classlabels_int64s = [1, 2]> (x) }}"
    with pytest.raises(ShapeError, match="rows of 2 values"):
        partita.compile(model(text.format(3)), build=QUICK)
    with pytest.raises(ExecutionError, match="3 values for 2 keys"):
        partita.compile(model(text.format("M")), build=QUICK).run({"x": SCORES})


def test_maps_inside_are_refused():
    text = """g (float[2, 2] x) => (y) { m = ml.ZipMap <classlabels_int64s = [1, 2]> (x)
        y = SequenceLength (m) }"""
    with pytest.raises(UnsupportedOperatorError, match="zipmap=False"):
        partita.compile(model(text), build=QUICK)
