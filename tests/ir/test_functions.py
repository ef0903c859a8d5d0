"""Model-local functions: written out where they are called."""

import numpy as np
import onnx
import pytest

from partita.errors import ModelError
from partita.ir.evaluate import evaluate
from partita.ir.read_onnx import read_onnx
from partita.ir.verify import verify
from partita.passes.pipeline import prepare

X = np.asarray([[1.0, -2.0, 3.0]], np.float32)


def read(text):
    graph = read_onnx(onnx.parser.parse_model(text).SerializeToString())
    prepare(graph, verify=True)
    return graph


SCALED = """<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
g (float[1, 3] x) => (float[1, 3] y) { a = f.leaky <slope = 0.5> (x) y = f.leaky (a) }
<domain: "f", opset_import: ["" : 21]>
leaky <slope: float = 0.25> (v) => (r) { t = LeakyRelu <alpha: float = @slope> (v) r = Neg (t) }"""


def test_attributes_and_defaults():
    graph = read(SCALED)
    assert [node.op_type for node in graph.nodes] == ["LeakyRelu", "Neg", "LeakyRelu", "Neg"]
    assert graph.nodes[0].attributes["alpha"] == 0.5
    assert graph.nodes[2].attributes["alpha"] == 0.25
    np.testing.assert_array_equal(evaluate(graph, {"x": X})["y"], [[0.25, -1, 0.75]])


def test_nested_functions_and_names():
    graph = read("""<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
        g (float[1, 3] x) => (float[1, 3] y, float[1, 3] t) { t = f.outer (x) y = f.outer (t) }
        <domain: "f", opset_import: ["" : 21, "f" : 1]> outer (v) => (r) { t = f.inner (v) r = f.inner (t) }
        <domain: "f", opset_import: ["" : 21]> inner (v) => (r) { t = Neg (v) r = Exp (t) }""")
    assert [value.name for value in graph.outputs] == ["y", "t"]
    assert len({value.name for value in graph.values()}) == len(list(graph.values())) == 9


def test_another_opset_than_the_model():
    graph = read("""<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
        g (float[1, 3] x) => (float[3] y) { y = f.flat (x) }
        <domain: "f", opset_import: ["" : 11]> flat (v) => (r) { r = Squeeze <axes = [0]> (v) }""")
    np.testing.assert_array_equal(evaluate(graph, {"x": X})["y"], X[0])


def test_absent_operands_and_outputs():
    graph = read("""<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
        g (float[1, 3] x, float h) => (float[1, 3] y) { y = f.clip (x, "", h) }
        <domain: "f", opset_import: ["" : 21]>
        clip (v, low, high) => (r, other) { r = Clip (v, low, high) other = Neg (v) }""")
    assert [node.op_type for node in graph.nodes] == ["Clip"]
    np.testing.assert_array_equal(evaluate(graph, {"x": X, "h": np.float32(2)})["y"], [[1, -2, 2]])


def test_an_output_that_is_an_input_or_a_constant():
    graph = read("""<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
        g (float[1, 3] x) => (float[1, 3] y, float[2] k) { y, k = f.both (x) }
        <domain: "f", opset_import: ["" : 21]>
        both (v) => (v, c) { c = Constant <value = float[2] {1, 2}> () }""")
    verify(graph)
    result = evaluate(graph, {"x": X})
    np.testing.assert_array_equal(next(iter(result.values())), X)
    np.testing.assert_array_equal(list(result.values())[1], [1, 2])


def test_subgraphs_in_functions():
    graph = read("""<ir_version: 10, opset_import: ["" : 21, "f" : 1]>
        g (float[1, 3] x, bool c) => (float[1, 3] y) { y = f.choose <slope = 0.5> (c, x) }
        <domain: "f", opset_import: ["" : 21]>
        choose <slope> (c, v) => (r) {
            r = If (c) <then_branch = t () => (p) { p = LeakyRelu <alpha: float = @slope> (v) },
                        else_branch = e () => (q) { q = Neg (v) }>
        }""")
    np.testing.assert_array_equal(evaluate(graph, {"x": X, "c": np.bool_(True)})["y"], [[1, -1, 3]])


def test_functions_take_the_place_of_operators():
    graph = read("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[1, 3] x) => (float[1, 3] y) { y = Relu (x) }
        <domain: "", opset_import: ["" : 21]> Relu (v) => (r) { r = Neg (v) }""")
    np.testing.assert_array_equal(evaluate(graph, {"x": X})["y"], -X)


def test_too_many_operands():
    with pytest.raises(ModelError, match="takes 1 inputs, the call 2"):
        read(SCALED.replace("y = f.leaky (a)", "y = f.leaky (a, x)"))
