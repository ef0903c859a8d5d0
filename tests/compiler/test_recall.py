"""What is compiled once is recalled: by everything that it depends on, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import partita
from partita import compiler
from partita.runtime.cache import Cache

BUILD = partita.BuildOptions(optimization="-O0")
TEXT = """<ir_version: 10, opset_import: ["" : 22]>
net (float[2,100] x) => (float[N,M] y) {
    c = MatMul (x, w)
    y = Reshape (c, shape)
}"""
WEIGHT = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
X = {"x": np.random.default_rng(1).normal(size=(2, 100)).astype(np.float32)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("PARTITA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PARTITA_NO_CACHE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def compiled(monkeypatch):
    """The models that the passes saw, by name."""
    names = []
    real = compiler.pipeline.prepare

    def prepare(graph, **options):
        names.append(graph.name)
        return real(graph, **options)

    monkeypatch.setattr(compiler.pipeline, "prepare", prepare)
    return names


def saved(path: Path, weight=WEIGHT, shape=(3, 4), *, text=TEXT, external=False) -> Path:
    model = onnx.parser.parse_model(text)
    arrays = {"w": weight, "shape": np.asarray(shape, np.int64)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    onnx.save(model, path, save_as_external_data=external, location=f"{path.name}.data", size_threshold=0)
    return path


def compile_(path: Path, **options) -> partita.runtime.MetadataModule:
    return partita.compile(path, **{"build": BUILD, **options})


def test_a_model_that_did_not_change_is_recalled_whole(tmp_path, compiled):
    path = saved(tmp_path / "net.onnx")
    first, second = compile_(path), compile_(path)
    assert compiled == ["net"]
    assert second.program == first.program
    assert second.sources() == first.sources()
    assert second.bind_program == first.bind_program
    files = [module.export_library(tmp_path / f"{n}.so").read_bytes() for n, module in enumerate([first, second])]
    assert files[0] == files[1]


def test_weights_are_the_model_s_own(tmp_path, compiled):
    path = saved(tmp_path / "net.onnx")
    compile_(path)
    module = compile_(saved(path, -WEIGHT))
    assert compiled == ["net"]
    np.testing.assert_allclose(module.run(X)["y"], (X["x"] @ -WEIGHT).reshape(3, 4), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("external", [False, True])
def test_values_that_the_compiler_looked_at_are_compared(tmp_path, compiled, external):
    path = saved(tmp_path / "net.onnx", external=external)
    compile_(path)
    for shape in [(4, 3), (2, 6)]:
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)
        assert compile_(saved(path, shape=shape, external=external)).run(X)["y"].shape == shape
    assert len(compiled) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"name": "other"},
        {"build": partita.BuildOptions(optimization="-O0", mcpu="x86-64")},
        {"build": partita.BuildOptions(optimization="-O0", cache=False)},
        {"shapes": {"x": ("batch", 100)}},
        {"targets": ["reference"]},
        {"fast_math": ["strassen"]},
    ],
    ids=["name", "mcpu", "no cache", "shapes", "targets", "fast math"],
)
def test_other_options_are_compiled_anew(tmp_path, compiled, options):
    text = TEXT.replace("[2,100]", "[K,100]").replace("[N,M]", "[N,6]").replace("y = Reshape (c, shape)", "y = Abs (c)")
    path = saved(tmp_path / "net.onnx", text=text)
    compile_(path)
    compile_(path, **options)
    assert compiled == ["net", "net"]


def test_constants_in_other_files_are_not_recalled(tmp_path, compiled):
    """A Constant is part of the code: its digest is recorded nowhere."""
    text = TEXT.replace(
        "c = MatMul (x, w)", "k = Constant <value = float[1] {1.0}> ()\n    m = MatMul (x, w)\n    c = Mul (m, k)"
    )
    model = onnx.load(saved(tmp_path / "net.onnx", text=text))
    constant = model.graph.node[0].attribute[0].t
    constant.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32)))
    onnx.external_data_helper.set_external_data(constant, "k.bin", offset=0, length=4)
    constant.ClearField("raw_data")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    for factor in (2.0, 3.0):
        (tmp_path / "k.bin").write_bytes(np.float32(factor).tobytes())
        found = compile_(tmp_path / "net.onnx").run(X)["y"]
        np.testing.assert_allclose(found, factor * (X["x"] @ WEIGHT).reshape(3, 4), rtol=1e-5, atol=1e-5)
    assert compiled == ["net", "net"]


def test_a_damaged_entry_is_made_again(tmp_path, compiled, folder):
    path = saved(tmp_path / "net.onnx")
    compile_(path)
    for entry in folder.glob("??/*"):
        entry.write_bytes(entry.read_bytes()[:-1])
    compile_(path)
    compile_(path)
    assert compiled == ["net", "net"]


def test_what_is_too_large_is_not_kept(tmp_path, compiled, monkeypatch):
    monkeypatch.setattr(partita.recall, "LARGEST", 100)
    monkeypatch.setattr(Cache, "put", lambda *_: pytest.fail("it was kept"))
    compile_(saved(tmp_path / "net.onnx"))
    assert compiled == ["net"]
