"""Artifacts: what is in one, what damage does, and that writing is whole and repeatable."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import programs
import pytest
from safetensors.numpy import load_file

from partita.errors import ArtifactError, ExecutionError, ParameterError
from partita.runtime import InterpretedModule, load_module
from partita.runtime.artifact import MAGIC, PAGE
from partita.runtime.table import ALIGNMENT

X = np.arange(4, dtype=np.float32)


@pytest.fixture(scope="module")
def module():
    return programs.two_affines()


@pytest.fixture(scope="module")
def data(module, tmp_path_factory):
    return module.export_library(tmp_path_factory.mktemp("artifact") / "model.so").read_bytes()


@pytest.fixture
def artifact(data, tmp_path):
    path = tmp_path / "model.so"
    path.write_bytes(data)
    return path


def test_a_loaded_model_computes_the_same(module, artifact):
    loaded = load_module(artifact)
    np.testing.assert_array_equal(loaded.run({"x": X})["y"], module.run({"x": X})["y"])
    np.testing.assert_array_equal(loaded.get_function("model_first")(X)[0], module.get_function("model_first")(X)[0])


def test_a_loaded_model_has_the_same_tree(module, artifact):
    loaded = load_module(artifact)
    assert loaded.program == module.program
    assert loaded.type_key == module.type_key
    trees = [[(m.type_key, m.backend, m.functions) for m in tree.imported_modules] for tree in (loaded, module)]
    assert trees[0] == trees[1]
    for name, array in module.params.items():
        np.testing.assert_array_equal(loaded.params[name], array)
        assert not loaded.params[name].flags.writeable


def test_an_interpreted_region_comes_back(tmp_path):
    module = programs.interpreted()
    loaded = load_module(module.export_library(tmp_path / "m.so"))
    assert loaded.imported_modules == module.imported_modules
    assert isinstance(loaded.imported_modules[0], InterpretedModule)
    assert loaded.run({"x": X})["y"].tolist() == [0, 1, 4, 9]


def test_symbolic_sizes_come_back(tmp_path):
    loaded = load_module(programs.dynamic().export_library(tmp_path / "d.so"))
    assert loaded.run({"x": np.ones((3, 3), np.float32)})["y"].sum() == 18


def test_the_archive_is_an_ordinary_one(artifact):
    with zipfile.ZipFile(artifact) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("manifest.json"))["program"]["symbol"] == "model"
    assert names >= {"bind.onnx", "manifest.json", "parameters.safetensors", "include/partita.h", "include/model.h"}


def test_the_table_is_aligned_and_readable_by_the_library(module, artifact, tmp_path):
    loaded = load_module(artifact)
    assert loaded.artifact.table.ctypes.data % ALIGNMENT == 0
    assert all(entry.offset % ALIGNMENT == 0 for entry in loaded.artifact.entries)
    with zipfile.ZipFile(artifact) as archive:
        archive.extract("parameters.safetensors", tmp_path)
    read = load_file(tmp_path / "parameters.safetensors")
    for name, array in module.params.items():
        np.testing.assert_array_equal(read[name], array)
    assert all(name in module.params or name.startswith("partita.padding.") for name in read)


def test_a_table_beside_is_loaded_and_is_readable(module, tmp_path):
    path = module.export_library(tmp_path / "model.so", "beside")
    assert set(load_file(tmp_path / "model.safetensors")) >= set(module.params)
    np.testing.assert_array_equal(load_module(path).run({"x": X})["y"], module.run({"x": X})["y"])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"should lie beside it, in model.safetensors"):
        load_module(path)


def test_another_models_table_beside_is_refused(module, tmp_path):
    path = module.export_library(tmp_path / "model.so", "beside")
    other = programs.interpreted().export_library(tmp_path / "other.so", "beside").with_suffix(".safetensors")
    shutil.copy(other, tmp_path / "model.safetensors")
    for verify in (True, False):
        with pytest.raises(ArtifactError, match=r"model\.safetensors"):
            load_module(path, verify=verify)


@pytest.mark.parametrize("part", range(64))
def test_an_artifact_cut_off_anywhere_is_refused(data, tmp_path, part):
    path = tmp_path / "model.so"
    path.write_bytes(data[: len(data) * part // 64])
    with pytest.raises(ArtifactError, match=r"model\.so"):
        load_module(path)


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :]


@pytest.mark.parametrize("place", ["code", "table", "manifest", "bind.onnx"])
def test_a_flipped_byte_is_refused(data, tmp_path, place):
    members = {"table": "parameters.safetensors", "manifest": "manifest.json"}
    path = tmp_path / "model.so"
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        position = 4000 if place == "code" else archive.getinfo(members.get(place, place)).header_offset + 200
    path.write_bytes(flipped(data, position))
    with pytest.raises(ArtifactError, match="damaged"):
        load_module(path)


def test_a_flip_anywhere_is_refused_or_harmless(data, tmp_path):
    for position in np.random.default_rng(0).integers(0, len(data), 300):
        path = tmp_path / f"{position}.so"  # a file that is mapped must not be written to
        path.write_bytes(flipped(data, int(position)))
        try:
            loaded = load_module(path)
        except ArtifactError:
            continue
        np.testing.assert_array_equal(loaded.params["first.shift"], programs.table("first")["first.shift"])


def test_verification_of_the_weights_can_be_left_out(data, artifact):
    with zipfile.ZipFile(artifact) as archive:
        size = archive.getinfo("parameters.safetensors").file_size
    start = len(data) - int(data[-16:], 16)
    artifact.write_bytes(flipped(data, start + size - 3))
    with pytest.raises(ArtifactError, match="does not match its digest"):
        load_module(artifact)
    load_module(artifact, verify=False)


@pytest.mark.parametrize(
    ("offset", "value", "message"), [(18, 183, "aarch64"), (4, 1, "64-bit"), (5, 2, "little-endian")]
)
def test_another_machines_code_is_refused(data, artifact, offset, value, message):
    artifact.write_bytes(data[:offset] + bytes([value]) + data[offset + 1 :])
    with pytest.raises(ArtifactError, match=message):
        load_module(artifact)


def test_instructions_this_machine_lacks_are_named(module, tmp_path):
    made = programs.two_affines()
    made.compile()
    made._code.features = ("avx9000",)
    with pytest.raises(ArtifactError, match="uses avx9000, which this machine lacks"):
        load_module(made.export_library(tmp_path / "m.so"))


@pytest.mark.parametrize("content", [b"", b"\x7fELF", os.urandom(5000), b"PK\x03\x04" * 99, MAGIC * 99])
def test_what_is_no_artifact_is_refused(tmp_path, content):
    path = tmp_path / "model.so"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        load_module(path)


def test_a_plain_shared_library_is_refused(module, tmp_path):
    path = tmp_path / "model.so"
    path.write_bytes(module.compile())
    with pytest.raises(ArtifactError, match="does not end as a compiled model"):
        load_module(path)


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(ArtifactError):
            load_module(path)


def test_a_tar_is_refused_with_advice(module, tmp_path):
    with pytest.raises(ArtifactError, match="unpack it, run make"):
        load_module(module.export_library(tmp_path / "model.tar"))


def test_replacing_an_artifact_leaves_who_has_it_alone(module, artifact):
    old = load_module(artifact)
    before = old.run({"x": X})["y"]
    other = programs.two_affines(params=programs.table("first", "second", seed=5))
    other.export_library(artifact)
    np.testing.assert_array_equal(old.run({"x": X})["y"], before)
    np.testing.assert_array_equal(load_module(artifact).run({"x": X})["y"], other.run({"x": X})["y"])


def test_new_code_under_an_old_name_is_what_gets_loaded(artifact):
    load_module(artifact).run({"x": X})
    first = programs.two_affines().imported_modules[0]
    text = programs.affine_source("model_second").replace("+ state->shift[i]", "- state->shift[i]")
    second = programs.c_module("model_second", text, "second.scale2", "second.shift", backend="npu")
    changed = programs.two_affines(modules=[first, second])
    changed.export_library(artifact)
    np.testing.assert_array_equal(load_module(artifact).run({"x": X})["y"], changed.run({"x": X})["y"])


def test_two_models_live_in_one_process(artifact, tmp_path):
    other = programs.two_affines(params=programs.table("first", "second", seed=9))
    one, two = load_module(artifact), load_module(other.export_library(tmp_path / "two.so"))
    results = [loaded.run({"x": X})["y"] for loaded in (one, two, one)]
    np.testing.assert_array_equal(results[0], results[2])
    assert not np.array_equal(results[0], results[1])


def test_a_folder_without_permission_gets_nothing(module, tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    module.compile()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ArtifactError, match="Permission denied"):
        module.export_library(tmp_path / "model.so")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".so", ".tar"])
@pytest.mark.parametrize("limit", [1, 10, 40, 60])
def test_a_full_disk_leaves_the_old_artifact(module, tmp_path, suffix, limit):
    path = tmp_path / f"model{suffix}"
    path.write_text("old")
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import programs
from partita.errors import ArtifactError
module = programs.two_affines()
module.compile()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit} << 10, resource.RLIM_INFINITY))
try:
    module.export_library({str(path)!r})
except ArtifactError as error:
    print("refused", error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    if "refused" in result.stdout:
        assert path.read_text() == "old"
    else:
        assert path.stat().st_size > 40 << 10
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_while_the_table_is_written_leaves_nothing(module, tmp_path, monkeypatch):
    from partita.runtime import export

    def fail(*_args):
        raise ParameterError("no")

    monkeypatch.setattr(export, "write_table", fail)
    for placement in ("inside", "beside"):
        with pytest.raises(ParameterError):
            module.export_library(tmp_path / "model.so", placement)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_after_the_table_beside_leaves_both_old_files(module, tmp_path, monkeypatch):
    from partita.runtime import export

    def fail(*_args):
        raise OSError(28, "No space left on device")

    path = module.export_library(tmp_path / "model.so", "beside")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(export, "write_payload", fail)
    with pytest.raises(ArtifactError, match="No space left"):
        programs.two_affines(params=programs.table("first", "second", seed=1)).export_library(path, "beside")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_equal_input_gives_equal_bytes(data, tmp_path):
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import programs
module = programs.two_affines()
module.export_library("model.so")
module.export_library("model.tar")
"""
    written = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TMPDIR": str(folder), "LC_ALL": "C", "TZ": f"UTC+{seed}"}
        root = Path(__file__).parents[2]
        environment["PYTHONPATH"] = str(root)
        subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, check=True)
        written.append([(folder / name).read_bytes() for name in ("model.so", "model.tar")])
    assert written[0] == written[1]
    assert written[0][0] == data


def test_the_code_is_padded_to_pages(module, data):
    end = -(-len(module.compile()) // PAGE) * PAGE
    assert data[end : end + 4] == b"PK\x03\x04"
    assert str(Path.cwd()).encode() not in data and b"/tmp" not in data


def test_a_manifest_that_lacks_a_constant_is_refused(module, tmp_path):
    made = programs.two_affines()
    regions = (replace(made.program.regions[0], constants=("gone",)), made.program.regions[1])
    made.program = replace(made.program, regions=regions)
    made._code.data = module.compile()
    with pytest.raises(ParameterError, match=r"(?s)model\.so.*wants constant 'gone'"):
        load_module(made.export_library(tmp_path / "model.so"))


def test_what_was_loaded_needs_its_file_no_more(module, artifact):
    loaded = load_module(artifact)
    artifact.unlink()
    np.testing.assert_array_equal(loaded.run({"x": X})["y"], module.run({"x": X})["y"])


def test_a_closed_artifact_is_refused(artifact):
    with load_module(artifact) as loaded:
        loaded.run({"x": X})
    with pytest.raises(ExecutionError, match="closed"):
        loaded.run({"x": X})
