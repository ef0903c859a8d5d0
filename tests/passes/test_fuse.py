"""Fusion: which neighbours become one kernel, and which must not."""

from __future__ import annotations

import pytest
from folding import check_folded, check_folding
from pass_harness import example_of, graph_of

from partita.ir.graph import Graph, Node
from partita.passes import fuse as fuse_pass
from partita.passes.fuse import Fusion, fuse

FUSION = Fusion(
    is_kernel=lambda node: node.op_type == "MatMul",
    takes_epilogue=lambda kernel, node: node.op_type != "Exp",
    is_loop=lambda node: node.op_type != "Floor",
)
TWO = "model (float[2, 3] x, float[2, 3] y) => (float[2, 3] z) "


def fused(text: str) -> Graph:
    """The graph after fusion; checked as every pass."""
    return check_folded(lambda graph: fuse(graph, FUSION), graph_of(text), tolerance=1e-6)


def kernels(graph: Graph) -> list[list[str]]:
    """The operators of every kernel, in the order they run."""
    return [_members(node) for node in graph.nodes]


def _members(node: Node) -> list[str]:
    if node.op_type != "Fused":
        return [node.op_type]
    return [member.op_type for member in node.attributes["body"].nodes]


def test_example():
    check_folding(lambda graph: fuse(graph, FUSION), example_of(fuse_pass))


def test_fusion_tells_whether_it_changed_anything():
    graph = graph_of(TWO + "{ s = Add (x, y) z = Relu (s) }")
    assert [fuse(graph, FUSION), fuse(graph, FUSION)] == [True, False]
    assert fuse(graph_of(TWO + "{ z = Add (x, y) }"), FUSION) is False


@pytest.mark.parametrize(
    ("body", "expected", "why"),
    [
        ("a = Add (x, y) b = Exp (a) z = Neg (b)", [["Add", "Exp", "Neg"]], "a chain"),
        ("a = Exp (x) b = Neg (y) z = Add (a, b)", [["Exp", "Neg", "Add"]], "branches that meet"),
        ("a = Exp (x) b = Neg (a) z = Add (a, b)", [["Exp", "Neg", "Add"]], "a result read twice"),
        ("a = Neg (x) b = MatMul (a, y2) z = Relu (b)", [["Neg"], ["MatMul", "Relu"]], "an epilogue, no prologue"),
        ("b = MatMul (x, y2) c = Add (b, y) z = Relu (c)", [["MatMul", "Add", "Relu"]], "an epilogue of two"),
        ("b = MatMul (x, y2) z = Exp (b)", [["MatMul"], ["Exp"]], "the kernel refuses it"),
        (
            "b = MatMul (x, y2) c = Neg (b) z = Add (b, c)",
            [["MatMul", "Neg", "Add"]],
            "branches of a product that meet",
        ),
        ("b = MatMul (x, y2) c = Exp (b) z = Add (b, c)", [["MatMul"], ["Exp", "Add"]], "a branch the kernel refuses"),
        ("b = MatMul (x, y2) z = Mul (b, b)", [["MatMul", "Mul"]], "one reader, both operands"),
        ("b = MatMul (x, y2) c = MatMul (x, y2) z = Add (b, c)", [["MatMul"], ["MatMul", "Add"]], "one kernel each"),
        ("a = Exp (x) b = Floor (a) z = Neg (b)", [["Exp"], ["Floor"], ["Neg"]], "no loop"),
        ("a = Transpose (x) b = Neg (a) z = Transpose (b)", [["Transpose", "Neg", "Transpose"]], "moves of elements"),
    ],
)
def test_who_joins(body, expected, why):
    graph = fused(TWO.replace("y)", "y, float[3, 3] y2)", 1) + f"{{ {body} }}")
    assert sorted(kernels(graph)) == sorted(expected), why


def test_a_row_reduction_joins_what_it_reduces_and_takes_what_is_pointwise_over_its_rows():
    graph = fused(
        """model (float[4, 8] x) => (float[4, 8] z) <int64[1] axes = {1}> {
            m = ReduceMax (x, axes) c = Sub (x, m) e = Exp (c) s = ReduceSum (e, axes) z = Div (e, s)
        }"""
    )
    assert kernels(graph) == [["ReduceMax", "Sub", "Exp", "ReduceSum", "Div"]]


def test_reductions_over_other_axes_stay_apart():
    graph = fused(
        """model (float[4, 8] x) => (float[4, 8] z) <int64[1] rows = {1}, int64[1] columns = {0}> {
            s = ReduceSum (x, rows) c = Sub (x, s) t = ReduceSum (c, columns) z = Sub (c, t)
        }"""
    )
    assert len(kernels(graph)) == 2
    assert sorted(name for members in kernels(graph) for name in members) == ["ReduceSum", "ReduceSum", "Sub", "Sub"]


def test_a_result_that_others_want_is_not_computed_again_where_elements_move():
    shared = """model (float[2, 3] x) => (float[3, 2] t, float[2, 3] n) { e = Exp (x) t = Transpose (e) n = Neg (e) }"""
    assert ["Exp", "Transpose"] not in kernels(fused(shared))
    private = "model (float[2, 3] x) => (float[3, 2] t) { e = Exp (x) t = Transpose (e) }"
    assert kernels(fused(private)) == [["Exp", "Transpose"]]


def test_an_output_of_the_model_may_be_made_on_the_way():
    graph = fused("model (float[2, 3] x) => (float[2, 3] e, float[2, 3] n) { e = Exp (x) n = Neg (e) }")
    assert kernels(graph) == [["Exp", "Neg"]]
    assert [value.name for value in graph.outputs] == ["e", "n"]


@pytest.mark.parametrize(("operator", "expected"), [("Exp", [["Exp"], ["Expand"]]), ("Neg", [["Neg", "Expand"]])])
def test_what_costs_more_than_a_load_is_not_computed_for_every_copy(operator, expected):
    text = f"""model (float[1, 3] x) => (float[100, 3] z) <int64[2] shape = {{100, 3}}> {{
        a = {operator} (x) z = Expand (a, shape)
    }}"""
    assert kernels(fused(text)) == expected


def test_what_runs_when_weights_are_bound_joins_nothing():
    graph = fused(
        "model (float[2] x) => (float[2] z) <float[2] w = {1, 2}> { a = Neg (w) b = Add (x, a) z = Relu (b) }"
    )
    assert kernels(graph) == [["Neg"], ["Add", "Relu"]]


def test_a_detour_keeps_two_nodes_apart():
    """`a` and `c` would be one kernel, but `b` between them is none of theirs: it would wait for itself."""
    graph = fused("model (float[2] x) => (float[2] z) { a = Exp (x) b = Floor (a) z = Add (a, b) }")
    assert kernels(graph) == [["Exp"], ["Floor"], ["Add"]]


def test_symbolic_sizes_that_are_equal_join():
    graph = fused("model (float[N, 3] x, float[N, 3] y) => (float[N, 3] z) { a = Add (x, y) z = Relu (a) }")
    assert kernels(graph) == [["Add", "Relu"]]
