"""Composites: chains that a backend runs as one."""

from __future__ import annotations

import pytest
from pass_harness import assert_same, graph_of, random_inputs
from toy_backends import Toy, cut, shape_of

from partita.ir.evaluate import evaluate
from partita.ir.graph import Graph
from partita.passes.claims import Accept, Composite, Reject, match_composites

ADD_RELU = Composite("add_relu", ("Add", "Relu"))
CHAIN = Composite("chain", ("Add", "Mul?", "Relu|Exp?"))


def composites(graph: Graph) -> list[tuple[str, list[str]]]:
    return [
        (node.attributes["name"], [inner.op_type for inner in node.attributes["body"].nodes])
        for node in graph.nodes
        if node.op_type == "Composite"
    ]


def matched(text: str, *wanted: Composite) -> list[tuple[str, list[str]]]:
    graph = graph_of(text)
    match_composites(graph, Toy("acc", (), wanted), graph.nodes)
    return composites(graph)


def body(text: str) -> str:
    return f"model (float[2] x, float[2] z) => (float[2] y) {{ {text} }}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = Add (x, z) b = Mul (a, z) y = Relu (b)", ["Add", "Mul", "Relu"]),
        ("a = Add (x, z) b = Mul (z, a) y = Exp (b)", ["Add", "Mul", "Exp"]),
        ("a = Add (x, z) y = Exp (a)", ["Add", "Exp"]),
        ("a = Add (x, z) b = Mul (a, z) y = Neg (b)", ["Add", "Mul"]),
        ("a = Add (x, z) y = Neg (a)", None),
        ("a = Relu (x) y = Mul (a, z)", None),
    ],
)
def test_optional_steps_and_alternatives(text, expected):
    assert matched(body(text), CHAIN) == ([("chain", expected)] if expected else [])


def test_the_longest_match_wins_wherever_it_stands():
    text = body("a = Add (x, z) b = Mul (a, z) y = Relu (b)")
    short = Composite("short", ("Add", "Mul"))
    assert matched(text, short, CHAIN) == [("chain", ["Add", "Mul", "Relu"])]
    assert matched(text, CHAIN, short) == [("chain", ["Add", "Mul", "Relu"])]


def test_of_equally_long_ones_the_first_wins():
    text = body("a = Add (x, z) y = Relu (a)")
    assert matched(text, ADD_RELU, CHAIN) == [("add_relu", ["Add", "Relu"])]
    assert matched(text, CHAIN, ADD_RELU) == [("chain", ["Add", "Relu"])]


@pytest.mark.parametrize(
    "text",
    [
        "model (float[2] x) => (float[2] y, float[2] a) { a = Add (x, x) y = Relu (a) }",
        "model (float[2] x) => (float[2] y, float[2] z) { a = Add (x, x) y = Relu (a) z = Exp (a) }",
    ],
)
def test_a_value_wanted_elsewhere_breaks_the_chain(text):
    assert matched(text, ADD_RELU) == []


def test_a_value_read_twice_by_the_next_breaks_the_chain():
    double = Composite("double", ("Relu", "Add"))
    assert matched("model (float[2] x) => (float[2] y) { a = Relu (x) y = Add (a, a) }", double) == []


def test_every_occurrence_is_folded():
    text = body("a = Add (x, z) b = Relu (a) c = Add (b, z) y = Relu (c)")
    assert matched(text, ADD_RELU) == [("add_relu", ["Add", "Relu"])] * 2


def test_a_check_sees_types_and_may_refuse():
    seen = []

    def check(nodes):
        seen.append([(node.op_type, str(node.output.type)) for node in nodes])
        return Reject("too few elements")

    graph, decisions = cut(
        body("a = Add (x, z) y = Relu (a)"), Toy("acc", ("Relu",), (Composite("c", CHAIN.chain, check),))
    )
    assert seen == [[("Add", "float32[2]"), ("Relu", "float32[2]")]]
    assert shape_of(graph) == {"m_cpu_0": ["Add"], "m_acc_0": ["Relu"]}
    assert decisions[0].refusals == [("acc", "Add + Relu as c: too few elements"), ("acc", "acc has no Add")]


def test_a_refused_chain_is_tried_without_its_end():
    def check(nodes):
        return Reject("no Relu") if nodes[-1].op_type == "Relu" else Accept()

    accelerator = Toy("acc", (), (Composite("c", CHAIN.chain, check),))
    graph, decisions = cut(body("a = Add (x, z) b = Mul (a, z) y = Relu (b)"), accelerator)
    assert shape_of(graph) == {"m_acc_0": ["Composite"], "m_cpu_0": ["Relu"]}
    assert decisions[0].backend == "acc" and decisions[0].refusals == [("acc", "Add + Mul + Relu as c: no Relu")]


def test_a_composite_is_its_backends_without_another_question():
    accelerator = Toy("acc", (), (ADD_RELU,))
    graph, decisions = cut(body("a = Add (x, z) y = Relu (a)"), accelerator)
    assert shape_of(graph) == {"m_acc_0": ["Composite"]}
    assert accelerator.asked == []
    assert [(d.op_type, d.backend) for d in decisions] == [("add_relu", "acc")]


def test_a_later_target_gets_no_node_that_an_earlier_one_takes():
    text = body("a = Add (x, z) y = Relu (a)")
    first, second = Toy("first", ("Relu",)), Toy("second", ("Add",), (ADD_RELU,))
    assert shape_of(cut(text, first, second)[0]) == {"m_second_0": ["Add"], "m_first_0": ["Relu"]}
    graph, _ = cut(text, second, first)
    assert shape_of(graph) == {"m_second_0": ["Composite"]}


def test_refusals_of_what_is_in_a_composite_are_kept():
    _, decisions = cut(body("a = Add (x, z) y = Relu (a)"), Toy("first", ()), Toy("second", (), (ADD_RELU,)))
    assert decisions[0].refusals == [("first", "first has no Add"), ("first", "first has no Relu")]


def test_a_folded_chain_computes_what_it_did():
    graph = graph_of(body("a = Add (x, z) b = Mul (a, z) y = Relu (b)"))
    inputs = random_inputs(graph)
    wanted = evaluate(graph, inputs)
    match_composites(graph, Toy("acc", (), (CHAIN,)), graph.nodes)
    assert composites(graph)
    assert_same(evaluate(graph, inputs), wanted)


def test_matching_again_changes_nothing():
    graph = graph_of(body("a = Add (x, z) b = Relu (a) c = Add (b, z) y = Relu (c)"))
    backend = Toy("acc", (), (ADD_RELU,))
    match_composites(graph, backend, graph.nodes)
    nodes = graph.nodes
    assert match_composites(graph, backend, graph.nodes).folded == {}
    assert graph.nodes == nodes


def test_the_host_may_have_composites_too():
    host = Toy("cpu", ("*",), (ADD_RELU,))
    graph, _ = cut(body("a = Add (x, z) y = Relu (a)"), host=host)
    assert shape_of(graph) == {"m_cpu_0": ["Composite"]}
