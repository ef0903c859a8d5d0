"""Regions that ONNX's evaluator interprets: what it takes, what crosses the border, what is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from harness import array, check, compare, compile_for, decisions, model, node, refusal
from onnx import TensorProto, helper, numpy_helper

import partita
from partita.runtime import InterpretedModule, MetadataModule


def interpreted(module: MetadataModule) -> InterpretedModule:
    (found,) = [item for item in module.imported_modules if isinstance(item, InterpretedModule)]
    return found


def test_operators_that_no_one_else_has() -> None:
    check("reference", [node("Det", ["x"], ["d"]), node("Erf", ["d"], ["y"])], {"x": array(2, 3, 3)})
    check("reference", [node("Celu", ["x"], ["y"], alpha=2.0)], {"x": array(5)})


def test_operators_of_machine_learning() -> None:
    nodes = [node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml", threshold=0.2)]
    check("reference", nodes, {"x": array(2, 3)})


def test_weights_are_not_in_the_graph() -> None:
    weights = {"w": array(64, 64), "b": array(64)}
    nodes = [node("Gemm", ["x", "w", "b"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
    module = check("reference", nodes, {"x": array(3, 64)}, weights, tolerance=1e-4)
    region = interpreted(module)
    assert region.inputs == ("x",)
    assert region.outputs == ("y",)
    assert set(region.constants) == {"w", "b"}
    assert len(region.model) < 2000
    proto = onnx.load_model_from_string(region.model)
    assert not proto.graph.initializer


def test_other_weights() -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": array(2, 3)}, {"w": array(3, 5)})
    module = compile_for("reference", proto)
    other = array(3, 5, seed=9)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(other, "w"))
    compare(module.bind({"w": other}), proto, {"x": array(2, 3)})


@pytest.mark.parametrize("rows", [1, 7])
def test_symbolic_sizes(rows: int) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Softmax", ["h"], ["y"])]
    proto = model(nodes, {"x": ["rows", 3]}, {"w": array(3, 5)})
    module = compile_for("reference", proto)
    assert {backend for _, backend, _ in decisions(module)} == {"reference"}
    compare(module, proto, {"x": array(rows, 3)})


def test_sizes_that_data_decides() -> None:
    """Two results of their own sizes each, one of them read by a node outside."""
    nodes = [node("NonZero", ["x"], ["n"]), node("NonZero", ["z"], ["m"])]
    proto = model(nodes, {"x": array(3, 4), "z": array(5)}, {}, ["n", "m"])
    module = compile_for("reference", proto)
    for seed in range(3):
        x, z = array(3, 4, seed=seed), array(5, seed=seed)
        compare(module, proto, {"x": np.maximum(x, 0), "z": np.maximum(z, 0)})


def test_control_flow_that_reads_outer_values() -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [node(op_type, ["x", "w"], [name])], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3])]
        )
        for name, op_type in (("then", "Add"), ("else", "Mul"))
    }
    proto = model([node("If", ["flag"], ["y"], **branches)], {"flag": np.array(True), "x": array(3)}, {"w": array(3)})
    module = compile_for("reference", proto)
    for flag in (True, False):
        compare(module, proto, {"flag": np.array(flag), "x": array(3)})


def test_a_body_whose_sizes_depend_on_data_is_the_hosts() -> None:
    """The evaluator knows no operators of Partita's own."""
    text = """<ir_version: 10, opset_import: ["" : 22]>
        g (int64 n, float[6] x, int64[1] end) => (float[T, M] y) {
            go = Constant <value = bool {1}> ()
            y = Loop (n, go) <body = b (int64 i, bool on) => (bool again, float[K] part) {
                again = Identity (on)
                zero = Constant <value_ints = [0]> ()
                part = Slice (x, zero, end)
            }>
        }"""
    module = compile_for("reference", onnx.parser.parse_model(text))
    ((_, backend, refusals),) = decisions(module)
    assert backend == "cpu"
    assert "in its body: ONNX's reference evaluator has no operators of the domain 'partita'" in refusals[0][1]
    found = module.run({"n": np.int64(2), "x": array(6), "end": np.array([3])})["y"]
    np.testing.assert_array_equal(found, np.stack([array(6)[:3]] * 2))


def test_sequences_are_the_hosts() -> None:
    nodes = [
        node("Neg", ["x"], ["n"]),
        node("SequenceConstruct", ["n", "z"], ["s"]),
        node("Constant", [], ["i"], value_int=0),
        node("SequenceAt", ["s", "i"], ["e"]),
        node("Exp", ["e"], ["y"]),
    ]
    inputs = {"x": array(3), "z": array(3, seed=1)}
    proto = model(nodes, inputs, {})
    module = compile_for("reference", proto)
    assert [backend for _, backend, _ in decisions(module)] == ["reference", "cpu", "cpu", "reference"]
    compare(module, proto, inputs)


def test_several_outputs_and_types() -> None:
    nodes = [
        node("TopK", ["x", "k"], ["values", "indices"]),
        node("Cast", ["values"], ["half"], to=TensorProto.FLOAT16),
        node("Greater", ["x", "x"], ["never"]),
    ]
    outputs = ["indices", "half", "never", "values"]
    check("reference", nodes, {"x": array(3, 7)}, {"k": np.array([2])}, outputs)


def test_host_and_interpreter_share_a_model() -> None:
    """The host runs what the evaluator is wrong about."""
    nodes = [node("Erf", ["x"], ["a"]), node("GlobalMaxPool", ["a"], ["b"]), node("Erf", ["b"], ["y"])]
    x = array(1, 3, 5)
    proto = model(nodes, {"x": x}, {})
    module = compile_for("reference", proto)
    assert [backend for _, backend, _ in decisions(module)] == ["reference", "cpu", "reference"]
    pooled = [node("Erf", ["x"], ["a"]), node("ReduceMax", ["a", "axes"], ["b"]), node("Erf", ["b"], ["y"])]
    compare(module, model(pooled, {"x": x}, {"axes": np.array([2])}), {"x": x})


def test_export_and_load(tmp_path: Path) -> None:
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": array(2, 3)}, {"w": array(3, 5)})
    path = compile_for("reference", proto).export_library(tmp_path / "model.so")
    found = partita.load_module(path).run({"x": array(2, 3)})["y"]
    np.testing.assert_allclose(found, array(2, 3) @ array(3, 5), rtol=1e-5)


def test_refusals() -> None:
    image = array(1, 7, 3, 3)
    assert "mistakes the batch" in refusal("reference", model([node("LRN", ["x"], ["y"], size=3)], {"x": image}, {}))
