"""The verifier: every rule of the IR, broken on purpose."""

import numpy as np
import pytest
from models import data

from partita.errors import VerificationError
from partita.ir.graph import Value
from partita.ir.read_onnx import read_onnx
from partita.ir.types import DType, TensorType, UnknownType
from partita.ir.verify import verify
from partita.passes.canonicalize import canonicalize

TEXT = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Add (x, w) b = Neg (a) y = Exp (b) }"


@pytest.fixture
def graph():
    graph = read_onnx(data(TEXT))
    canonicalize(graph)
    verify(graph)
    return graph


def node(graph, op_type):
    return next(node for node in graph.nodes if node.op_type == op_type)


def a_value_of_elsewhere(graph):
    graph.set_input(node(graph, "Exp"), 0, Value("z", TensorType(DType.FLOAT32, (2,))))


def an_operand_behind_the_graphs_back(graph):
    node(graph, "Exp")._inputs = (graph.inputs[0],)


def two_values_of_one_name(graph):
    node(graph, "Neg").output.name = "x"


def a_missing_edge(graph):
    graph.topology.remove_edge(node(graph, "Neg"), node(graph, "Exp"))


def an_edge_too_many(graph):
    graph.topology.add_edge(node(graph, "Add"), node(graph, "Exp"), key=(0, 5))


def a_cycle(graph):
    graph.set_input(node(graph, "Add"), 1, node(graph, "Exp").output)


def an_output_of_elsewhere(graph):
    graph.set_outputs([Value("z", TensorType(DType.FLOAT32, (2,)))])


def a_value_without_a_type(graph):
    node(graph, "Neg").output.type = UnknownType()


def a_wrong_shape(graph):
    node(graph, "Neg").output.type = TensorType(DType.FLOAT32, (3,))


def a_wrong_element_type(graph):
    node(graph, "Exp").output.type = TensorType(DType.FLOAT64, (2,))


def an_unknown_attribute(graph):
    node(graph, "Neg").attributes["alpha"] = 1.0


def too_few_operands(graph):
    graph.set_inputs(node(graph, "Add"), [graph.inputs[0]])


def an_unknown_operator(graph):
    node(graph, "Neg").op_type = "Negate"


def operands_of_two_types(graph):
    other = graph.add_parameter("i", TensorType(DType.INT64, (2,)), lambda: np.zeros(2, np.int64))
    graph.set_input(node(graph, "Add"), 1, other)


def a_parameter_that_is_another(graph):
    (value,) = graph.parameters
    value.parameter = None


BROKEN = {
    a_value_of_elsewhere: "'z', which is not in the graph",
    an_operand_behind_the_graphs_back: "does not know of it",
    two_values_of_one_name: "2 values are named 'x'",
    a_missing_edge: "edges differ",
    an_edge_too_many: "edges differ",
    a_cycle: "a cycle: ",
    an_output_of_elsewhere: "output 'z' is not in the graph",
    a_value_without_a_type: "has no type",
    a_wrong_shape: "'b' has type float32\\[3\\].*computes float32\\[2\\]",
    a_wrong_element_type: "'y' has type float64",
    an_unknown_attribute: "'alpha' is unknown",
    too_few_operands: "1 operands; 2 are needed",
    an_unknown_operator: "no such operator",
    operands_of_two_types: "must be of one type",
    a_parameter_that_is_another: "does not know its content",
}


@pytest.mark.parametrize("breaking", BROKEN, ids=lambda function: function.__name__)
def test_broken_rules(graph, breaking):
    breaking(graph)
    with pytest.raises(VerificationError, match=BROKEN[breaking]):
        verify(graph)


def test_all_problems_at_once(graph):
    an_unknown_attribute(graph)
    a_wrong_element_type(graph)
    with pytest.raises(VerificationError) as caught:
        verify(graph)
    assert "'alpha'" in str(caught.value)
    assert "float64" in str(caught.value)


def test_graphs_inside(graph):
    text = """g (bool c, float[2] x) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) },
                    else_branch = e () => (float[2] q) { q = Exp (x) }>
    }"""
    graph = read_onnx(data(text))
    canonicalize(graph)
    verify(graph)
    graph.nodes[0].attributes["then_branch"].nodes[0].attributes["alpha"] = 1.0
    with pytest.raises(VerificationError, match=r"in then_branch of .*'alpha' is unknown"):
        verify(graph)
