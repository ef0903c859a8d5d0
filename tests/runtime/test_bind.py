"""Bind time: the table computed again from other weights."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import onnx
import programs
import pytest
from onnx import helper

from partita.errors import ArtifactError, ParameterError
from partita.runtime import (
    BuildOptions,
    evaluate_bind_program,
    load_module,
    rebind_artifact,
    value_digest,
)

X = np.arange(4, dtype=np.float32)
NAMES = ("first", "second")


def test_the_table_is_computed():
    computed = evaluate_bind_program(programs.bind_program(*NAMES), programs.parameters(*NAMES))
    expected = programs.table(*NAMES)
    assert list(computed) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(computed[name], expected[name])


def test_what_passes_through_is_not_copied():
    given = programs.parameters(*NAMES)
    computed = evaluate_bind_program(programs.bind_program(*NAMES), given)
    assert computed["first.shift"] is given["first.shift"]


def test_parameters_that_do_not_fit_are_all_told():
    given = programs.parameters(*NAMES)
    del given["first.scale"]
    given["second.scale"] = np.zeros(5, np.float32)
    given["second.shift"] = np.zeros(4, np.float64)
    with pytest.raises(ParameterError) as error:
        evaluate_bind_program(programs.bind_program(*NAMES), given)
    for part in ("'first.scale' is missing", r"'second.scale' has shape (5,)", "'second.shift' is float64"):
        assert part in str(error.value)


def test_what_lies_between_is_dropped():
    count, names = 1 << 18, [f"p{index}" for index in range(8)]
    program = programs.bind_program(*names, count=count)
    given = programs.parameters(*names, count=count)
    tracemalloc.start()
    computed = evaluate_bind_program(program, given)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = sum(computed[f"{name}.scale2"].nbytes for name in names)
    assert peak < 1.5 * size


def test_nodes_with_subgraphs_stay_with_what_they_read():
    text = """
    <ir_version: 10, opset_import: ["" : 21]>
    bind (float[2] a, bool c) => (float[2] t, float[2] a) {
        b = Add(a, a)
        t = If (c) <
            then_branch = yes () => (float[2] y) { y = Mul(b, b) },
            else_branch = no () => (float[2] n) { n = Neg(b) }
        >
    }
    """
    given = {"a": np.array([1, 2], np.float32), "c": np.array(True)}
    computed = evaluate_bind_program(onnx.parser.parse_model(text).SerializeToString(), given)
    assert computed["t"].tolist() == [4, 16] and computed["a"] is given["a"]


def test_a_module_is_bound_again_without_a_compiler(monkeypatch):
    module = programs.two_affines()
    module.run({"x": X})
    monkeypatch.setenv("PARTITA_CC", "/nowhere/cc")
    bound = module.bind(programs.parameters(*NAMES, seed=3))
    expected = programs.two_affines(params=programs.table(*NAMES, seed=3))
    monkeypatch.delenv("PARTITA_CC")
    np.testing.assert_array_equal(bound.run({"x": X})["y"], expected.run({"x": X})["y"])
    assert not np.array_equal(module.run({"x": X})["y"], bound.run({"x": X})["y"])


@pytest.mark.parametrize("placement", ["inside", "beside"])
def test_an_artifact_is_bound_again_in_place(tmp_path, placement, monkeypatch):
    path = programs.two_affines().export_library(tmp_path / "model.so", placement)
    monkeypatch.setenv("PARTITA_CC", "/nowhere/cc")
    rebind_artifact(path, programs.parameters(*NAMES, seed=3))
    monkeypatch.delenv("PARTITA_CC")
    expected = programs.two_affines(params=programs.table(*NAMES, seed=3))
    np.testing.assert_array_equal(load_module(path).run({"x": X})["y"], expected.run({"x": X})["y"])
    fresh = expected.export_library(tmp_path / "fresh.so", placement)
    assert path.read_bytes() == fresh.read_bytes()


def test_a_loaded_module_is_bound_again_and_written(tmp_path):
    loaded = load_module(programs.two_affines().export_library(tmp_path / "model.so"))
    bound = loaded.bind(programs.parameters(*NAMES, seed=3))
    before = loaded.run({"x": X})["y"]
    after = bound.run({"x": X})["y"]
    assert not np.array_equal(before, after)
    written = bound.export_library(tmp_path / "bound.so")
    np.testing.assert_array_equal(load_module(written).run({"x": X})["y"], after)
    np.testing.assert_array_equal(loaded.run({"x": X})["y"], before)


def test_a_changed_baked_value_is_refused_by_name(tmp_path):
    module = programs.two_affines()
    baked = (("axes", value_digest(np.array([1], np.int64))), ("scale", value_digest(np.float32(2))))
    module = programs.two_affines(program=replace(module.program, baked=baked))
    path = module.export_library(tmp_path / "model.so")
    given = programs.parameters(*NAMES)
    rebind_artifact(path, {**given, "axes": np.array([1], np.int64)})
    for bind in (module.bind, lambda parameters: rebind_artifact(path, parameters)):
        with pytest.raises(ParameterError, match="values of 'axes', 'scale', and they differ"):
            bind({**given, "axes": np.array([2], np.int64), "scale": np.float32(3)})


def test_a_bind_program_that_makes_another_shape_is_refused():
    wide = programs.bind_program(*NAMES, count=5)
    module = programs.two_affines(bind_program=wide)
    with pytest.raises(ParameterError, match=r"'first.scale2' comes out as float32\[5\], expected float32\[4\]"):
        module.bind(programs.parameters(*NAMES, count=5))


def test_without_a_bind_program_weights_cannot_be_replaced(tmp_path):
    module = programs.two_affines(bind_program=b"")
    with pytest.raises(ParameterError, match="no bind program"):
        module.bind({})
    with pytest.raises(ArtifactError, match="no bind program"):
        rebind_artifact(module.export_library(tmp_path / "model.so"), {})


def test_a_digest_tells_type_shape_and_bytes_apart():
    zeros = [np.zeros(4, np.float32), np.zeros(4, np.int32), np.zeros((2, 2), np.float32), np.ones(4, np.float32)]
    assert len({value_digest(array) for array in zeros}) == 4
    assert value_digest(zeros[3]) == value_digest(zeros[3].astype(">f4"))


def test_bound_modules_share_the_code():
    module = programs.two_affines(build=BuildOptions(optimization="-O0"))
    code = module.compile()
    assert module.bind(programs.parameters(*NAMES)).compile() is code


def test_a_node_that_fails_is_told_with_what_it_computes():
    described = [helper.make_tensor_value_info(name, 1, [3]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "none"], ["b"])], "bind", described[:1], described[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    with pytest.raises(ParameterError, match="computing 'b' from the parameters failed"):
        evaluate_bind_program(model.SerializeToString(), {"a": np.zeros(3, np.float32)})
