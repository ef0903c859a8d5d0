"""Other weights in what is compiled already: the numbers of a fresh compilation, with no compiler."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import BUILD, assert_computes, compiled, images, network, parsed, weights

import partita
from partita.errors import ParameterError
from partita.runtime import rebind_artifact

X = {"x": images()}
RESHAPED = """
<ir_version: 10, opset_import: ["" : 21]>
reshaped (float[4] x) => (float[N] y) { s = Add (x, w)  y = Reshape (s, shape) }
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return compiled(network(0)).export_library(tmp_path_factory.mktemp("rebinding") / "network.so")


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setenv("PARTITA_CC", "/nowhere/cc")


def test_a_loaded_module_computes_with_other_weights(artifact, no_compiler):
    loaded = partita.load_module(artifact)
    bound = loaded.bind(weights(5))
    assert_computes(bound, network(5), X)
    assert_computes(loaded, network(0), X)


def test_rebinding_gives_the_bytes_of_a_fresh_compilation(artifact, tmp_path):
    fresh = compiled(network(5)).export_library(tmp_path / "fresh.so")
    rebound = rebind_artifact(artifact, weights(5), tmp_path / "rebound.so")
    assert rebound.read_bytes() == fresh.read_bytes()
    written = partita.load_module(artifact).bind(weights(5)).export_library(tmp_path / "written.so")
    assert written.read_bytes() == fresh.read_bytes()


def test_binding_there_and_back_changes_no_byte(artifact, tmp_path):
    there = rebind_artifact(artifact, weights(5), tmp_path / "there.so")
    assert there.read_bytes() != artifact.read_bytes()
    assert rebind_artifact(there, weights(0), tmp_path / "back.so").read_bytes() == artifact.read_bytes()


def test_a_module_that_was_never_exported_is_bound_too():
    assert_computes(compiled(network(0)).bind(weights(5)), network(5), X)


def test_a_value_that_the_compiler_looked_at_must_stay(artifact):
    changed = weights(5) | {"shape": np.array([1, -1], np.int64)}
    for bind in (partita.load_module(artifact).bind, lambda given: rebind_artifact(artifact, given)):
        with pytest.raises(ParameterError, match="looked at the values of 'shape', and they differ"):
            bind(changed)


def test_what_does_not_fit_is_told_all_at_once(artifact):
    before = artifact.read_bytes()
    wrong = weights(5)
    del wrong["conv_b"]
    wrong["gemm_w"] = wrong["gemm_w"][:10]
    wrong["mean"] = wrong["mean"].astype(np.float64)
    for bind in (partita.load_module(artifact).bind, lambda given: rebind_artifact(artifact, given)):
        with pytest.raises(ParameterError) as error:
            bind(wrong)
        for part in ("'conv_b' is missing", "'gemm_w' has shape (10, 5), expected (144, 5)", "'mean' is float64"):
            assert part in str(error.value)
    assert artifact.read_bytes() == before
    assert [file.name for file in artifact.parent.iterdir()] == [artifact.name]


def test_weights_of_another_byte_order_and_layout_are_the_same_weights(artifact):
    turned = {
        name: np.asfortranarray(array.astype(array.dtype.newbyteorder(">"))) for name, array in weights(5).items()
    }
    assert_computes(partita.load_module(artifact).bind(turned), network(5), X)


def test_a_loaded_model_goes_on_while_its_file_is_bound_again(artifact, tmp_path):
    path = rebind_artifact(artifact, weights(0), tmp_path / "live.so")
    loaded = partita.load_module(path)
    rebind_artifact(path, weights(5))
    assert_computes(loaded, network(0), X)
    assert_computes(partita.load_module(path), network(5), X)


def test_a_baked_parameter_need_not_be_given_again():
    shape = np.array([2, 2], np.int64)
    module = partita.compile(parsed(RESHAPED, {"w": np.ones(4, np.float32), "shape": shape}), build=BUILD)
    bound = module.bind({"w": np.full(4, 2, np.float32)})
    assert bound.run({"x": np.zeros(4, np.float32)})["y"].tolist() == [[2, 2], [2, 2]]
