"""TopK, Unique and NonMaxSuppression: every way of sorting, at the edges of numbers, against NumPy and ONNX Runtime."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import partita

QUICK = partita.BuildOptions(optimization="-O0")
HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
RANDOM = np.random.default_rng(0)


def numbers(kind, count=300):
    """With many ties, and the extremes."""
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        edges = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, np.finfo(dtype).tiny, np.finfo(dtype).max, 1.0, -1.0]
        drawn = RANDOM.choice([*edges, *RANDOM.normal(size=40)], count)
    else:
        limits = np.iinfo(dtype)
        edges = [limits.min, limits.min + 1, limits.max, limits.max - 1, 0, 1, limits.max // 2, limits.min // 3]
        drawn = RANDOM.choice(np.array(edges, dtype), count)
    return drawn.astype(dtype)


def run(text, inputs, parameters=()):
    proto = onnx.parser.parse_model(HEADER + text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in dict(parameters).items())
    found = partita.compile(proto, build=QUICK).run(inputs)
    return proto, list(found.values())


TYPES = {"float32": "float", "float64": "double", "float16": "float16"}


def ranked(x, largest):
    """The places in their order: NaN is above all, of equal numbers the first comes first."""
    sign = -1 if largest else 1
    return sorted(range(len(x)), key=lambda i: (sign, 0) if math.isnan(x[i]) else (0, sign * x[i].item()))


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("k", [1, 5, 32, 33, 150, 300])
@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int64", "uint64", "int32", "uint8", "int8"])
def test_the_largest_and_the_smallest(kind, k, largest):
    x = numbers(kind)
    text = f"g ({TYPES.get(kind, kind)}[300] x) => (y, i) {{ y, i = TopK <largest = {largest}> (x, k) }}"
    _, (values, places) = run(text, {"x": x}, {"k": np.array([k])})
    wanted = ranked(x, largest)[:k]
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(values, x[wanted])


@pytest.mark.parametrize("k", [0, 1, 40, 700])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_how_many_a_run_may_say(k, axis):
    shape = [3, 3, 3]
    shape[axis] = 700
    x = RANDOM.integers(-5, 5, shape)
    text = f"g (int64[A, B, C] x, int64[1] k) => (y, i) {{ y, i = TopK <axis = {axis}> (x, k) }}"
    _, (values, places) = run(text, {"x": x, "k": np.array([k])})
    order = np.argsort(-x, axis, "stable").take(range(k), axis)
    np.testing.assert_array_equal(places, order)
    np.testing.assert_array_equal(values, np.take_along_axis(x, order, axis))


def test_candidates_that_get_better_and_better():
    rising = np.arange(5000, dtype=np.float32)
    for k in (7, 100):
        _, (values, _) = run("g (float[N] x) => (y, i) { y, i = TopK (x, k) }", {"x": rising}, {"k": np.array([k])})
        np.testing.assert_array_equal(values, rising[: -k - 1 : -1])


@pytest.mark.parametrize("kind", ["float32", "float64", "float16", "int64", "uint64", "int8", "uint8"])
def test_equal_elements(kind):
    x = numbers(kind)
    text = f"g ({TYPES.get(kind, kind)}[N] x) => (y, i, j, c) {{ y, i, j, c = Unique (x) }}"
    _, found = run(text, {"x": x})
    for mine, wanted in zip(found, np.unique(x, True, True, True), strict=True):
        np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize("is_sorted", [0, 1])
@pytest.mark.parametrize("width", [0, 1, 3, 8, 9])
@pytest.mark.parametrize("kind", ["float32", "int64"])
def test_equal_rows(kind, width, is_sorted):
    x = RANDOM.choice(np.array([-3, -1, 0, 2], kind), (60, width))
    text = f"g ({TYPES.get(kind, kind)}[N, {width}] x) => (y, i, j, c) {{"
    _, (rows, first, inverse, counts) = run(
        f"{text} y, i, j, c = Unique <axis = 0, sorted = {is_sorted}> (x) }}", {"x": x}
    )
    wanted, *_ = np.unique(x, axis=0, return_index=True) if width else (x[:1], None)
    np.testing.assert_array_equal(rows[inverse], x)
    np.testing.assert_array_equal(x[first], rows)
    np.testing.assert_array_equal(np.bincount(inverse), counts)
    assert len(rows) == len(wanted)
    if is_sorted:
        np.testing.assert_array_equal(rows, wanted)
    else:
        assert first.tolist() == sorted(first)


def boxes(count, is_centered):
    corners, sides = RANDOM.uniform(0, 20, (2, count, 2)), RANDOM.uniform(0.5, 6, (2, count, 2))
    parts = (corners, sides) if is_centered else (corners - sides / 2, corners + sides / 2)
    return np.concatenate(parts, 2).astype(np.float32)


@pytest.mark.parametrize("is_centered", [0, 1])
@pytest.mark.parametrize(("most", "least"), [(1, 0.0), (8, 0.3), (9, 0.9), (1000, 0.0), (5, 2.0)])
def test_boxes(most, least, is_centered):
    scores = RANDOM.choice(np.linspace(0, 1, 40, dtype=np.float32), (2, 3, 300))
    inputs = {"b": boxes(300, is_centered), "s": scores}
    text = f"""g (float[2, 300, 4] b, float[2, 3, 300] s) => (int64[K, 3] y) {{
        y = NonMaxSuppression <center_point_box = {is_centered}> (b, s, m, i, t) }}"""
    limits = {"m": np.array([most]), "i": np.array([0.4], np.float32), "t": np.array([least], np.float32)}
    proto, [found] = run(text, inputs, limits)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(found, session.run(None, inputs)[0])
