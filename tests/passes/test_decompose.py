"""Composites taken apart: by our definitions, and by ONNX's functions."""

import pytest
from pass_harness import assert_same, check, graph_of

from partita.ir.evaluate import evaluate
from partita.passes.decompose import decompose, has_expression

X = "float[2, 4, 6] x"
COMPOSITES = {
    "Softmax": "y = Softmax <axis = 1> (x)",
    "LogSoftmax": "y = LogSoftmax (x)",
    "LayerNormalization": "y = LayerNormalization (x, s, b)",
    "InstanceNormalization": "y = InstanceNormalization (x, c, c)",
    "GroupNormalization": "y = GroupNormalization <num_groups = 2> (x, c, c)",
    "RMSNormalization": "y = RMSNormalization (x, s)",
    "MeanVarianceNormalization": "y = MeanVarianceNormalization <axes = [0, 2]> (x)",
    "Gelu": 'y = Gelu <approximate = "tanh"> (x)',
    "Attention": "y = Attention <q_num_heads = 2, kv_num_heads = 2, is_causal = 1> (x, x, x)",
    "BatchNormalization": "y = BatchNormalization (x, c, c, c, c)",
    "SwiGLU": "y = SwiGLU (x, x)",
}
WEIGHTS = "<float[6] s = {1, 2, 3, 4, 5, 6}, float[6] b = {6, 5, 4, 3, 2, 1}, float[4] c = {1, 2, 3, 4}>"


def text(name):
    return f"model ({X}) => (float[A, B, C] y) {WEIGHTS} {{ {COMPOSITES[name]} }}"


def finite(graph):
    """Inputs without what would make every statistic NaN."""
    import numpy as np

    return {"x": np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)}


@pytest.mark.parametrize("name", [name for name in COMPOSITES if name != "SwiGLU"])
def test_composites(name):
    graph = graph_of(text(name))
    if all(map(has_expression, graph.nodes)):
        check(decompose, graph, changes=False)
        return
    check(decompose, graph, inputs=finite(graph), tolerance=1e-4)
    assert all(map(has_expression, graph.nodes))
    assert all(value.name == "y" or value.name.startswith("y.") for node in graph.nodes for value in node.outputs)


def test_what_is_kept_stays_whole():
    graph = graph_of(text("Softmax"))
    check(lambda g: decompose(g, lambda node: True), graph, changes=False, inputs=finite(graph))
    assert [node.op_type for node in graph.nodes] == ["Softmax"]


def test_an_expression_can_be_taken_apart_further():
    """What a backend does not keep becomes ONNX's function, as far as there is one."""
    graph = graph_of("model (float[2, 3] x) => (float[2, 3] y) { y = HardSwish (x) }")
    before = evaluate(graph, {"x": finite(graph)["x"][0, :2, :3]})
    assert decompose(graph, lambda node: node.op_type != "HardSwish")
    assert "HardSwish" not in [node.op_type for node in graph.nodes]
    assert_same(evaluate(graph, {"x": finite(graph)["x"][0, :2, :3]}), before, 1e-6)


def test_elementary_nodes_that_are_not_kept_stay():
    graph = graph_of("model (float[2] x) => (float[2] y) { y = Exp (x) }")
    assert decompose(graph, lambda node: False) is False


def test_outputs_that_are_not_asked_for_are_not_computed():
    graph = graph_of(text("LayerNormalization"))
    decompose(graph)
    assert all(graph.uses(v) or graph.is_output(v) for node in graph.nodes for v in node.outputs)
