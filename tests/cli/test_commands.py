"""What each subcommand does when all goes well, and what a script reads of it."""

import json
import subprocess
import sys
import tarfile

import numpy as np
import onnx
import pytest
from cli_model import weights

import partita

COMMANDS = ["compile", "run", "verify", "inspect", "explain", "profile", "backends", "bind"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command, partita_command):
    ended = partita_command(command, "--help")
    assert ended.code == 0
    assert f"  partita {command}" in ended.out.partition("examples:")[2]


def test_overview_lists_commands_and_exit_codes(partita_command):
    ended = partita_command("--help")
    assert all(f"\n    {command}" in ended.out for command in COMMANDS)
    assert "exit codes:" in ended.out


def test_module_and_version():
    ended = subprocess.run([sys.executable, "-m", "partita", "--version"], capture_output=True, text=True, check=True)
    assert ended.stdout == f"partita {partita.__version__}\n"


# ------------------------------------------------------------------ compile


def test_compile_writes_an_artifact(partita_command, model_file, tmp_path):
    path = tmp_path / "net.so"
    ended = partita_command("compile", model_file, "-o", path, "--name", "net", "-s", "x=2,4")
    assert (ended.code, ended.err) == (0, "")
    assert "net_cpu_0  cpu" in ended.out
    assert partita.load_module(path).run({"x": np.ones((2, 4), np.float32)})["y"].shape == (2, 3)


def test_compile_takes_its_name_from_the_model(partita_command, model_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = json.loads(partita_command("compile", model_file, "--parameters", "beside", "--json").out)
    assert facts["path"] == "small.so"
    assert facts["bytes"] == (tmp_path / "small.so").stat().st_size
    assert (tmp_path / "small.safetensors").exists()
    assert [region["backend"] for region in facts["regions"]] == ["cpu"]


def test_source_needs_no_compiler(partita_command, model_file, tmp_path):
    path = tmp_path / "small.tar"
    assert partita_command("compile", model_file, "-o", path, "--cc", "/no/compiler").code == 0
    with tarfile.open(path) as archive:
        assert "small/Makefile" in archive.getnames()


# ------------------------------------------------------------------ run


def test_run_on_files(partita_command, artifact, tmp_path):
    x = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "in.npz", x=x)
    expected = partita.load_module(artifact).run({"x": x})
    for word in (tmp_path / "x.npy", f"x={tmp_path / 'x.npy'}", tmp_path / "in.npz"):
        assert partita_command("run", artifact, "-i", word, "-o", tmp_path / "out.npz").code == 0
        outputs = np.load(tmp_path / "out.npz")
        for name, array in expected.items():
            np.testing.assert_array_equal(outputs[name], array)


def test_random_inputs_depend_on_the_seed_alone(partita_command, artifact):
    def inputs(seed: int) -> dict[str, object]:
        ended = partita_command("run", artifact, "-s", "x=7,?", "--seed", seed, "--json", "--repeat", 3)
        document = json.loads(ended.out)
        assert document["outputs"]["y"]["shape"] == [7, 3]
        assert document["seconds"]["repeat"] == 3
        return document["inputs"]

    assert inputs(1) == inputs(1) != inputs(2)


def test_run_compiles_a_model_first(partita_command, model_file):
    ended = partita_command("run", model_file, "--threads", 1, "--repeat", 2)
    assert ended.code == 0
    assert "float32[1, 3]" in ended.out
    assert "median of 2" in ended.out


# ------------------------------------------------------------------ verify


@pytest.mark.parametrize("peer", ["reference", "onnxruntime"])
def test_verify(peer, partita_command, model_file, artifact):
    if peer == "onnxruntime":
        pytest.importorskip(peer)
    ended = partita_command("verify", model_file, artifact, "--against", peer, "-s", "x=3,4")
    assert ended.code == 0
    assert ended.out.endswith(f"verified against {peer}\n")


def test_verify_compiles_what_is_not_given(partita_command, model_file):
    document = json.loads(partita_command("verify", model_file, "--against", "reference", "--json").out)
    assert document["passed"]
    assert [output["name"] for output in document["outputs"]] == ["y", "z"]


def test_other_weights_are_found_out(partita_command, model_file, artifact, tmp_path):
    np.savez(tmp_path / "weights.npz", **weights(scale=1.01))
    other = tmp_path / "other.so"
    assert partita_command("bind", artifact, tmp_path / "weights.npz", "-o", other).code == 0
    ended = partita_command("verify", model_file, other, "--against", "reference")
    assert ended.code == 1
    assert "FAILED" in ended.out
    assert partita_command("verify", model_file, other, "--against", "reference", "--tolerance", "0.5").code == 0


@pytest.mark.parametrize(
    ("ours", "theirs", "passed"),
    [
        (np.float32([1, np.inf, np.nan]), np.float32([1, np.inf, np.nan]), True),
        (np.float32([1, np.inf]), np.float32([1, 2]), False),
        (np.float32([1, 2]), np.float32([1, np.nan]), False),
        (np.float32([1, 2]), np.float32([1, 2.0001]), True),
        (np.float32([1]), np.float64([1]), False),
        (np.float32([[1]]), np.float32([1]), False),
        (np.int64([1000001]), np.int64([1000000]), False),
        (np.float32([]), np.float32([]), True),
        (np.array([True]), np.array([False]), False),
    ],
)
def test_comparison(ours, theirs, passed):
    from partita.cli.verify import compare

    assert compare("y", ours, theirs, None)["passed"] is passed


# ------------------------------------------------------------------ inspect, explain, backends


def test_inspect_tells_what_an_artifact_holds(partita_command, artifact):
    ended = partita_command("inspect", artifact, "--constants")
    for words in (
        "x  float32(N, 4)",
        "N  known from the inputs",
        "small_cpu_0",
        "float32[1, 4, 1, ",
        "arena",
        "of code",
    ):
        assert words in ended.out
    facts = json.loads(partita_command("inspect", artifact, "--json").out)
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["N", 4]}]
    assert facts["arena_bytes"] is None
    assert facts["file_bytes"] == artifact.stat().st_size
    assert sorted(constant["name"] for constant in facts["constants"]) == ["b", "h.Transpose"]


def test_inspect_of_a_model_runs_no_compiler(partita_command, model_file, monkeypatch):
    monkeypatch.setenv("PARTITA_CC", "/no/compiler")
    facts = json.loads(partita_command("inspect", model_file, "-s", "x=8,4", "--json").out)
    assert facts["inputs"][0]["shape"] == [8, 4]
    assert facts["arena_bytes"] >= facts["arena_lower_bound"] >= 0


def test_explain_names_backends_and_reasons(partita_command, model_file, artifact, tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[2] x) => (float[2] y) { r = Relu (x) y = Sin (r) }'
    )
    onnx.save(model, tmp_path / "m.onnx")
    decisions = json.loads(partita_command("explain", tmp_path / "m.onnx", "--json").out)
    assert [(d["operator"], d["backend"]) for d in decisions] == [("Relu", "cpu"), ("Sin", "cpu")]
    assert partita_command("explain", artifact).out.startswith("node")
    assert "cpu runs 3 nodes" in partita_command("explain", artifact, "--summary").out


def test_backends_are_listed(partita_command):
    found = {item["name"]: item for item in json.loads(partita_command("backends", "--json").out)}
    assert found["cpu"]["available"]
    assert found["reference"]["owner"] == "partita"
    assert "cpu" in partita_command("backends").out


def test_sequences_are_lists_of_tensors(partita_command, tmp_path):
    text = """<ir_version: 10, opset_import: ["" : 22]>
        parts (float[5, 2] x, optional(float[2]) o) => (seq(float[N, 2]) s, bool there) {
            s = SplitToSequence (x) there = OptionalHasElement (o)
        }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "parts.onnx")
    assert partita_command("compile", tmp_path / "parts.onnx", "-o", tmp_path / "parts.so").code == 0
    shown = partita_command("inspect", tmp_path / "parts.so").out
    assert "optional float32" in shown
    assert "list of float32" in shown
    output = tmp_path / "out.npz"
    assert partita_command("run", tmp_path / "parts.so", "-o", output).code == 0
    with np.load(output) as arrays:
        assert sorted(arrays) == [*(f"s.{place}" for place in range(5)), "there"]
        assert arrays["s.4"].shape == (1, 2)
        assert not arrays["there"]


def test_sequences_and_maps_are_verified(partita_command, tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 21, "ai.onnx.ml" : 3]>
        several (float[3, 2] x) => (seq(map(int64, float)) m, seq(float[1, 2]) s) {
            m = ai.onnx.ml.ZipMap <classlabels_int64s = [1, 2]> (x) s = SplitToSequence (x)
        }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "several.onnx")
    assert partita_command("compile", tmp_path / "several.onnx", "-o", tmp_path / "several.so").code == 0
    result = partita_command("verify", tmp_path / "several.onnx", tmp_path / "several.so", "--json")
    assert [(each["name"], each["passed"]) for each in json.loads(result.out)["outputs"]] == [
        *[("m", True)], *[(f"s.{place}", True) for place in range(3)]
    ]  # fmt: skip
    output = tmp_path / "out.npz"
    assert partita_command("run", tmp_path / "several.so", "-o", output).code == 0
    with np.load(output) as arrays:
        assert arrays["m"].shape == (3, 2)
