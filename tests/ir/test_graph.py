"""Changing graphs: uses, operand order, edges and names stay together."""

import numpy as np
import pytest

from partita.ir.graph import Graph
from partita.ir.types import DType, TensorType
from partita.ir.verify import verify

FLOAT = TensorType(DType.FLOAT32, (2,))


def typed(node):
    for output in node.outputs:
        output.type = FLOAT
    return node


@pytest.fixture
def graph():
    """y = Add(Neg(x), w)"""
    graph = Graph()
    graph.opsets = {"": 28}
    x = graph.add_input("x", FLOAT)
    w = graph.add_parameter("w", FLOAT, lambda: np.ones(2, np.float32))
    negated = typed(graph.add_node("Neg", [x], outputs=["n"]))
    total = typed(graph.add_node("Add", [negated.output, w], outputs=["y"]))
    graph.set_outputs([total.output])
    return graph


def test_a_built_graph_verifies(graph):
    verify(graph)
    negated, total = graph.nodes
    assert graph.uses(negated.output) == ((total, 0),)
    assert graph.topology.has_edge(negated, total, key=(0, 0))
    assert [value.name for value in graph.values()] == ["x", "w", "n", "y"]


def test_an_operand_used_twice_has_two_uses(graph):
    negated, total = graph.nodes
    graph.set_input(total, 1, negated.output)
    assert graph.uses(negated.output) == ((total, 0), (total, 1))
    assert graph.consumers(negated.output) == [total]
    assert graph.topology.number_of_edges(negated, total) == 2
    verify(graph)
    graph.remove_parameter(graph.value_named("w"))
    assert graph.value_named("w") is None


def test_set_input_grows_with_absent_operands(graph):
    clip = typed(graph.add_node("Clip", [graph.outputs[0]]))
    low = graph.add_parameter("low", TensorType(DType.FLOAT32, ()), lambda: np.float32(0), is_constant=True)
    graph.set_input(clip, 2, low)
    assert clip.inputs == (graph.outputs[0], None, low)
    assert clip.input(1) is None
    assert clip.input(7) is None
    with pytest.raises(ValueError, match="lacks its input 1"):
        clip.operand(1)
    graph.set_inputs(clip, [graph.outputs[0]])
    assert graph.uses(low) == ()


def test_replace_uses_reaches_outputs(graph):
    negated, total = graph.nodes
    graph.replace_uses(total.output, negated.output)
    assert graph.outputs == (negated.output,)
    graph.remove_node(total)
    verify(graph)


def test_what_is_read_cannot_be_removed(graph):
    negated, total = graph.nodes
    for remove, what in [
        (graph.remove_node, negated),
        (graph.remove_node, total),
        (graph.remove_parameter, graph.value_named("w")),
        (graph.remove_input, graph.value_named("x")),
    ]:
        with pytest.raises(ValueError, match="still used"):
            remove(what)
    verify(graph)


def test_names_are_unique(graph):
    with pytest.raises(ValueError, match="taken"):
        graph.add_input("w", FLOAT)
    assert graph.unique_name("x") == "x.1"
    assert graph.unique_name("z") == "z"
    graph.rename(graph.value_named("n"), "w")
    assert [value.name for value in graph.values()] == ["x", "w", "w.1", "y"]
    verify(graph)


def test_names_that_are_found_together_differ():
    """Where `s` is taken, the first is not `s.1`, which is the second."""
    graph = Graph("g")
    graph.add_input("s", TensorType(DType.FLOAT32, (2,)))
    assert graph.unique_names(["s", "s.1"]) == ["s.1", "s.1.1"]


def test_nodes_are_in_topological_order_ties_by_number(graph):
    negated, total = graph.nodes
    other = typed(graph.add_node("Exp", [graph.inputs[0]]))
    graph.set_input(negated, 0, other.output)
    assert graph.nodes == [other, negated, total]


def test_replace_node_keeps_the_names_of_outputs(graph):
    negated, total = graph.nodes
    graph.replace_node(total, [negated.output])
    assert [value.name for value in graph.outputs] == ["y"]
    assert graph.outputs == (negated.output,)
    verify(graph)


@pytest.mark.parametrize("chosen", ["x", "w"])
def test_replace_node_by_what_cannot_take_the_name(graph, chosen):
    graph.replace_node(graph.nodes[1], [graph.value_named(chosen)])
    assert graph.outputs[0].name == "y"
    assert graph.outputs[0].producer.op_type == "Identity"
    assert graph.outputs[0].type == FLOAT
    verify(graph)


def test_replace_node_by_another_output(graph):
    negated, total = graph.nodes
    graph.set_outputs([total.output, negated.output, total.output])
    graph.replace_node(total, [negated.output])
    assert [value.name for value in graph.outputs] == ["y", "n", "y"]
    verify(graph)


def test_nodes_describe_themselves(graph):
    graph.nodes[1].name = "sum"
    text = graph.nodes[1].describe()
    assert "'sum' (Add, domain ai.onnx, opset 28)" in text
    assert "w: float32[2]" in text
    assert repr(graph.nodes[1]) == "y = Add(n, w)"


def test_looking_at_a_weight_bakes_it(graph):
    weight = graph.parameters[graph.value_named("w")]
    assert weight.array.sum() == 2
    assert not weight.baked
    weight.bake()
    assert weight.baked
    constant = graph.add_parameter("c", FLOAT, lambda: np.zeros(2, np.float32), is_constant=True)
    graph.parameters[constant].bake()
    assert not graph.parameters[constant].baked
