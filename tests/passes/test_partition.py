"""Partitioning: who gets which node, which nodes become one region, and what crosses the borders."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from folding import check_folded, check_folding
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_harness import assert_same, example_of, graph_of, random_inputs
from toy_backends import HOST, Toy, cut, region_named, shape_of

from partita.errors import UnsupportedOperatorError
from partita.ir.evaluate import evaluate
from partita.ir.graph import Graph
from partita.ir.region import regions
from partita.ir.schema import NEWEST_OPSET
from partita.ir.types import DType, TensorType
from partita.ir.verify import verify
from partita.passes import partition as partition_pass
from partita.passes.dead_code import dead_code
from partita.passes.partition import partition

RELU = Toy("acc", ("Relu",))
ALL = Toy("acc", ("*",))


def test_example():
    accelerator = Toy("acc", ("Add", "Relu"))
    check_folding(lambda graph: partition(graph, [accelerator, HOST], "m"), example_of(partition_pass))


# ---------------------------------------------------------------------- who gets what


def test_the_first_target_that_accepts_gets_the_node():
    text = "model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (a) y = Neg (b) }"
    first, second = Toy("first", ("Relu",)), Toy("second", ("Relu", "Exp"))
    graph, _ = cut(text, first, second)
    assert shape_of(graph) == {"m_first_0": ["Relu"], "m_second_0": ["Exp"], "m_cpu_0": ["Neg"]}
    graph, _ = cut(text, second, first)
    assert shape_of(graph) == {"m_second_0": ["Relu", "Exp"], "m_cpu_0": ["Neg"]}


def test_every_refusal_is_kept_in_order():
    text = "model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (a) y = Neg (b) }"
    _, decisions = cut(text, Toy("first", ("Exp",)), Toy("second", ("Relu",)))
    assert [(d.node, d.op_type, d.backend, d.refusals) for d in decisions] == [
        ("a", "Relu", "second", [("first", "first has no Relu")]),
        ("b", "Exp", "first", []),
        ("y", "Neg", "cpu", [("first", "first has no Neg"), ("second", "second has no Neg")]),
    ]


def test_who_is_refused_by_all_is_listed_with_all_others():
    text = "model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (a) y = Neg (b) }"
    graph = graph_of(text)
    with pytest.raises(UnsupportedOperatorError) as caught:
        partition(graph, [Toy("acc", ()), Toy("cpu", ("Exp",))], "m")
    message = str(caught.value)
    assert message.startswith("2 node(s) run on none of the targets.")
    assert "node 'a' (Relu, domain ai.onnx" in message and "acc: acc has no Relu; cpu: cpu has no Relu" in message
    assert "node 'y' (Neg, domain ai.onnx" in message and "acc: acc has no Neg; cpu: cpu has no Neg" in message
    assert "node 'b'" not in message
    assert [node.op_type for node in graph.nodes] == ["Relu", "Exp", "Neg"]


# ---------------------------------------------------------------------- which nodes become one


def test_a_region_is_as_large_as_it_may_be():
    text = """model (float[2] x) => (float[2] y) {
        a = Relu (x) b = Exp (a) c = Neg (b) d = Abs (c) e = Relu (d) y = Add (e, b)
    }"""
    graph, _ = cut(text, Toy("acc", ("Relu", "Exp", "Add")))
    assert shape_of(graph) == {"m_acc_0": ["Relu", "Exp"], "m_cpu_0": ["Neg", "Abs"], "m_acc_1": ["Relu", "Add"]}


def test_branches_that_meet_become_one():
    text = "model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (x) y = Add (a, b) }"
    graph, _ = cut(text, ALL)
    assert shape_of(graph) == {"m_acc_0": ["Relu", "Exp", "Add"]}


def test_what_an_accelerator_has_no_edge_between_stays_apart():
    text = "model (float[2] x) => (float[2] y, float[2] z) { y = Relu (x) z = Exp (x) }"
    assert shape_of(cut(text, ALL)[0]) == {"m_acc_0": ["Relu"], "m_acc_1": ["Exp"]}
    assert shape_of(cut(text)[0]) == {"m_cpu_0": ["Relu", "Exp"]}


def test_a_detour_keeps_two_nodes_apart():
    """a and c are the accelerator's, b between them is not: {a, c} would wait for itself."""
    text = "model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (a) y = Add (a, b) }"
    graph, _ = cut(text, Toy("acc", ("Relu", "Add")))
    assert shape_of(graph) == {"m_acc_0": ["Relu"], "m_cpu_0": ["Exp"], "m_acc_1": ["Add"]}


CROSSED = """model (float[2] i) => (float[2] r, float[2] e) {
    p = Relu (i) d = Exp (i) c = Exp (p) r = Add (p, d) e = Sub (c, d)
}"""


def test_regions_that_are_convex_one_by_one_may_depend_on_each_other():
    """{p, r} of one accelerator and {c, d, e} of another are convex, and each would have to run before the other."""
    x, y = Toy("x", ("Relu", "Add")), Toy("y", ("Exp", "Sub"))
    for accelerators in ([x, y], [y, x]):
        graph, decisions = cut(CROSSED, *accelerators)
        assert {d.op_type: d.backend for d in decisions} == {"Relu": "x", "Add": "x", "Exp": "y", "Sub": "y"}
        assert nx.is_directed_acyclic_graph(graph.topology)
        assert sorted(node for nodes in shape_of(graph).values() for node in nodes) == [
            "Add",
            "Exp",
            "Exp",
            "Relu",
            "Sub",
        ]
        assert 3 <= len(shape_of(graph)) <= 4
        check_folded(lambda g, b=accelerators: partition(g, [*b, HOST], "m"), graph_of(CROSSED))


def test_two_pairs_that_cross_stay_apart():
    text = """model (float[2] i, float[2] j) => (float[2] c, float[2] d) {
        a = Relu (i) b = Exp (j) c = Relu (b) d = Exp (a)
    }"""
    graph, _ = cut(text, Toy("x", ("Relu",)), Toy("y", ("Exp",)))
    assert nx.is_directed_acyclic_graph(graph.topology)
    assert len(shape_of(graph)) == 4


def test_a_region_is_not_taken_apart_again():
    text = "model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (a) y = Relu (b) }"
    graph, _ = cut(text, RELU)
    before = shape_of(graph)
    assert partition(graph, [RELU, HOST], "m") == []
    assert shape_of(graph) == before


def test_new_nodes_beside_regions_get_regions_of_their_own():
    graph, _ = cut("model (float[2] x) => (float[2] y) { a = Relu (x) y = Exp (a) }", RELU)
    fresh = graph.add_node("Relu", [graph.outputs[0]], outputs=["z"])
    fresh.output.type = graph.outputs[0].type
    graph.set_outputs([fresh.output])
    partition(graph, [RELU, HOST], "m")
    assert shape_of(graph) == {"m_acc_0": ["Relu"], "m_cpu_0": ["Exp"], "m_acc_1": ["Relu"]}
    verify(graph)


# ---------------------------------------------------------------------- what crosses the borders


def borders(graph: Graph, symbol: str) -> tuple[list[str], list[str]]:
    node = region_named(graph, symbol).node
    return [value.name for value in node.operands], [value.name for value in node.outputs]


def test_an_operand_used_twice_is_passed_once():
    graph, _ = cut("model (float[2] x) => (float[2] y) { a = Add (x, x) y = Mul (a, x) }", ALL)
    assert borders(graph, "m_acc_0") == (["x"], ["y"])


def test_a_value_used_inside_and_outside_is_handed_out_once():
    text = "model (float[2] x) => (float[2] y, float[2] a) { a = Relu (x) b = Exp (a) c = Neg (a) y = Add (c, b) }"
    graph, _ = cut(text, Toy("acc", ("Relu", "Exp")))
    assert borders(graph, "m_acc_0") == (["x"], ["a", "b"])
    assert borders(graph, "m_cpu_0") == (["a", "b"], ["y"])
    assert [output.name for output in graph.outputs] == ["y", "a"]


def test_several_outputs_keep_their_order_and_names():
    text = "model (float[2] x) => (float[2] c, float[2] a, float[2] b) { a = Relu (x) b = Exp (a) c = Neg (b) }"
    graph = check_folded(lambda g: partition(g, [ALL, HOST], "m"), graph_of(text))
    assert [output.name for output in graph.outputs] == ["c", "a", "b"]


def test_an_output_may_be_declared_twice():
    graph = graph_of("model (float[2] x) => (float[2] y) { y = Relu (x) }")
    graph.set_outputs([graph.outputs[0]] * 2)
    partition(graph, [RELU, HOST], "m")
    verify(graph)
    assert borders(graph, "m_acc_0") == (["x"], ["y"])
    assert [output.name for output in graph.outputs] == ["y", "y"]


def test_an_output_may_be_an_input_or_a_parameter():
    graph = graph_of("model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }")
    (weight,) = graph.parameters
    graph.set_outputs([graph.inputs[0], weight, *graph.outputs])
    partition(graph, [ALL, HOST], "m")
    verify(graph)
    assert [output.name for output in graph.outputs] == ["x", "w", "y"]
    assert weight in graph.parameters


def test_regions_share_a_parameter_by_name():
    text = """model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
        a = Add (x, w) b = Exp (a) y = Add (b, w)
    }"""
    graph = check_folded(lambda g: partition(g, [Toy("acc", ("Add",)), HOST], "m"), graph_of(text))
    bodies = [region_named(graph, symbol).body for symbol in ("m_acc_0", "m_acc_1")]
    assert [[value.name for value in body.parameters] for body in bodies] == [["w"], ["w"]]
    first, second = (next(iter(body.parameters.values())).array for body in bodies)
    assert first is second
    assert borders(graph, "m_acc_0") == (["x"], ["a"])


def test_regions_that_differ_in_constants_alone_stay_two():
    text = """model (float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {3, 4}> {
        a = Add (x, v) b = Exp (a) y = Add (b, w)
    }"""
    graph, _ = cut(text, Toy("acc", ("Add",)))
    names = [[value.name for value in region_named(graph, s).body.parameters] for s in ("m_acc_0", "m_acc_1")]
    assert names == [["v"], ["w"]]


def test_parameters_of_equal_bytes_stay_two():
    """Other weights may tell them apart."""
    text = """model (float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {1, 2}> {
        a = Add (x, v) b = Exp (a) c = Add (b, w) d = Add (c, v) y = Exp (d)
    }"""
    graph = check_folded(lambda g: partition(g, [Toy("acc", ("Add",)), HOST], "m"), graph_of(text))
    names = [[value.name for value in region_named(graph, s).body.parameters] for s in ("m_acc_0", "m_acc_1")]
    assert names == [["v"], ["w", "v"]]
    assert [value.name for value in graph.parameters] == ["v", "w"]


@pytest.mark.parametrize("dtype", DType)
def test_a_parameter_may_be_of_any_type(dtype):
    content = ["a", "ß"] if dtype is DType.STRING else np.array([1, 2], np.int8)
    array = np.asarray(content).astype(dtype.numpy)
    kind = TensorType(dtype, (2,))
    graph = Graph("typed")
    graph.opsets = {"": NEWEST_OPSET}
    x, w = graph.add_input("x", kind), graph.add_parameter("w", kind, lambda: array)
    for operand, name in ((x, "y"), (w, "z")):
        graph.add_node("Identity", [operand], outputs=[name]).output.type = kind
    graph.set_outputs(node.output for node in graph.nodes)
    partition(graph, [ALL, HOST], "m")
    verify(graph)
    (held,) = region_named(graph, "m_acc_1").body.parameters.values()
    assert held.array is array
    assert held.value.type == kind
    assert evaluate(graph, {"x": array})["z"].tolist() == array.tolist()


def test_a_region_may_read_parameters_alone():
    text = """model (float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {3, 4}> {
        a = Add (v, w) b = Relu (a) y = Mul (x, b)
    }"""
    graph = check_folded(lambda g: partition(g, [Toy("acc", ("Add", "Relu")), HOST], "m"), graph_of(text))
    assert shape_of(graph) == {"m_acc_0": ["Add", "Relu"], "m_cpu_0": ["Mul"]}
    assert borders(graph, "m_acc_0") == ([], ["b"])
    assert [value.name for value in region_named(graph, "m_acc_0").body.parameters] == ["v", "w"]


def test_an_output_that_its_own_region_reads_is_handed_out():
    text = "model (float[2] x) => (float[2] y, float[2] a) { a = Relu (x) b = Exp (a) y = Add (a, b) }"
    graph = check_folded(lambda g: partition(g, [ALL, HOST], "m"), graph_of(text))
    assert borders(graph, "m_acc_0") == (["x"], ["a", "y"])
    assert [output.name for output in graph.outputs] == ["y", "a"]


@pytest.mark.parametrize("name", ["", "a/b:0", "int", 'quote"*/', "m_acc_0", "y"])
def test_names_of_nodes_decide_nothing(name):
    graph = graph_of("model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (a) y = Relu (b) }")
    for node in graph.nodes:
        node.name = name
    check_folded(lambda g: partition(g, [RELU, HOST], "m"), graph)
    assert shape_of(graph) == {"m_acc_0": ["Relu"], "m_cpu_0": ["Exp"], "m_acc_1": ["Relu"]}


def test_a_graph_without_nodes_has_no_regions():
    graph = graph_of("model (float[2] x) => (float[2] x) { }")
    assert partition(graph, [ALL, HOST], "m") == []
    assert regions(graph) == []


def test_an_accelerator_that_takes_all_leaves_the_host_nothing():
    graph, decisions = cut("model (float[2] x) => (float[2] y) { a = Relu (x) y = Exp (a) }", ALL)
    assert shape_of(graph) == {"m_acc_0": ["Relu", "Exp"]}
    assert {d.backend for d in decisions} == {"acc"}


# ---------------------------------------------------------------------- any graph


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, dict[str, str]]:
    """A random DAG of pointwise nodes, and a backend for each node's name."""
    graph = Graph("random")
    graph.opsets = {"": 23}
    kind = TensorType(DType.FLOAT32, (2,))
    values = [graph.add_input(f"x{n}", kind) for n in range(2)]
    array = np.array([0.5, -1.5], np.float32)
    values.append(graph.add_parameter("w", kind, lambda: array))
    owner = {}
    for n in range(draw(st.integers(1, 14))):
        operands = draw(st.lists(st.sampled_from(values), min_size=1, max_size=2))
        node = graph.add_node("Neg" if len(operands) == 1 else "Sub", operands, outputs=[f"v{n}"], name=f"n{n}")
        node.output.type = kind
        owner[node.name] = draw(st.sampled_from(["x", "y", "z", "cpu"]))
        values.append(node.output)
    graph.set_outputs(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)))
    dead_code(graph)
    return graph, {node.name: owner[node.name] for node in graph.nodes}


@settings(max_examples=150, deadline=None)
@given(graphs())
def test_any_graph_is_cut_into_regions_that_can_run_one_after_another(drawn):
    graph, owner = drawn
    inputs = random_inputs(graph)
    wanted = evaluate(graph, inputs)
    backends = [Toy(name, tuple(n for n, o in owner.items() if o == name)) for name in ("x", "y", "z")]
    decisions = partition(graph, [*backends, HOST], "m")
    verify(graph)
    assert nx.is_directed_acyclic_graph(graph.topology)
    inside = [(node.name, region.backend) for region in regions(graph) for node in region.body.nodes]
    assert sorted(inside) == sorted(owner.items())
    assert {d.node: d.backend for d in decisions} == owner
    for region in regions(graph):
        if region.backend != "cpu":
            assert nx.is_weakly_connected(region.body.topology)
    assert_same(evaluate(graph, inputs), wanted)
