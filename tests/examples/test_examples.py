"""The examples, run as a reader would run them. None of them needs the network."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import partita
from partita.errors import CompilerError
from partita.runtime import find_compiler

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def run(*command: object, cwd: Path, path: tuple[Path, ...] = ()) -> str:
    """Standard output of a command that must succeed; `path` are further folders for Python."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, ROOT)))}
    result = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_quickstart(tmp_path):
    out = run(sys.executable, EXAMPLES / "quickstart.py", "squeezenet", "--repeat", 1, cwd=tmp_path)
    assert "squeezenet_cpu_0 on cpu" in out
    assert (tmp_path / "squeezenet.so").exists()


def test_weights(tmp_path):
    out = run(sys.executable, EXAMPLES / "weights.py", cwd=tmp_path)
    assert "second, bound on disk" in out
    assert "'w1' has shape (16, 64), expected (32, 64)" in out


def test_c_program(tmp_path):
    """Built as the comment in main.c says."""
    try:
        compiler = find_compiler()
    except CompilerError as error:
        pytest.skip(str(error))
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> '
        "{ y = Mul (x, w) }"
    )
    onnx.save(model, tmp_path / "model.onnx")
    run(sys.executable, "-m", "partita", "compile", "model.onnx", "-o", "model.so", cwd=tmp_path)
    with zipfile.ZipFile(tmp_path / "model.so") as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if name.startswith("include/")])
    shutil.copy(EXAMPLES / "c" / "main.c", tmp_path)
    run(*compiler, "-Iinclude", "main.c", "./model.so", "-o", "main", cwd=tmp_path)
    assert run("./main", 1, 2, 3, 0.5, cwd=tmp_path).split() == ["1", "4", "9", "2"]


@pytest.fixture
def plugin(tmp_path) -> tuple[Path, Path]:
    """The folders that make the plug-in importable and its entry point known, as installing it would."""
    folder = EXAMPLES / "backend_plugin"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    installed = tmp_path / "site" / f"partita_toy-{project['version']}.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"]["partita.backends"]
    lines = [f"{name} = {target}" for name, target in points.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[partita.backends]", *lines, ""]))
    return folder, installed.parent


PLUGIN_MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
m (float[2, 4] x, float[2, 4] v) => (float[2, 4] y, float[2, 4] z) <float[2, 4] w = {1, -2, 3, -4, 5, -6, 7, -8}> {
  a = Add (x, w)
  b = Relu (a)
  c = Mul (b, v)
  d = Add (c, c)
  y = Relu (d)
  z = Exp (c)
}
"""


def test_backend_plugin(tmp_path, plugin):
    onnx.save(onnx.parser.parse_model(PLUGIN_MODEL), tmp_path / "m.onnx")

    def command(*words: object) -> str:
        return run(sys.executable, "-m", "partita", *words, cwd=tmp_path, path=plugin)

    (toy,) = [item for item in json.loads(command("backends", "--json")) if item["name"] == "toy"]
    assert (toy["owner"], toy["available"]) == ("partita-toy", True)
    decisions = json.loads(command("explain", "m.onnx", "-t", "toy", "--json"))
    assert [decision["backend"] for decision in decisions].count("toy") == 3
    assert ["toy", "the library has no Exp"] in [why for decision in decisions for why in decision["refusals"]]
    command("verify", "m.onnx", "-t", "toy", "--against", "reference")

    # The artifact needs neither the plug-in nor a compiler.
    command("compile", "m.onnx", "-t", "toy")
    x, v = np.random.default_rng(0).standard_normal((2, 2, 4)).astype(np.float32)
    w = np.float32([1, -2, 3, -4, 5, -6, 7, -8]).reshape(2, 4)
    c = np.maximum(x + w, 0) * v
    outputs = partita.load_module(tmp_path / "m.so").run({"x": x, "v": v})
    np.testing.assert_array_equal(outputs["y"], np.maximum(c + c, 0))
    np.testing.assert_allclose(outputs["z"], np.exp(c), rtol=1e-6)
