"""The order of passes, and what the pass manager does around them."""

import numpy as np
import onnx
import pytest
from pass_harness import check, graph_of

from partita.errors import VerificationError
from partita.passes import pipeline
from partita.passes.dead_code import dead_code

TEXT = """model (float[N, 4] x) => (float[N, 2, 2] y) {
    s = Shape (x) i = Constant <value = int64[1] {0}> () n = Gather (s, i)
    t = Constant <value = int64[2] {2, 2}> () u = Concat <axis = 0> (n, t)
    a = Identity (x) b = Exp (a) c = Exp (x) d = Add (b, c) e = Neg (d) y = Reshape (d, u)
}"""


def test_preparing_leaves_what_is_needed():
    graph = graph_of(TEXT, canonical=False)
    assert pipeline.prepare(graph, verify=True)
    assert [node.op_type for node in graph.nodes] == ["Exp", "Add", "Reshape"]
    assert not pipeline.prepare(graph, verify=True)


def test_simplify_is_a_pass_like_any_other():
    check(pipeline.simplify, graph_of(TEXT))


def test_timings_and_dumps(tmp_path):
    timings = {}
    graph = graph_of(TEXT, canonical=False)
    pipeline.prepare(graph, dump=tmp_path / "stages", timings=timings)
    assert {"canonicalize", "simplify_shapes", "simplify_algebra", "dead_code"} <= set(timings)
    assert all(seconds >= 0 for seconds in timings.values())
    stages = sorted(path.name for path in (tmp_path / "stages").glob("*.onnx"))
    assert stages[0] == "00_canonicalize.onnx"
    for name in stages:
        onnx.checker.check_model(onnx.load(tmp_path / "stages" / name))
    last = (tmp_path / "stages" / stages[-1]).with_suffix(".txt").read_text()
    assert "Reshape" in last


def test_a_pass_that_breaks_the_graph_is_named():
    def breaking(graph):
        graph.nodes[0].attributes["nonsense"] = 1
        return True

    graph = graph_of(TEXT)
    with pytest.raises(VerificationError, match=r"after breaking:\n.*'nonsense' is unknown"):
        pipeline.run_passes(graph, [breaking], verify=True)
    assert pipeline.run_passes(graph, [breaking])  # nobody looked


def test_passes_that_undo_each_other_are_found(monkeypatch):
    monkeypatch.setattr(pipeline, "SIMPLIFICATIONS", (lambda graph: True,))
    with pytest.raises(VerificationError, match="undo each other"):
        pipeline.simplify(graph_of(TEXT))


def test_dead_code_takes_parameters_and_keeps_inputs():
    text = "model (float[2] x, float[2] z) => (float[2] y) <float[2] w = {1, 2}> { a = Add (z, w) y = Neg (x) }"
    graph = check(dead_code, graph_of(text))
    assert [value.name for value in graph.inputs] == ["x", "z"]
    assert not graph.parameters


def test_dead_code_keeps_all_results_of_a_node_that_is_read():
    graph = graph_of("model (float[4] x) => (float[2] y) { y, z = Split <num_outputs = 2> (x) }")
    check(dead_code, graph, changes=False)
    assert len(graph.nodes[0].outputs) == 2


def test_the_same_model_gives_the_same_graph():
    texts = set()
    for _ in range(3):
        graph = graph_of(TEXT, canonical=False)
        pipeline.prepare(graph)
        texts.add(repr(graph.nodes) + repr([np.asarray(p.array).tolist() for p in graph.parameters.values()]))
    assert len(texts) == 1
