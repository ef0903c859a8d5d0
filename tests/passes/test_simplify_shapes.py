"""Shape arithmetic: static to constants, symbolic to Dims, and the rest left alone."""

import numpy as np
import pytest
from pass_harness import check, check_example, graph_of

from partita.ir import dims
from partita.passes.canonicalize import canonicalize
from partita.passes.dead_code import dead_code
from partita.passes.simplify_shapes import reshape_target, simplify_shapes

N, M = dims.symbol("N"), dims.symbol("M")


def simplified(text, **options):
    graph = check(simplify_shapes, graph_of(text), **options)
    dead_code(graph)
    return graph


def operators(graph):
    return [node.op_type for node in graph.nodes]


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("s = Shape (x)", [2, 3, 4]),
        ("s = Shape <start = 1> (x)", [3, 4]),
        ("t = Shape (x) s = ReduceProd <keepdims = 0> (t)", 24),
        ("s = Size (x)", 24),
        ("t = Shape (x) i = Constant <value = int64[2] {2, 0}> () s = Gather (t, i)", [4, 2]),
        ("t = Shape (x) i = Constant <value = int64 {-1}> () s = Gather (t, i)", 4),
        ("t = Shape (x) i = Constant <value = int64[1] {7}> () s = Concat <axis = 0> (t, i)", [2, 3, 4, 7]),
        ("t = Shape (x) i = Constant <value = int64 {3}> () u = Mul (t, i) s = Sub (u, t)", [4, 6, 8]),
        ("t = Shape (x) i = Constant <value = int64 {-3}> () s = Div (i, t)", [-1, -1, 0]),
        ("t = Shape (x) i = Constant <value = int64 {-3}> () s = Mod (i, t)", [1, 0, 1]),
        (
            "t = Shape (x) i = Constant <value = int64[1] {1}> () "
            "e = Constant <value = int64[1] {9}> () s = Slice (t, i, e)",
            [3, 4],
        ),
        ("t = Shape (x) i = Constant <value = int64[1] {0}> () s = Unsqueeze (t, i)", [[2, 3, 4]]),
        ("t = Shape (x) u = Cast <to = 6> (t) s = Cast <to = 7> (u)", [2, 3, 4]),
        ("t = Shape (x) s = ConstantOfShape <value = int64[1] {5}> (u) u = Constant <value = int64[1] {2}> ()", [5, 5]),
        (
            "a = Constant <value = int64 {1}> () b = Constant <value = int64 {7}> () "
            "c = Constant <value = int64 {3}> () s = Range (a, b, c)",
            [1, 4],
        ),
        (
            "t = Shape (x) i = Constant <value = int64 {3}> () c = Equal (t, i) z = Mul (t, i) "
            "s = Where (c, z, t)",
            [2, 9, 4],
        ),
        ("t = Shape (x) i = Constant <value = int64 {3}> () s = Max (t, i)", [3, 3, 4]),
        ("t = Shape (x) s = Neg (t)", [-2, -3, -4]),
    ],
)  # fmt: skip
def test_static_arithmetic(text, content):
    shape = "".join(f"[{', '.join('ABC'[:rank])}]" for rank in [np.ndim(content)] if rank)
    graph = simplified(f"model (float[2, 3, 4] x) => (int64{shape} s) {{ {text} }}")
    (carrier,) = graph.nodes
    assert carrier.op_type == "Identity"
    parameter = carrier.operand(0).parameter
    assert parameter.is_constant
    np.testing.assert_array_equal(parameter.array, content)


def test_several_results_stay():
    text = "model (float[2, 3, 4] x) => (int64[1] s) { t = Shape (x) a, s = Split <num_outputs = 2> (t) }"
    assert operators(simplified(text)) == ["Split"]


def test_numbers_of_the_program_are_folded():
    """Exporters compute the sizes of a Resize through floats."""
    text = """model (float[1, 3, 5, 4] x) => (int64[2] y) {
        s = Shape <start = 2> (x) f = Cast <to = 1> (s) k = Constant <value = float {2.5}> ()
        m = Mul (f, k) r = Floor (m) i = Cast <to = 7> (r) y = Neg (i)
    }"""
    graph = simplified(text)
    np.testing.assert_array_equal(graph.nodes[0].operand(0).parameter.array, [-12, -10])


def test_weights_are_not_folded():
    text = "model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Exp (w) y = Add (x, a) }"
    graph = graph_of(text)
    check(simplify_shapes, graph, changes=False)
    assert not any(parameter.baked for parameter in graph.parameters.values())


def test_symbolic_sizes_become_dims():
    graph = simplified("model (float[N, M] x) => (int64[2] y) { s = Shape (x) t = Add (s, s) z = Neg (t) y = Abs (z) }")
    assert operators(graph) == ["Dims", "Abs"]
    assert graph.nodes[0].attributes["dims"] == (-2 * N, -2 * M)


def test_every_expression_of_symbolic_sizes_is_known():
    graph = simplified("""model (float[N, M, 8] x) => (int64[4] y) {
        s = Shape (x) p = ReduceProd <keepdims = 1> (s) i = Constant <value = int64[1] {2}> () t = Tile (p, i)
        e = Shape <start = 0, end = 2> (x) c = Concat <axis = 0> (t, e) z = Neg (c) y = Abs (z)
    }""")
    assert operators(graph) == ["Dims", "Abs"]
    assert graph.nodes[0].attributes["dims"] == (-8 * N * M, -8 * N * M, -N, -M)


def test_reshape_keeps_what_it_can_and_infers_one():
    text = """model (float[N, M, 8] x) => (float[N, M, 2, 4] y) {
        s = Shape (x) i = Constant <value = int64[2] {0, 1}> () t = Gather (s, i)
        h = Constant <value = int64[2] {2, 4}> () u = Concat <axis = 0> (t, h) y = Reshape (x, u)
    }"""
    after = "model (float[N, M, 8] x) => (float[N, M, 2, 4] y) <int64[4] s = {0, 0, 2, 4}> { y = Reshape (x, s) }"
    check_example(simplify_shapes, text, after)


@pytest.mark.parametrize(
    ("source", "result", "target"),
    [
        ((N, 6), (N, 2, 3), [0, 2, 3]),
        ((N, 6), (N * 2, 3), [-1, 3]),
        ((N, M), (N * M,), [-1]),
        ((N, M, 4), (N * M, 4), [-1, 4]),
        ((N, M, 4), (N, M, 2, 2), [0, 0, 2, 2]),
        ((N, M, 4), (M, N, 4), None),
        ((N, M), (M * 2, dims.floor_div(N, 2)), None),
        ((N, M, 3, 4), (N, M * 12), None),  # with N = 0 a -1 would be anything
        ((2, 3), (6,), [6]),
        ((0, 3), (0, 5), [0, 5]),
        ((3, 0), (0, 5), None),
    ],
    ids=str,
)
def test_targets(source, result, target):
    assert reshape_target(source, result) == target


def test_weights_that_shape_are_baked_and_others_not():
    graph = graph_of(
        "model (float[6] x) => (float[2, 3] y) <int64[2] s = {2, 3}, float[3] w = {1, 2, 3}> "
        "{ a = Reshape (x, s) y = Add (a, w) }"
    )
    assert {value.name: parameter.baked for value, parameter in graph.parameters.items()} == {"s": True, "w": False}


def test_data_is_left_alone():
    text = "model (int64[3] x) => (int64[3] y) { y = Add (x, x) }"
    check(simplify_shapes, graph_of(text), changes=False)
    large = (
        "model (float[N] x) => (int64[100] y) { y = ConstantOfShape <value = int64[1] {1}> (s) "
        "s = Constant <value = int64[1] {100}> () }"
    )
    check(simplify_shapes, graph_of(large), changes=False)


def test_outputs_that_are_known():
    graph = simplified("model (float[2, 3] x) => (int64[2] y) { y = Shape (x) }")
    assert operators(graph) == ["Identity"]
    graph = simplified("model (float[N, 3] x) => (int64[2] y) { y = Shape (x) }")
    assert operators(graph) == ["Dims"]
    assert graph.outputs[0].name == "y"


def test_sizes_that_only_data_tells_stay():
    """The number of elements is a symbol that no input binds."""
    text = "model (int64[1] x) => (int64[1] y) { i = ConstantOfShape (x) s = Shape (i) y = Neg (s) }"
    graph = graph_of(text)
    check(simplify_shapes, graph, changes=False)


def test_symbols_of_captured_values():
    text = """model (bool c, float[N] x) => (int64[1] y) {
        y = If (c) <then_branch = t () => (int64[1] p) { s = Shape (x) p = Add (s, s) },
                    else_branch = e () => (int64[1] q) { q = Shape (x) }>
    }"""
    graph = check(simplify_shapes, graph_of(text))
    canonicalize(graph)
    assert [node.op_type for node in graph.nodes[0].attributes["else_branch"].nodes] == ["Dims"]
