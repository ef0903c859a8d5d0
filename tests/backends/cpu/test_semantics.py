"""The rules of docs/semantics.md, one by one: what happens at the edges of numbers, the same for every compiler, vector
width and place in a vector."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from batch import Batch

import partita
from partita.errors import ExecutionError

PAGE = Path(__file__).parents[3] / "docs" / "semantics.md"
NAN, INF = np.nan, np.inf
LOWEST, SMALLEST = np.iinfo(np.int32).min, np.float32(1e-45)
LENGTH = 37  # vectors, and a rest
ZIG = f"{sys.executable} -m ziglang cc"
BUILDS = {
    "-O0": partita.BuildOptions(optimization="-O0"),
    "-O3": partita.BuildOptions(),
    **({"Clang": partita.BuildOptions(cc=ZIG)} if importlib.util.find_spec("ziglang") else {}),
}


def f32(*content):
    return np.array(content, np.float32)


def i32(*content):
    return np.array(content, np.int32)


def i8(*content):
    return np.array(content, np.int8)


def u8(*content):
    return np.array(content, np.uint8)


# Rule: (node, operands, result), element by element
RULES = {
    "Integer division": [
        ("Div", [i32(7, -7, 5, LOWEST, LOWEST), i32(2, 2, 0, -1, 0)], i32(3, -3, 0, LOWEST, 0)),
        ("Div", [i8(-128, 100), i8(-1, 0)], i8(-128, 0)),
        ("Div", [u8(7, 9), u8(0, 2)], u8(0, 4)),
        ("Mod", [i32(7, -7, 7, 5, LOWEST), i32(3, 3, -3, 0, -1)], i32(1, 2, -2, 0, 0)),
        ("Mod <fmod = 1>", [i32(-7, 5, LOWEST), i32(3, 0, -1)], i32(-1, 0, 0)),
    ],
    "Integer overflow": [
        ("Add", [i32(2**31 - 1), i32(1)], i32(LOWEST)),
        ("Sub", [u8(1), u8(2)], u8(255)),
        ("Mul", [i32(2**30, 3), i32(6, LOWEST)], i32(LOWEST, LOWEST)),
        ("Neg", [i32(LOWEST)], i32(LOWEST)),
        ("Abs", [i8(-128, -127)], i8(-128, 127)),
        ("Pow", [i32(3, 2, 2, 1, -1), i32(21, 31, 32, -5, -2)], i32(1870418611, LOWEST, 0, 1, 0)),
    ],
    "Shifts": [
        ('BitShift <direction = "LEFT">', [u8(3, 3, 3), u8(7, 8, 200)], u8(128, 0, 0)),
        ('BitShift <direction = "RIGHT">', [u8(200, 200, 200), u8(7, 8, 255)], u8(1, 0, 0)),
        ('BitShift <direction = "RIGHT">', [i32(-8, -8, 8, -8), i32(1, 40, 40, -1)], i32(-4, -1, 0, -1)),
        ('BitShift <direction = "LEFT">', [i32(1, 1, 1), i32(31, 32, -1)], i32(LOWEST, 0, 0)),
    ],
    "Casts": [
        ("Cast <to = 6>", [f32(2.9, -2.9, NAN, INF, -INF, 3e9)], i32(2, -2, 0, 2**31 - 1, LOWEST, 2**31 - 1)),
        ("Cast <to = 7>", [f32(NAN, 1e30, -INF)], np.array([0, 2**63 - 1, -(2**63)])),
        ("Cast <to = 12>", [f32(5e9, -1, INF)], np.array([705032704, 2**32 - 1, 2**32 - 1], np.uint32)),
        ("Cast <to = 3>", [f32(200, -1.5, NAN)], i8(-56, -1, 0)),
        ("Cast <to = 2>", [i32(256, -1, 511)], u8(0, 255, 255)),
        ("Cast <to = 9>", [f32(0.5, -0.0, NAN)], np.array([True, False, True])),
        ("Cast <to = 10>", [f32(70000, -INF, 6e-8)], np.array([INF, -INF, 6e-8], np.float16)),
        ("Cast <to = 1>", [np.array([1e39, 1e-46, 1e-45])], f32(INF, 0, 1e-45)),
        ("Cast <to = 16>", [f32(1 + 2**-8, 1 + 3 * 2**-8)], np.array([1, 1 + 2**-6], ml_dtypes.bfloat16)),
        ("Cast <to = 17>", [f32(1000, -INF)], np.array([448, -448], ml_dtypes.float8_e4m3fn)),
        ("Cast <to = 17, saturate = 0>", [f32(1000, -INF)], np.array([NAN, NAN], ml_dtypes.float8_e4m3fn)),
    ],
    "NaN": [
        ("Max", [f32(NAN, 1, NAN), f32(1, NAN, NAN)], f32(NAN, NAN, NAN)),
        ("Min", [f32(NAN, 1), f32(1, NAN)], f32(NAN, NAN)),
        ("Relu", [f32(NAN)], f32(NAN)),
        ("Clip", [f32(NAN), np.array(-1, np.float32), np.array(1, np.float32)], f32(NAN)),
        ("Sign", [f32(NAN)], f32(NAN)),
        ("Equal", [f32(NAN, NAN), f32(NAN, 1)], np.array([False, False])),
        ("Less", [f32(NAN, 1), f32(1, NAN)], np.array([False, False])),
        ("Tanh", [f32(NAN)], f32(NAN)),
        ("IsNaN", [f32(NAN, INF)], np.array([True, False])),
    ],
    "Infinities": [
        ("Div", [f32(1, -1, 0, INF), f32(0, 0, 0, INF)], f32(INF, -INF, NAN, NAN)),
        ("Exp", [f32(INF, -INF, 1000)], f32(INF, 0, INF)),
        ("Log", [f32(0, -1, INF)], f32(-INF, NAN, INF)),
        ("Sub", [f32(INF), f32(INF)], f32(NAN)),
        ("Sigmoid", [f32(INF, -INF, -1000)], f32(1, 0, 0)),
        ("Softplus", [f32(INF, -INF, 1000)], f32(INF, 0, 1000)),
        ("Mod <fmod = 1>", [f32(INF, 5), f32(2, INF)], f32(NAN, 5)),
    ],
    "Negative zero": [
        ("Neg", [f32(0, -0.0)], f32(-0.0, 0)),
        ("Mul", [f32(-0.0, 0), f32(1, -1)], f32(-0.0, -0.0)),
        ("Add", [f32(-0.0, -0.0), f32(-0.0, 0)], f32(-0.0, 0)),
        ("Abs", [f32(-0.0)], f32(0)),
        ("Sqrt", [f32(-0.0)], f32(-0.0)),
        ("Ceil", [f32(-0.5)], f32(-0.0)),
        ("Round", [f32(-0.4, 0.5, 1.5)], f32(-0.0, 0, 2)),
        ("Relu", [f32(-0.0)], f32(-0.0)),
        ("Reciprocal", [f32(-0.0)], f32(-INF)),
        ("Equal", [f32(-0.0), f32(0)], np.array([True])),
    ],
    "Denormals": [
        ("Add", [f32(SMALLEST), f32(SMALLEST)], f32(2 * SMALLEST)),
        ("Mul", [f32(1e-38), f32(0.125)], f32(1e-38) * f32(0.125)),
        ("Neg", [f32(SMALLEST)], f32(-SMALLEST)),
        ("Sub", [f32(1.5e-38), f32(1.25e-38)], f32(1.5e-38) - f32(1.25e-38)),
        ("Cast <to = 1>", [np.array([6e-8], np.float16)], f32(np.float16(6e-8))),
    ],
}  # fmt: skip


@pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)
def test_what_the_rules_say(build):
    batch, expected = Batch(opset=28), {}
    for number, (node, operands, result) in enumerate(case for cases in RULES.values() for case in cases):
        name, _, attributes = node.partition(" ")
        names = "abc"[: len(operands)]
        resized = [np.resize(content, LENGTH) if content.ndim else content for content in operands]
        given = dict(zip(names, resized, strict=True))
        batch.add(f"y = {name} {attributes} ({', '.join(names)})", given, wanted=[result])
        expected[f"n{number}_y"] = (node, result)
    found = batch.compile(build).run(batch.inputs)
    for name, (node, result) in expected.items():
        wanted = np.resize(result, LENGTH)
        assert found[name].dtype == wanted.dtype
        exact, got = (each.astype(np.float64) if each.dtype.kind in "fV" else each for each in (wanted, found[name]))
        np.testing.assert_array_equal(got, exact, err_msg=node)
        if exact.dtype.kind == "f":
            numbers = ~np.isnan(exact)
            np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(exact[numbers]), err_msg=node)


INSIDE, OUTSIDE = np.array([[0, -3]]), np.array([[0, 3]])
X, U = np.float32([[1, 2], [3, 4], [5, 6]]), np.float32([[7, 8]])
PLACES = {
    "Gather": ("y = Gather(x, i)", {"x": X}, [[[1, 2], [1, 2]]]),
    "GatherElements": ("y = GatherElements(x, i)", {"x": X}, [[1, 2]]),
    "GatherND": ("y = GatherND(x, j)", {"x": X}, [[1, 2], [1, 2]]),
    "ScatterElements": ("y = ScatterElements(x, i, u)", {"x": X, "u": U}, [[7, 8], [3, 4], [5, 6]]),
    "ScatterND": ("y = ScatterND(x, j, v)", {"x": X, "v": np.float32([[7, 8], [7, 8]])}, [[7, 8], [3, 4], [5, 6]]),
}


@pytest.mark.parametrize("operator", PLACES)
def test_places_outside_of_a_tensor_end_the_run(operator):
    """Negative ones count from the end."""
    text, inputs, wanted = PLACES[operator]
    batch = Batch(opset=28)
    place = "j" if "j" in text else "i"
    given = {place: INSIDE if place == "i" else INSIDE.T}
    batch.add(text, {**inputs, **given})
    module = batch.compile()
    assert module.run(batch.inputs)["n0_y"].tolist() == wanted
    for outside in (OUTSIDE, -OUTSIDE - 1):
        with pytest.raises(ExecutionError, match="an index lies outside its tensor"):
            module.run({**batch.inputs, f"n0_{place}": outside if place == "i" else outside.T})


def test_places_that_are_none_are_off():
    batch = Batch(opset=28)
    given = {"i": np.array([0, -1, 3, -4]), "d": np.array(3), "v": np.float32([5, 1])}
    batch.add("y = OneHot(i, d, v)", given)
    assert batch.compile().run(batch.inputs)["n0_y"].tolist() == [[1, 5, 5], [5, 5, 1], [5, 5, 5], [5, 5, 5]]


def test_nan_decides_along_an_axis():
    batch = Batch(opset=28)
    text = "y = ReduceMax(x, a); z = ReduceMin(x, a); i = ArgMax(x); j = ArgMin(x)"
    batch.add(text, {"x": f32(1, INF, NAN, 2, NAN)}, {"a": np.array([0])}, "yzij")
    found = batch.compile().run(batch.inputs)
    assert np.isnan([found["n0_y"], found["n0_z"]]).all()
    assert [found["n0_i"].tolist(), found["n0_j"].tolist()] == [[2], [2]]


def test_sums_begin_at_zero():
    batch = Batch(opset=28)
    batch.add("y = ReduceSum(x, a)", {"x": f32(-0.0, -0.0)}, {"a": np.array([0])})
    (total,) = batch.compile().run(batch.inputs)["n0_y"]
    assert total == 0 and not np.signbit(total)


def test_every_rule_is_in_the_documentation():
    assert {*RULES, "Places", "Sums"} == set(re.findall(r"^\| \*\*(.+?)\*\* \|", PAGE.read_text("utf-8"), re.MULTILINE))
