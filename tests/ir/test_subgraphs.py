"""If, Loop and Scan: captured values, types through bodies, and the way out to ONNX and back."""

import numpy as np
import pytest
from models import data

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.evaluate import evaluate
from partita.ir.read_onnx import read_onnx
from partita.ir.verify import verify
from partita.ir.write_onnx import write_onnx
from partita.passes.canonicalize import canonicalize
from partita.passes.dead_code import dead_code
from partita.passes.pipeline import prepare

CHOICE = """g (bool c, float[2] x, float[2] z) => (float[2] y) {
    a = Neg (x)
    y = If (c) <then_branch = t () => (float[2] p) { p = Add (a, z) },
                else_branch = e () => (float[2] q) { q = Exp (a) }>
}"""
LOOP = """g (int64 n, float[2] x, float[2] z) => (float[2] last, float[T, 2] all) {
    a = Neg (z)
    t = Constant <value = bool {1}> ()
    last, all = Loop (n, t, x) <
        body = b (int64 i, bool go, float[2] state) => (bool again, float[2] next, float[2] out) {
        again = Identity (go)
        next = Add (state, a)
        out = Mul (next, next)
    }>
}"""
SCAN = """g (float[2] s, float[5, 2] x, float[2] k) => (float[2] last, float[5, 2] all) {
    last, all = Scan <num_scan_inputs = 1, body = b (float[2] state, float[2] v) => (float[2] next, float[2] out) {
        t = Mul (v, k)
        next = Add (state, t)
        out = Identity (next)
    }> (s, x)
}"""
GROWING = """g (int64 n, float[1] x) => (float[N] last) {
    t = Constant <value = bool {1}> ()
    last = Loop (n, t, x) <body = b (int64 i, bool go, float[M] state) => (bool again, float[K] next) {
        again = Identity (go)
        next = Concat <axis = 0> (state, x)
    }>
}"""

V = np.asarray([1.0, 2.0], np.float32)
INPUTS = {
    CHOICE: {"c": np.bool_(False), "x": V, "z": V},
    LOOP: {"n": np.int64(3), "x": V, "z": V},
    SCAN: {"s": V, "x": np.arange(10, dtype=np.float32).reshape(5, 2), "k": V},
    GROWING: {"n": np.int64(3), "x": V[:1]},
}
TEXTS = pytest.mark.parametrize("text", list(INPUTS), ids=["If", "Loop", "Scan", "growing Loop"])


def canonical(text, **header):
    graph = read_onnx(data(text, **header))
    canonicalize(graph)
    verify(graph)
    return graph


def test_captured_values_become_operands():
    graph = canonical(CHOICE)
    node = graph.nodes[-1]
    assert [value.name for value in node.inputs] == ["c", "a", "z"]
    assert node.attributes["captures"] == 2
    for key in ("then_branch", "else_branch"):
        assert [value.name for value in node.attributes[key].inputs] == ["a", "z"]


@TEXTS
def test_the_same_numbers_after_everything(text):
    reference = evaluate(read_onnx(data(text)), INPUTS[text])
    graph = canonical(text)
    again = read_onnx(write_onnx(graph).SerializeToString())
    canonicalize(again)
    prepare(graph, verify=True)
    for name, value in reference.items():
        np.testing.assert_array_equal(evaluate(graph, INPUTS[text])[name], value)
        np.testing.assert_array_equal(evaluate(again, INPUTS[text])[name], value)


def test_types_of_a_loop():
    graph = canonical(LOOP)
    last, stacked = graph.outputs
    assert last.shape == (2,)
    assert stacked.shape[1] == 2
    assert not dims.is_static(stacked.shape[0])


def test_a_known_number_of_trips():
    text = LOOP.replace("int64 n, ", "").replace("a = Neg (z)", "a = Neg (z) n = Constant <value = int64 {4}> ()")
    for condition in ("t", '""'):
        assert canonical(text.replace("(n, t, x)", f"(n, {condition}, x)")).outputs[1].shape == (4, 2)
    stopping = text.replace(
        "again = Identity (go)", "k = Size (next) m = Constant <value = int64 {9}> () again = Less (i, m)"
    )
    assert not dims.is_static(canonical(stopping).outputs[1].shape[0])


def test_a_state_that_grows_gets_a_symbol():
    graph = canonical(GROWING)
    assert not dims.is_static(graph.outputs[0].shape[0])
    body = graph.nodes[-1].attributes["body"]
    assert not dims.is_static(body.inputs[2].shape[0])


def test_types_of_a_scan():
    last, stacked = canonical(SCAN).outputs
    assert (last.shape, stacked.shape) == ((2,), (5, 2))


def test_branches_of_different_shapes():
    text = CHOICE.replace("q = Exp (a)", "q = Concat <axis = 0> (a, a)").replace("float[2] q", "float[4] q")
    graph = canonical(text.replace("=> (float[2] y)", "=> (float[N] y)"))
    assert not dims.is_static(graph.outputs[0].shape[0])


def test_branches_of_different_types():
    text = CHOICE.replace("q = Exp (a)", "q = Cast <to = 7> (a)").replace("float[2] q", "int64[2] q")
    with pytest.raises(ShapeError, match="int64"):
        canonical(text)


def test_a_known_condition_chooses():
    """The other branch need not even have a meaning for these shapes."""
    text = """g (float[2, 3] x) => (float[N] y) {
        s = Shape (x) r = Size (s)
        three = Constant <value = int64 {3}> ()
        c = Equal (r, three)
        y = If (c) <
            then_branch = t () => (float[N] p) { a, b, d = Split <num_outputs = 3> (s) p = Cast <to = 1> (a) },
            else_branch = e () => (float[M] q) { k = Constant <value = int64[1] {-1}> () q = Reshape (x, k) }
        >
    }"""
    graph = canonical(text)
    assert "If" not in [node.op_type for node in graph.nodes]
    np.testing.assert_array_equal(evaluate(graph, {"x": np.ones((2, 3), np.float32)})["y"], np.ones(6))


def test_bodies_that_give_what_they_capture():
    text = CHOICE.replace("q = Exp (a)", "u = Exp (a) q = Identity (z)")
    graph = canonical(text)
    prepare(graph, verify=True)
    np.testing.assert_array_equal(evaluate(graph, INPUTS[CHOICE])["y"], V)


def test_what_no_body_reads_is_not_captured():
    text = CHOICE.replace("p = Add (a, z)", "u = Exp (z) p = Neg (a)")
    graph = canonical(text)
    assert dead_code(graph)
    verify(graph)
    node = graph.nodes[-1]
    assert [value.name for value in node.inputs] == ["c", "a"]
    assert node.attributes["captures"] == 1
    np.testing.assert_array_equal(evaluate(graph, INPUTS[CHOICE])["y"], np.exp(-V))


def test_bodies_are_upgraded():
    text = """g (bool c, float[1, 2] x) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) { p = Squeeze <axes = [0]> (x) },
                    else_branch = e () => (float[2] q) { r = Neg (x) q = Squeeze <axes = [0]> (r) }>
    }"""
    graph = canonical(text, opset=11)
    for body in graph.nodes[0].attributes.values():
        if body != 1:
            assert len(next(n for n in body.nodes if n.op_type == "Squeeze").inputs) == 2
    np.testing.assert_array_equal(evaluate(graph, {"c": np.bool_(True), "x": V[None]})["y"], V)


def test_nested_bodies_capture_through_each_other():
    text = """g (bool c, bool d, float[2] x, float[2] z) => (float[2] y) {
        y = If (c) <
            then_branch = t () => (float[2] p) {
                p = If (d) <then_branch = tt () => (float[2] pp) { pp = Add (x, z) },
                            else_branch = te () => (float[2] pq) { pq = Sub (x, z) }>
            },
            else_branch = e () => (float[2] q) { q = Neg (z) }>
    }"""
    graph = canonical(text)
    assert [value.name for value in graph.nodes[0].inputs] == ["c", "d", "x", "z"]
    result = evaluate(graph, {"c": np.bool_(True), "d": np.bool_(False), "x": 3 * V, "z": V})
    np.testing.assert_array_equal(result["y"], 2 * V)


def test_written_bodies_avoid_the_names_outside():
    graph = canonical(CHOICE)
    body = graph.nodes[-1].attributes["then_branch"]
    body.rename(body.nodes[0].output, "y")  # a name of the outer graph
    np.testing.assert_array_equal(
        evaluate(graph, {**INPUTS[CHOICE], "c": np.bool_(True)})["y"], np.zeros(2, np.float32)
    )
    read_onnx(write_onnx(graph).SerializeToString())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("float[2] state) =>", "float[2] state, float[2] more) =>", "takes 4 inputs, but gets 3"),
        ("next = Add (state, a)", "next = Cast <to = 7> (state)", "int64"),
        (", float[2] out)", ")", "outputs"),
    ],
)
def test_bodies_that_do_not_fit(old, new, message):
    with pytest.raises((ModelError, ShapeError), match=message):
        canonical(LOOP.replace(old, new))


@pytest.mark.parametrize("count", [0, 3])
def test_a_scan_of_impossibly_many_operands_is_refused(count):
    text = f"""g (float[2] s, float[3, 2] x) => (float[2] y, float[3, 2] z) {{
        y, z = Scan <num_scan_inputs = {count}, body = b (float[2] t, float[2] e) => (float[2] u, float[2] v) {{
            u = Add (t, e) v = Neg (u)
        }}> (s, x)
    }}"""
    with pytest.raises(ModelError, match=f"num_scan_inputs is {count}; it must be 1 to 2"):
        canonical(text)
