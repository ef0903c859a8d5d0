"""Bad input at every stage ends in an error of partita.errors that says what is wrong, and leaves no file behind."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper
from small_models import BUILD, assert_computes, compiled, images, network, parsed

import partita
from partita.errors import ArtifactError, CompilerError, InputError, ModelError, PartitaError, UnsupportedOperatorError

X = {"x": images()}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return compiled(network()).export_library(tmp_path_factory.mktemp("bad") / "network.so")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the compiler works: everything it leaves behind would be here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


# ------------------------------------------------------------------ models


def test_every_unsupported_operator_is_named_in_one_error():
    text = """
    <ir_version: 10, opset_import: ["" : 21, "acme" : 1, "umbrella" : 7]>
    g (float[4] x) => (float[4] a, float[4] b, float[4] c, float[4] d) {
        a = acme.Frob (x)  b = Relu (x)  c = umbrella.Twist (b)  d = acme.Frob (b)
    }
    """
    model = parsed(text)
    for node, name in zip(model.graph.node, ("first", "plain", "second", "third"), strict=True):
        node.name = name
    with pytest.raises(UnsupportedOperatorError, match=r"3 node\(s\)") as error:
        compiled(model)
    for part in ("'first' (Frob, domain acme", "'second' (Twist, domain umbrella", "'third' (Frob"):
        assert part in str(error.value)
    assert "'plain'" not in str(error.value)


def test_bytes_that_are_no_model_are_refused():
    data = network().SerializeToString()
    random = np.random.default_rng(0)
    for size in random.integers(0, len(data), 40):
        with pytest.raises(PartitaError):
            compiled(data[:size])


def test_models_with_flipped_bytes_compile_or_are_refused():
    data = network().SerializeToString()
    random = np.random.default_rng(1)
    refused = 0
    for position in random.integers(0, 1200, 30):
        changed = bytearray(data)
        changed[position] ^= 1 << random.integers(8)
        try:
            compiled(bytes(changed))
        except PartitaError:
            refused += 1
    assert refused > 5


def test_a_graph_with_a_cycle_or_a_missing_value_is_refused():
    cyclic = network()
    cyclic.graph.node[0].input[0] = "y"
    missing = network()
    missing.graph.node[2].input[0] = "nowhere"
    for model, name in ((cyclic, "has a cycle"), (missing, "'nowhere'")):
        with pytest.raises(ModelError, match=name):
            compiled(model)


# ------------------------------------------------------------------ inputs


@pytest.mark.parametrize("loads", [False, True])
def test_inputs_that_do_not_fit_are_told_all_at_once(artifact, loads):
    runnable = partita.load_module(artifact) if loads else compiled(network())
    for given, parts in (
        ({}, ["input 'x' is missing", "(N, 3, 6, 6)"]),
        ({"z": images(), **X}, ["input 'z' is not one of the model's"]),
        ({"x": images().astype(np.float64)}, ["'x' is float64(2, 3, 6, 6), expected float32(N, 3, 6, 6)"]),
        ({"x": images()[0]}, ["'x' is float32(3, 6, 6), expected float32(N, 3, 6, 6)"]),
        ({"x": np.zeros((2, 4, 6, 7), np.float32)}, ["axis 1 has size 4, expected 3", "axis 3 has size 7, expected 6"]),
        ({"x": "text"}, ["expected float32"]),
        ({"x": None}, ["expected float32"]),
    ):
        with pytest.raises(InputError) as error:
            runnable.run(given)
        for part in parts:
            assert part in str(error.value)
    assert_computes(runnable, network(), X)


# ------------------------------------------------------------------ artifacts


def test_an_artifact_cut_off_anywhere_is_refused(artifact, tmp_path):
    data = artifact.read_bytes()
    lengths = {*range(0, 100, 9), *range(0, len(data), len(data) // 60), len(data) - 1, len(data) - 24}
    for size in sorted(lengths):
        (tmp_path / "cut.so").write_bytes(data[:size])
        with pytest.raises(ArtifactError, match=r"cut\.so"):
            partita.load_module(tmp_path / "cut.so")


def test_an_artifact_with_a_flipped_bit_is_refused_or_computes_the_same(artifact, tmp_path):
    data = artifact.read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for number, position in enumerate(random.integers(0, len(data), 120)):
        changed = bytearray(data)
        changed[position] ^= 1 << random.integers(8)
        path = tmp_path / f"{number}.so"
        path.write_bytes(changed)
        try:
            assert_computes(partita.load_module(path), network(), X)
        except ArtifactError:
            refused += 1
        path.unlink()
    assert refused > 100


@pytest.mark.parametrize(("machine", "name"), [(183, "aarch64"), (243, "riscv"), (3, "x86"), (9999, "another machine")])
def test_another_machines_artifact_is_refused(artifact, tmp_path, machine, name):
    data = artifact.read_bytes()
    path = tmp_path / "other.so"
    path.write_bytes(data[:18] + machine.to_bytes(2, "little") + data[20:])
    with pytest.raises(ArtifactError, match=f"compiled for {name}, and this machine is"):
        partita.load_module(path)


def test_an_artifact_for_a_better_processor_is_refused_before_it_is_mapped(folder, monkeypatch):
    build = replace(BUILD, mcpu="x86-64-v3")
    path = compiled(network(), build=build).export_library("m.so")
    monkeypatch.setattr("partita.runtime.artifact.features_here", lambda: {"sse4_2", "avx"})
    monkeypatch.setattr("partita.runtime.load.Library", lambda *_: pytest.fail("its code was loaded"))
    with pytest.raises(ArtifactError, match=r"uses avx2, .*which this machine lacks: compile it with another mcpu"):
        partita.load_module(path)


# ------------------------------------------------------------------ compilers and files


def script(folder, text: str) -> str:
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kill -SEGV $$", "died of signal 11"),
        ("echo no space on the moon >&2; exit 4", "no space on the moon"),
        ("exit 0", "wrote no"),
    ],
)
def test_a_compiler_that_fails_leaves_nothing(folder, text, message):
    build = replace(BUILD, cc=script(folder, text), cache=False)
    for name in ("m.so", "m.so"):
        with pytest.raises(CompilerError, match=message):
            compiled(network(), build=build).export_library(name)
    assert [path.name for path in folder.iterdir()] == ["cc"]


def test_a_compiler_that_is_not_there_leaves_nothing(folder, monkeypatch):
    monkeypatch.setenv("PARTITA_CC", "/nowhere/cc")
    with pytest.raises(CompilerError, match="'/nowhere/cc' was not found"):
        compiled(network()).export_library("m.so")
    monkeypatch.setenv("PARTITA_CC", "")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CompilerError, match="install gcc or clang"):
        compiled(network()).export_library("m.so")
    assert list(folder.iterdir()) == []


def test_a_tar_needs_no_compiler(folder, monkeypatch):
    monkeypatch.setenv("PARTITA_CC", "/nowhere/cc")
    assert compiled(network()).export_library("m.tar").exists()


@pytest.mark.parametrize("name", ["m.so", "m.tar"])
def test_an_interrupted_export_leaves_the_old_artifact(folder, monkeypatch, name):
    path = compiled(network(0)).export_library(folder / name)
    before = path.read_bytes()
    module = compiled(network(1))
    module.compile()

    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.export_library(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_told(folder):
    for name in ("no/m.so", "no/m.tar"):
        with pytest.raises(ArtifactError, match="no/m"):
            compiled(network()).export_library(name)


def test_an_unknown_target_is_told_with_those_there_are():
    with pytest.raises(partita.errors.BackendError, match=r"(?s)'quantum'.*cpu"):
        compiled(network(), ["quantum"])


def test_an_operator_set_from_the_future_is_refused():
    model = network()
    model.opset_import[0].CopyFrom(helper.make_opsetid("", 10_000))
    with pytest.raises(ModelError, match="10000"):
        compiled(model)


def test_a_path_that_is_no_file_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(ModelError, match=str(path)):
            compiled(path)
    onnx.save(network(), tmp_path / "network.onnx")
    assert compiled(tmp_path / "network.onnx").program.symbol == "network"
