"""Operators at sizes drawn at random, a strategy a family. What the reference evaluator lacks, or does otherwise than
the standard says, is computed here with NumPy or PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from harness import Array
from hypothesis import strategies as st

SIZES = st.sampled_from([0, 1, 2, 3, 5, 7, 8, 9, 16, 17])
SOME = st.sampled_from([1, 2, 3, 5, 7, 8, 9, 16, 17])
FLOATS = ("float32", "float64", "float16")
INTEGERS = ("int64", "int32", "int8", "uint8", "uint64")


@dataclass(frozen=True)
class Case:
    """A network of `Batch`, and what it should give if the evaluator does not know."""

    text: str
    inputs: dict[str, Array]
    weights: dict[str, Array] = field(default_factory=dict)
    outputs: Sequence[str] = ("y",)
    wanted: Sequence[Array] | None = None

    @property
    def key(self) -> str:
        arrays = {**self.inputs, **self.weights}.items()
        return f"{self.text} {[(name, array.shape, str(array.dtype)) for name, array in arrays]}"

    def __repr__(self) -> str:
        return self.key


Draw = Callable[[st.SearchStrategy[Any]], Any]


def numbers(draw: Draw, shape: Sequence[int], dtype: str = "float32", *, few: bool = False) -> Array:
    """Normal numbers, or integers; `few` different ones, so that many are equal."""
    random = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if dtype in INTEGERS or few:
        low = 0 if dtype.startswith("u") else -4
        return random.integers(low, 5, shape).astype(dtype)
    return random.normal(size=shape).astype(dtype)


def shapes(sizes: st.SearchStrategy[int] = SIZES, least: int = 1, most: int = 4) -> st.SearchStrategy[list[int]]:
    return st.lists(sizes, min_size=least, max_size=most).filter(lambda shape: math.prod(shape) < 3000)


def flag(draw: Draw) -> int:
    return draw(st.integers(0, 1))


def some_axis(draw: Draw, rank: int) -> int:
    return draw(st.integers(-rank, rank - 1))


# ---------------------------------------------------------------------- elements


@st.composite
def elementwise(draw: Draw) -> Case:
    """One or two operands, broadcast."""
    shape = draw(shapes(least=0))
    kind = draw(st.sampled_from(FLOATS))
    if flag(draw):
        name = draw(st.sampled_from(["Abs", "Neg", "Exp", "Sqrt", "Tanh", "Sigmoid", "Floor", "Erf", "Sign", "Round"]))
        return Case(f"y = {name}(x)", {"x": numbers(draw, shape, kind)})
    name = draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "Min", "Less", "GreaterOrEqual", "Mod"]))
    kind = draw(st.sampled_from(INTEGERS)) if name in ("Mod", "Max") else kind
    other = [1 if flag(draw) else dim for dim in shape[draw(st.integers(0, len(shape))) :]]
    first, second = numbers(draw, shape, kind), numbers(draw, other, kind)
    if name == "Mod":
        second = np.where(second == 0, 1, second).astype(kind)
    return Case(f"y = {name}(x, z)", {"x": first, "z": second})


@st.composite
def movement(draw: Draw) -> Case:
    shape = draw(shapes())
    rank, kind = len(shape), draw(st.sampled_from((*FLOATS, *INTEGERS, "bool")))
    axis, x = some_axis(draw, rank), numbers(draw, shape, kind)
    name = draw(st.sampled_from(["Transpose", "Slice", "Concat", "Pad", "Gather", "Tile", "Split", "CenterCropPad"]))
    match name:
        case "Transpose":
            return Case(f"y = Transpose <perm = {draw(st.permutations(range(rank)))}> (x)", {"x": x})
        case "Slice":
            step = draw(st.sampled_from([1, 2, 3, -1, -2]))
            ends = [draw(st.integers(-shape[axis] - 2, shape[axis] + 2)) for _ in range(2)]
            bounds = {n: np.array([v]) for n, v in zip("seak", [*ends, axis, step], strict=True)}
            at_run_time = flag(draw)
            return Case(
                "y = Slice(x, s, e, a, k)", {"x": x, **(bounds if at_run_time else {})}, {} if at_run_time else bounds
            )
        case "Concat":
            other = list(shape)
            other[axis] = draw(SIZES)
            return Case(f"y = Concat <axis = {axis}> (x, z)", {"x": x, "z": numbers(draw, other, kind)})
        case "Pad":
            mode = draw(st.sampled_from(["constant", "edge", "wrap", "reflect"]))
            limit = min(shape) - 1 if mode == "reflect" else min(shape) if mode != "constant" else 3
            pads = [draw(st.integers(0, max(min(limit, 3), 0))) for _ in range(2 * rank)]
            return Case(f'y = Pad <mode = "{mode}"> (x, p)', {"x": x}, {"p": np.array(pads)})
        case "Gather":
            indices = draw(shapes(SIZES, 0, 2)) if shape[axis] else [0]
            places = np.random.default_rng(rank).integers(-shape[axis], max(shape[axis], 1), indices)
            return Case(f"y = Gather <axis = {axis}> (x, i)", {"x": x, "i": places})
        case "Tile":
            return Case("y = Tile(x, r)", {"x": x}, {"r": np.array([draw(st.integers(0, 3)) for _ in shape])})
        case "Split":
            first = draw(st.integers(0, shape[axis]))
            return Case(
                f"y, z = Split <axis = {axis}> (x, s)", {"x": x}, {"s": np.array([first, shape[axis] - first])}, "yz"
            )
    return Case("y = CenterCropPad(x, s)", {"x": x}, {"s": np.array([draw(SIZES) for _ in shape])})


# ---------------------------------------------------------------------- lines


@st.composite
def reduction(draw: Draw) -> Case:
    """Over some axes; a maximum needs at least one element."""
    name = draw(st.sampled_from(["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSumExp"]))
    shape = draw(shapes(SIZES if name in ("Sum", "Prod", "L1", "SumSquare") else SOME))
    axes = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    kind = draw(
        st.sampled_from(["float32", "float64", "int64"] if name in ("Sum", "Max", "Min") else ["float32", "float64"])
    )
    x = numbers(draw, shape, kind)
    return Case(f"y = Reduce{name} <keepdims = {flag(draw)}> (x, a)", {"x": x}, {"a": np.array(sorted(axes))})


@st.composite
def line(draw: Draw) -> Case:
    """What runs along one axis."""
    name = draw(st.sampled_from(["CumSum", "ArgMax", "ArgMin", "Softmax", "LogSoftmax", "Hardmax", "LpNormalization"]))
    shape = draw(shapes(SIZES if name == "CumSum" else SOME))
    axis, x = some_axis(draw, len(shape)), numbers(draw, shape, few=name.startswith("Arg"))
    if name == "CumSum":
        text = f"y = CumSum <exclusive = {flag(draw)}, reverse = {flag(draw)}> (x, a)"
        given = {"a": np.array(axis)}
        return Case(text, {"x": x, **given}) if flag(draw) else Case(text, {"x": x}, given)
    if name.startswith("Arg"):
        attributes = f"axis = {axis}, keepdims = {flag(draw)}, select_last_index = {flag(draw)}"
        return Case(f"y = {name} <{attributes}> (x)", {"x": x})
    if name == "LpNormalization":
        p = draw(st.sampled_from([1, 2]))
        norm = np.linalg.norm(x, p, axis, keepdims=True)
        return Case(f"y = {name} <axis = {axis}, p = {p}> (x)", {"x": x}, wanted=[(x / norm).astype(np.float32)])
    return Case(f"y = {name} <axis = {axis}> (x)", {"x": x})


@st.composite
def sorting(draw: Draw) -> Case:
    shape = draw(shapes(most=3))
    kind = draw(st.sampled_from(("float32", "float16", "int64", "uint8")))
    axis, x = some_axis(draw, len(shape)), numbers(draw, shape, kind, few=bool(flag(draw)))
    match draw(st.sampled_from(["TopK", "Unique", "NonZero", "Compress"])):
        case "TopK":
            k = draw(st.integers(0, shape[axis]))
            text = f"y, i = TopK <axis = {axis}, largest = {flag(draw)}> (x, k)"
            given = {"k": np.array([k])}
            return Case(text, {"x": x, **given}, {}, "yi") if flag(draw) else Case(text, {"x": x}, given, "yi")
        case "Unique":
            if flag(draw):
                return Case("y, i, j, c = Unique(x)", {"x": x}, {}, "yijc")
            if flag(draw) or not math.prod(shape):
                return Case("y, i, j, c = Unique <sorted = 0> (x)", {"x": x.reshape(-1)}, {}, "yijc")
            return Case(f"y, i, j, c = Unique <axis = {axis}> (x)", {"x": x}, {}, "yijc")
        case "NonZero":
            return Case("y = NonZero(x)", {"x": x})
    length = draw(st.integers(0, shape[axis]))
    return Case(f"y = Compress <axis = {axis}> (x, c)", {"x": x, "c": numbers(draw, [length], "bool")})


@st.composite
def many(draw: Draw) -> Case:
    """Long lines, of which few are wanted: more candidates than there is room for."""
    x = numbers(draw, [draw(st.integers(1, 3)), draw(st.integers(100, 900))], few=bool(flag(draw)))
    x = np.sort(x) if flag(draw) else x
    return Case(
        f"y, i = TopK <largest = {flag(draw)}> (x, k)", {"x": x}, {"k": np.array([draw(st.integers(0, 50))])}, "yi"
    )


@st.composite
def boxes(draw: Draw) -> Case:
    """NonMaxSuppression, box by box."""
    batches, classes, count = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(0, 40))
    random = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    corners, centered = random.uniform(0, 10, (batches, count, 4)).astype(np.float32), flag(draw)
    scores = random.integers(0, 20, (batches, classes, count)).astype(np.float32)
    most, threshold, least = (
        draw(st.integers(0, 9)),
        draw(st.sampled_from([0.0, 0.25, 0.5])),
        draw(st.sampled_from([0, 9])),
    )
    limits = {"m": np.array([most]), "t": np.array([threshold], np.float32), "l": np.array([least], np.float32)}
    at_run_time = flag(draw)
    return Case(
        f"y = NonMaxSuppression <center_point_box = {centered}> (x, s, m, t, l)",
        {"x": corners, "s": scores, **(limits if at_run_time else {})},
        {} if at_run_time else limits,
        wanted=[_chosen(corners, scores, most, threshold, least, centered)],
    )


def _chosen(corners: Array, scores: Array, most: int, threshold: float, least: float, centered: int) -> Array:
    rows = []
    for batch, kind in np.ndindex(*scores.shape[:2]):
        kept: list[int] = []
        for place in np.argsort(-scores[batch, kind], kind="stable"):
            candidate = corners[batch, place]
            clear = all(_overlap(candidate, corners[batch, other], centered) <= threshold for other in kept)
            if scores[batch, kind, place] > least and clear and len(kept) < most:
                kept.append(int(place))
        rows += [(batch, kind, place) for place in kept]
    return np.array(rows, np.int64).reshape(-1, 3)


def _overlap(first: Array, second: Array, centered: int) -> np.float32:
    ends = []
    for box in (first, second):
        half = box[2:] / 2
        ends.append(
            (box[:2] - half, box[:2] + half)
            if centered
            else (np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:]))
        )
    common = np.maximum(np.minimum(ends[0][1], ends[1][1]) - np.maximum(ends[0][0], ends[1][0]), 0).prod()
    whole = (ends[0][1] - ends[0][0]).prod() + (ends[1][1] - ends[1][0]).prod() - common
    return common / whole if common > 0 else np.float32(0)


# ---------------------------------------------------------------------- sums of products


@st.composite
def product(draw: Draw) -> Case:
    kind = draw(st.sampled_from(FLOATS))
    rows, depth, columns = draw(SIZES), draw(SIZES), draw(SIZES)
    name = draw(st.sampled_from(["MatMul", "Gemm", "Einsum", "Det"]))
    if name == "Det":
        x = numbers(draw, [*draw(shapes(SOME, 0, 2)), *[draw(st.integers(1, 9))] * 2])
        return Case("y = Det(x)", {"x": x}, wanted=[np.asarray(np.linalg.det(x.astype(np.float64)), np.float32)])
    if name == "Einsum":
        x, z = numbers(draw, [3, rows, depth]), numbers(draw, [depth, 3, columns])
        return Case('y = Einsum <equation = "bij,jbk->kbi"> (x, z)', {"x": x, "z": z})
    if name == "Gemm":
        flips = flag(draw), flag(draw)
        x = numbers(draw, [depth, rows] if flips[0] else [rows, depth])
        z = numbers(draw, [columns, depth] if flips[1] else [depth, columns])
        return Case(f"y = Gemm <transA = {flips[0]}, transB = {flips[1]}, beta = 0.5> (x, z, c)",
                    {"x": x, "c": numbers(draw, [columns])}, {"z": z})  # fmt: skip
    lead = draw(shapes(st.integers(1, 3), 0, 2))
    other = [1 if flag(draw) else dim for dim in lead[draw(st.integers(0, len(lead))) :]]
    x, z = numbers(draw, [*lead, rows, depth], kind), numbers(draw, [*other, depth, columns], kind)
    return Case("y = MatMul(x, z)", {"x": x}, {"z": z}) if flag(draw) else Case("y = MatMul(x, z)", {"x": x, "z": z})


FAMILIES = {
    "elementwise": elementwise(),
    "movement": movement(),
    "reductions": reduction(),
    "lines": line(),
    "sorting": sorting(),
    "long lines": many(),
    "boxes": boxes(),
    "products": product(),
}
