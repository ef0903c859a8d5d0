"""Equal computations are one; nothing else is."""

import pytest
from pass_harness import check, check_example, graph_of

from partita.passes.common_subexpressions import common_subexpressions


def test_chains_of_equals():
    check_example(
        common_subexpressions,
        "model (float[2] x) => (float[2] y) { a = Exp (x) b = Exp (x) c = Neg (a) d = Neg (b) y = Mul (c, d) }",
        "model (float[2] x) => (float[2] y) { a = Exp (x) c = Neg (a) y = Mul (c, c) }",
    )


def test_equal_constants():
    check_example(
        common_subexpressions,
        "model (float[2] x) => (float[2] y) { p = Constant <value = float {2}> () q = Constant <value = float {2}> () "
        "a = Mul (x, p) b = Mul (x, q) y = Add (a, b) }",
        "model (float[2] x) => (float[2] y) { p = Constant <value = float {2}> () a = Mul (x, p) y = Add (a, a) }",
    )


def test_two_outputs_of_one_value():
    check_example(
        common_subexpressions,
        "model (float[2] x) => (float[2] y, float[2] z) { y = Exp (x) z = Exp (x) }",
        "model (float[2] x) => (float[2] y, float[2] z) { y = Exp (x) z = Identity (y) }",
    )


def test_several_results():
    check_example(
        common_subexpressions,
        "model (float[4] x) => (float[2] y) { a, b = Split <num_outputs = 2> (x) c, d = Split <num_outputs = 2> (x) "
        "y = Add (a, d) }",
        "model (float[4] x) => (float[2] y) { a, b = Split <num_outputs = 2> (x) y = Add (a, b) }",
    )


@pytest.mark.parametrize(
    "body",
    [
        "a = Sub (x, z) b = Sub (z, x) y = Add (a, b)",
        "a = LeakyRelu <alpha = 0.5> (x) b = LeakyRelu <alpha = 0.25> (x) y = Add (a, b)",
        "a = LeakyRelu <alpha = 0.0> (x) b = LeakyRelu <alpha = -0.0> (x) y = Div (a, b)",
        "p = Constant <value = float {0}> () q = Constant <value = float {-0.0}> () a = Mul (x, p) b = Mul (x, q) "
        "y = Div (a, b)",
        "p = Constant <value = float {1}> () q = Constant <value = float[1] {1}> () a = Mul (x, p) b = Mul (x, q) "
        "y = Sub (a, b)",
        'a = Clip (x, k, "") b = Clip (x, "", k) y = Add (a, b)',
    ],
)
def test_what_differs_stays(body):
    text = f"model (float[2] x, float[2] z, float k) => (float[2] y) {{ {body} }}"
    check(common_subexpressions, graph_of(text), changes=False)


def test_weights_that_happen_to_be_equal_stay():
    weights = "<float[1] w = {2}, float[1] v = {2}>"
    text = f"model (float[1] x) => (float[1] y) {weights} {{ a = Mul (x, w) b = Mul (x, v) y = Add (a, b) }}"
    check(common_subexpressions, graph_of(text), changes=False)


def test_random_numbers_are_drawn_each_time():
    graph = graph_of(
        "model (float[2] x) => (float[2] y) { a = RandomNormalLike (x) b = RandomNormalLike (x) y = Add (a, b) }"
    )
    assert common_subexpressions(graph) is False


def test_inside_subgraphs():
    text = """model (bool c, float[2] x) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) { a = Exp (x) b = Exp (x) p = Add (a, b) },
                    else_branch = e () => (float[2] q) { q = Neg (x) }>
    }"""
    graph = check(common_subexpressions, graph_of(text))
    assert len(graph.nodes[0].attributes["then_branch"].nodes) == 2
