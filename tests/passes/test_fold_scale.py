"""Folding scales and shifts into weights: what folds, what must not, and that no weight is looked at."""

from __future__ import annotations

import numpy as np
import pytest
from pass_harness import check, check_example, graph_of

from partita.ir.graph import Graph
from partita.ir.types import DType, TensorType
from partita.passes.bind import BindProgram
from partita.passes.fold_scale import fold_scale

# Two channels of three; `w` makes them from two, `b` shifts them.
IMAGE = """model (float[1, 2, 3] x) => (float[1, 2, 3] y)
    <float[2, 2, 1] w = {1, -2, 3, 4}, float[2] b = {0.5, -1}, float[2, 1] s = {2, 3}, float[1, 2, 1] t = {3, 5},
     float[2, 1, 1] batch = {1, 2}, float[3] row = {1, 2, 3}, float one = {7}, float[1, 1] unit = {9},
     float[2] scale = {2, 3}, float[2] shift = {1, 0}, float[2] mean = {0, 2}, float[2] variance = {1, 4}> """
# Three rows of two, from rows of four; `v` is `w` transposed.
PRODUCT = """model (float[3, 4] x) => (float[3, 2] y)
    <float[4, 2] w = {1, -2, 3, 4, -5, 6, 7, 8}, float[2, 4] v = {1, 3, -5, 7, -2, 4, 6, 8}, float[2] b = {0.5, -1},
     float[2] s = {2, 3}, float[1, 2] t = {3, 5}, float[3, 1] rows = {1, 2, 3}, float[3, 2] all = {1, 2, 3, 4, 5, 6},
     float one = {7},
     float[2] scale = {2, 3}, float[2] shift = {1, 0}, float[2] mean = {0, 2}, float[2] variance = {1, 4}> """
NORMALIZED = "BatchNormalization (c, scale, shift, mean, variance)"


def folded(text: str) -> Graph:
    return check(fold_scale, graph_of(text), tolerance=1e-5)


def run_time(graph: Graph) -> list[str]:
    """The operators that are left when weights are bound."""
    BindProgram(graph).hoist(graph)
    return [node.op_type for node in graph.nodes]


def test_mul_and_add_after_a_convolution():
    check_example(
        fold_scale,
        IMAGE + "{ c = Conv (x, w) d = Mul (c, s) y = Add (d, t) }",
        """model (float[1, 2, 3] x) => (float[1, 2, 3] y)
            <float[2, 2, 1] w = {1, -2, 3, 4}, float[2, 1] s = {2, 3}, float[1, 2, 1] t = {3, 5},
             float[2] b = {0.5, -1}, float[2, 1, 1] batch = {1, 2}, float[3] row = {1, 2, 3}, float one = {7},
             float[1, 1] unit = {9}, float[2] scale = {2, 3}, float[2] shift = {1, 0}, float[2] mean = {0, 2},
             float[2] variance = {1, 4}, int64[1] flat = {-1}, int64[1] again = {-1}, int64[2] axes = {1, 2}> {
            factor = Reshape (s, flat)
            column = Unsqueeze (factor, axes)
            weights = Mul (w, column)
            bias = Reshape (t, again)
            y = Conv (x, weights, bias)
        }""",
        tolerance=1e-5,
    )


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv (x, w) y = Mul (c, s)",
        "c = Conv (x, w, b) y = Mul (s, c)",
        "c = Conv (x, w, b) y = Div (c, s)",
        "c = Conv (x, w, b) y = Add (t, c)",
        "c = Conv (x, w, b) y = Sub (c, t)",
        "c = Conv (x, w) y = Sub (c, t)",
        "c = Conv (x, w) y = Add (c, one)",
        "c = Conv (x, w) y = Sub (c, unit)",
        "c = Conv (x, w, b) d = Mul (c, one) y = Add (d, unit)",
        "c = Conv (x, w, b) d = Div (c, s) e = Sub (d, t) f = Mul (e, t) y = Add (f, s)",
        f"c = Conv (x, w) y = {NORMALIZED}",
        f"c = Conv (x, w, b) n = {NORMALIZED} d = Mul (n, s) y = Add (d, t)",
        "c = Conv (x, w) p = Mul (s, t) q = Exp (p) y = Mul (c, q)",
    ],
)
def test_what_folds_into_a_convolution(body):
    assert run_time(folded(f"{IMAGE}{{ {body} }}")) == ["Conv"]


@pytest.mark.parametrize("body", ["Mul (c, s)", "Add (c, t)", NORMALIZED])
def test_what_folds_into_a_convolution_of_groups(body):
    body = body.replace("(c, s)", "(c, r)").replace("(c, t)", "(c, r)")
    text = """model (float[1, 2, 3, 4] x) => (float[1, 2, 2, 3] y)
        <float[2, 1, 2, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[2, 1, 1] r = {2, 3}, float[2] scale = {2, 3},
         float[2] shift = {1, 0}, float[2] mean = {0, 2}, float[2] variance = {1, 4}> """
    assert run_time(folded(f"{text}{{ c = Conv <group = 2> (x, w) y = {body} }}")) == ["Conv"]


@pytest.mark.parametrize(
    "body",
    [
        "c = Gemm (x, w) y = Mul (c, s)",
        "c = Gemm (x, w) y = Add (c, s)",
        "c = Gemm (x, w) y = Sub (c, one)",
        "c = Gemm (x, w, b) d = Mul (c, t) y = Add (d, s)",
        "c = Gemm <transB = 1> (x, v, b) d = Mul (c, t) y = Add (d, s)",
        "c = Gemm <transB = 1, alpha = 0.5> (x, v, b) d = Div (c, s) y = Sub (d, t)",
        "c = Gemm <beta = 0.5> (x, w, b) y = Mul (c, s)",
        "c = Gemm (x, w, rows) d = Mul (c, t) y = Add (d, s)",
        "c = Gemm (x, w, all) d = Mul (c, one) y = Add (d, s)",
        "c = Gemm (x, w, one) d = Mul (c, s) y = Add (d, one)",
        f"c = Gemm (x, w, b) y = {NORMALIZED}",
        f"c = Gemm <transB = 1> (x, v) y = {NORMALIZED}",
        "c = MatMul (x, w) y = Mul (s, c)",
        "c = MatMul (x, w) d = Mul (c, t) y = Div (d, one)",
    ],
)
def test_what_folds_into_a_product(body):
    assert run_time(folded(f"{PRODUCT}{{ {body} }}")) in (["Gemm"], ["MatMul"])


def test_a_product_of_any_rank_takes_a_scale():
    text = """model (float[B, 3, 2] x) => (float[B, 3, 2] y) <float[2, 2] w = {1, 2, 3, 4}, float[1, 1, 2] s = {2, 3}> {
        c = MatMul (x, w) y = Mul (c, s)
    }"""
    assert run_time(folded(text)) == ["MatMul"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("c = Conv (x, w) y = Mul (c, row)", "a number for each position"),
        ("c = Conv (x, w) y = Add (c, batch)", "the result is larger"),
        ("c = Conv (x, w) y = Sub (t, c)", "the result is subtracted"),
        ("c = Conv (x, w) y = Div (t, c)", "the result divides"),
        ("c = Conv (x, w) y = Mul (c, c)", "both are the result"),
        ("c = Conv (x, w) d = Mul (c, s) e = Exp (c) y = Add (d, e)", "the result is read elsewhere"),
        ("c = Conv (x, w) d = Exp (c) y = Mul (d, s)", "something stands between"),
        ("c = Conv (x, w) d = Conv (x, w) e = Mul (c, s) y = Sub (d, e)", "the weights are read elsewhere"),
        ("p = Conv (x, w) q = Exp (x) c = Add (p, q) y = Relu (c)", "what is added is no parameter"),
    ],
)
def test_what_does_not_fold_into_a_convolution(body, why):
    shape = "2, 2, 3" if "batch" in body else "1, 2, 3"
    text = IMAGE.replace("=> (float[1, 2, 3] y)", f"=> (float[{shape}] y)")
    graph = graph_of(f"{text}{{ {body} }}")
    check(fold_scale, graph, changes=False)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("c = Gemm <beta = 0.5> (x, w, b) y = Add (c, s)", "the bias counts half"),
        ("c = MatMul (x, w) y = Add (c, s)", "there is no bias"),
        (f"c = MatMul (x, w) y = {NORMALIZED}", "there is no bias"),
        ("c = MatMul (x, w) y = Mul (c, rows)", "a number for each row"),
        ("c = Gemm (x, w) y = Mul (c, all)", "a number for each element"),
    ],
)
def test_what_does_not_fold_into_a_product(body, why):
    check(fold_scale, graph_of(f"{PRODUCT}{{ {body} }}"), changes=False)


def test_weights_that_are_computed_from_inputs_stay():
    text = """model (float[1, 2, 3] x, float[2, 2, 1] w) => (float[1, 2, 3] y) <float[2, 1] s = {2, 3}> {
        c = Conv (x, w) y = Mul (c, s)
    }"""
    check(fold_scale, graph_of(text), changes=False)


def test_a_random_factor_is_no_parameter():
    graph = graph_of(IMAGE + "{ c = Conv (x, w) r = RandomNormal <shape = [2, 1]> () y = Mul (c, r) }")
    assert fold_scale(graph) is False


def test_an_output_of_the_model_stays():
    text = IMAGE.replace("=> (float[1, 2, 3] y)", "=> (float[1, 2, 3] y, float[1, 2, 3] c)")
    check(fold_scale, graph_of(text + "{ c = Conv (x, w) y = Mul (c, s) }"), changes=False)


def test_integers_stay():
    text = """model (int32[3, 4] x) => (int32[3, 2] y) <int32[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, int32[2] s = {2, 3}> {
        c = MatMul (x, w) y = Div (c, s)
    }"""
    check(fold_scale, graph_of(text), changes=False)


def test_normalization_in_training_mode_stays():
    text = IMAGE + (
        "{ c = Conv (x, w) y, m, v = BatchNormalization <training_mode = 1> (c, scale, shift, mean, variance) }"
    )
    assert fold_scale(graph_of(text)) is False
    text = text.replace("y, m, v =", "y =")
    assert fold_scale(graph_of(text)) is False


def test_statistics_of_another_type_stay():
    graph = Graph("mixed")
    graph.opsets = {"": 28}
    x = graph.add_input("x", TensorType(DType.FLOAT16, (1, 2, 3)))
    w = graph.add_parameter("w", TensorType(DType.FLOAT16, (2, 2, 1)), lambda: np.ones((2, 2, 1), np.float16))
    vector = TensorType(DType.FLOAT32, (2,))
    statistics = [graph.add_parameter(n, vector, lambda: np.ones(2, np.float32)) for n in ("s", "b", "m", "v")]
    c = graph.add_node("Conv", [x, w], outputs=["c"]).output
    y = graph.add_node("BatchNormalization", [c, *statistics], outputs=["y"]).output
    c.type = y.type = x.type
    graph.set_outputs([y])
    check(fold_scale, graph, changes=False)


def test_shared_weights_are_normalized_each_on_their_own():
    """Batch normalization is worth a second copy of the weights."""
    body = "c = Conv (x, w) d = Conv (x, w) e = BatchNormalization (d, shift, scale, mean, variance)"
    graph = folded(f"{IMAGE}{{ {body} f = {NORMALIZED} y = Add (e, f) }}")
    assert run_time(graph) == ["Conv", "Conv", "Add"]


def test_no_weight_is_looked_at():
    graph = graph_of(IMAGE + f"{{ c = Conv (x, w, b) n = {NORMALIZED} d = Mul (n, s) y = Add (d, t) }}")
    fold_scale(graph)
    assert not any(parameter.baked for parameter in graph.parameters.values())
