"""Groups of nodes: merging is refused exactly where it would close a cycle."""

from __future__ import annotations

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_harness import graph_of

from partita.ir.graph import Graph
from partita.ir.types import DType, TensorType
from partita.passes.grouping import Grouping

DETOUR = "model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (a) y = Add (a, b) }"


def singles(graph: Graph) -> Grouping[str]:
    """Every node in a group of its own, labelled with its result."""
    grouping: Grouping[str] = Grouping(graph)
    for node in graph.nodes:
        grouping.open(node, node.output.name)
    return grouping


def contents(grouping: Grouping[str]) -> list[list[str]]:
    return [[node.output.name for node in group.nodes] for group in grouping.groups()]


def test_groups_come_in_an_order_in_which_they_can_run():
    text = "model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (x) c = Add (a, b) y = Neg (c) }"
    assert contents(singles(graph_of(text))) == [["a"], ["b"], ["c"], ["y"]]


def test_a_node_joins_the_group_it_reads_from():
    graph = graph_of("model (float[2] x) => (float[2] y) { a = Relu (x) b = Exp (a) y = Neg (b) }")
    a, b, y = graph.nodes
    grouping: Grouping[str] = Grouping(graph)
    group = grouping.open(a, "first")
    assert grouping.may_join(b, group)
    grouping.join(b, group)
    assert grouping.group_of(b) is group
    grouping.open(y, "second")
    assert contents(grouping) == [["a", "b"], ["y"]]
    assert grouping.before(y) == [group]


def test_a_node_does_not_join_a_group_that_it_depends_on_through_another():
    graph = graph_of(DETOUR)
    a, b, y = graph.nodes
    grouping: Grouping[str] = Grouping(graph)
    first, second = grouping.open(a, "first"), grouping.open(b, "second")
    assert not grouping.may_join(y, first)
    assert grouping.may_join(y, second)
    assert grouping.before(y) == [second, first]


def test_groups_with_a_third_between_them_do_not_unite():
    grouping = singles(graph_of(DETOUR))
    a, b, y = grouping.groups()
    assert not grouping.may_unite(a, y)
    assert not grouping.may_unite(y, a)
    assert grouping.may_unite(a, b) and grouping.may_unite(b, y)
    grouping.unite(b, a)
    assert grouping.may_unite(a, y)
    grouping.unite(a, y)
    assert contents(grouping) == [["a", "b", "y"]]


def test_a_node_of_no_operands_joins_any_group():
    graph = graph_of(
        "model (float[2] x) => (float[2] y) { a = Relu (x) r = RandomNormal <shape = [2]> () y = Add (a, r) }"
    )
    grouping: Grouping[str] = Grouping(graph)
    a, r = graph.nodes[:2]
    assert grouping.may_join(r, grouping.open(a, "first"))


@st.composite
def merges(draw: st.DrawFn) -> tuple[Graph, list[tuple[int, int]]]:
    """A random graph and pairs of its nodes to bring together."""
    graph = Graph("random")
    graph.opsets = {"": 23}
    kind = TensorType(DType.FLOAT32, (2,))
    values = [graph.add_input("x", kind)]
    count = draw(st.integers(2, 9))
    for number in range(count):
        operands = draw(st.lists(st.sampled_from(values), min_size=2, max_size=2))
        values.append(graph.add_node("Add", operands, outputs=[f"v{number}"]).output)
        values[-1].type = kind
    places = st.integers(0, count - 1)
    return graph, draw(st.lists(st.tuples(places, places), max_size=12))


@settings(max_examples=200, deadline=None)
@given(merges())
def test_uniting_is_allowed_exactly_where_the_groups_stay_acyclic(drawn):
    graph, pairs = drawn
    nodes = graph.nodes
    grouping = singles(graph)
    for first, second in pairs:
        old, new = grouping.group_of(nodes[first]), grouping.group_of(nodes[second])
        if old is new:
            continue
        merged = {node: place for place, group in enumerate(grouping.groups()) for node in group.nodes}
        merged.update(dict.fromkeys(old.nodes, merged[new.nodes[0]]))
        quotient = nx.DiGraph((merged[a], merged[b]) for a, b in graph.topology.edges() if merged[a] != merged[b])
        assert grouping.may_unite(old, new) is nx.is_directed_acyclic_graph(quotient)
        if grouping.may_unite(old, new):
            grouping.unite(old, new)
    ran: set[object] = set()
    for group in grouping.groups():
        for node in group.nodes:
            assert ran >= set(graph.topology.pred[node])
            ran.add(node)
    assert ran == set(nodes)
