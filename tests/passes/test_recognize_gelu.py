"""Recognizing Gelu: in every order in which exporters write it, and nothing that is only like it."""

from __future__ import annotations

import pytest
from pass_harness import check, graph_of

from partita.passes.recognize_gelu import recognize_gelu

HEAD = """model (float[2, 3] x, float[2, 3] z) => (float[2, 3] y) <float weight = {0.5}> {
    root = Constant <value = float {1.4142135}> () inverse = Constant <value = float {0.70710677}> ()
    one = Constant <value = float {1}> () half = Constant <value = float {0.5}> ()
    near = Constant <value = float {0.51}> () wide = Constant <value = float[1, 2, 3] {0.5, 0.5, 0.5, 0.5, 0.5, 0.5}> ()
    """
ERF = "s = Div (x, root) e = Erf (s) "


@pytest.mark.parametrize(
    "body",
    [
        ERF + "t = Add (e, one) p = Mul (x, t) y = Mul (p, half)",
        ERF + "t = Add (one, e) p = Mul (t, x) y = Mul (half, p)",
        ERF + "t = Add (e, one) p = Mul (half, t) y = Mul (x, p)",
        ERF + "t = Add (e, one) p = Mul (x, half) y = Mul (p, t)",
        "s = Mul (inverse, x) e = Erf (s) t = Add (e, one) p = Mul (x, t) y = Mul (p, half)",
    ],
)
def test_gelu_is_found(body):
    graph = check(recognize_gelu, graph_of(f"{HEAD}{body} }}"), tolerance=1e-6)
    assert graph.outputs[0].producer.op_type == "Gelu"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(ERF + "t = Add (e, one) p = Mul (x, t) y = Mul (p, near)", id="another factor"),
        pytest.param(ERF + "t = Add (e, one) p = Mul (x, t) y = Mul (p, weight)", id="a weight as factor"),
        pytest.param(ERF + "t = Add (e, one) p = Mul (z, t) y = Mul (p, half)", id="another operand"),
        pytest.param(ERF + "t = Add (e, half) p = Mul (x, t) y = Mul (p, half)", id="another summand"),
        pytest.param(ERF + "t = Sub (e, one) p = Mul (x, t) y = Mul (p, half)", id="a difference"),
        pytest.param(
            "s = Div (root, x) e = Erf (s) t = Add (e, one) p = Mul (x, t) y = Mul (p, half)", id="upside down"
        ),
        pytest.param("s = Mul (x, root) e = Erf (s) t = Add (e, one) p = Mul (x, t) y = Mul (p, half)", id="scaled up"),
        pytest.param("e = Tanh (x) t = Add (e, one) p = Mul (x, t) y = Mul (p, half)", id="no erf"),
    ],
)
def test_what_is_only_like_it_stays(body):
    check(recognize_gelu, graph_of(f"{HEAD}{body} }}"), changes=False)


def test_a_factor_that_adds_an_axis_stays():
    head = HEAD.replace("=> (float[2, 3] y)", "=> (float[1, 2, 3] y)")
    check(recognize_gelu, graph_of(head + ERF + "t = Add (e, one) p = Mul (x, t) y = Mul (p, wide) }"), changes=False)
