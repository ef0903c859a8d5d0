"""Hoisting scales: through which operators they go, and what must stay."""

from __future__ import annotations

import pytest
from pass_harness import check, graph_of

from partita.ir.graph import Graph
from partita.passes.bind import BindProgram
from partita.passes.hoist_scale import hoist_scale

HEAD = """model (float[2, 3] x, float[2, 2] k) => (float[2, 2] y)
    <float[3, 2] w = {1, -2, 3, 4, -5, 6}, float[2] b = {0.5, -1}, float c = {3}, float[1, 1] unit = {3},
     float[1, 1, 1] cube = {3}, float[2] row = {3, 5}, float[2, 2] v = {1, 2, 3, 4}> { """


def run_time(graph: Graph) -> list[str]:
    """The operators that are left when weights are bound."""
    BindProgram(graph).hoist(graph)
    return [node.op_type for node in graph.nodes]


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("q = MatMul (x, w) s = MatMul (q, k) y = Div (s, c)", "MatMul MatMul"),
        ("q = MatMul (x, w) s = MatMul (k, q) y = Mul (c, s)", "MatMul MatMul"),
        ("q = Gemm (x, w, b) s = MatMul (q, k) y = Mul (s, unit)", "Gemm MatMul"),
        ("m = MatMul (x, w) q = Add (b, m) t = Transpose (q) s = MatMul (k, t) y = Div (s, c)",
         "MatMul Add Transpose MatMul"),
        ("t = Transpose (k) q = MatMul (x, w) s = MatMul (t, q) y = Div (s, c)", "Transpose MatMul MatMul"),
    ],
)  # fmt: skip
def test_a_number_goes_into_weights_and_bias(body, left):
    graph = check(hoist_scale, graph_of(f"{HEAD}{body} }}"), tolerance=1e-5)
    assert sorted(run_time(graph)) == sorted(left.split())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("q = MatMul (x, w) s = MatMul (q, k) y = Div (c, s)", id="a number divided"),
        pytest.param("q = MatMul (x, w) s = MatMul (q, k) y = Mul (s, row)", id="several numbers"),
        pytest.param("q = MatMul (x, w) s = MatMul (q, k) y = Mul (s, k)", id="no parameter"),
        pytest.param("q = MatMul (x, w) r = Relu (q) s = MatMul (r, k) y = Div (s, c)", id="nothing linear between"),
        pytest.param("q = MatMul (x, w) s = MatMul (q, v) y = Div (s, c)", id="weights already"),
        pytest.param("q = MatMul (x, w) s = MatMul (q, q) y = Div (s, c)", id="read twice"),
        pytest.param("q = MatMul (x, w) s = MatMul (q, k) n = Div (s, c) y = Add (n, s)", id="the product read twice"),
        pytest.param("q = MatMul (x, w) p = MatMul (x, w) s = MatMul (q, k) n = Div (s, c) y = Add (n, p)",
                     id="the weights read twice"),
        pytest.param("q = Add (k, k) s = MatMul (q, k) y = Div (s, c)", id="no weights"),
    ],
)  # fmt: skip
def test_what_stays(body):
    check(hoist_scale, graph_of(f"{HEAD}{body} }}"), changes=False)


def test_a_number_that_adds_an_axis_stays():
    head = HEAD.replace("=> (float[2, 2] y)", "=> (float[1, 2, 2] y)")
    check(hoist_scale, graph_of(head + "q = MatMul (x, w) s = MatMul (q, k) y = Div (s, cube) }"), changes=False)
