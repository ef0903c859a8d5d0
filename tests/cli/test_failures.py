"""What goes wrong ends with its exit code and one message: no traceback, and nothing on standard output."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

import partita
from partita.cli import ExitCode, main


def fails(ended, code: ExitCode, *words: str) -> None:
    assert ended.code == code
    assert ended.out == ""
    assert ended.err.startswith("partita: ")
    assert "Traceback" not in ended.err
    for word in words:
        assert word in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        [],
        ["run"],
        ["run", "m.so", "--repeat", "0"],
        ["compile", "m.onnx", "-s", "x"],
        ["compile", "m.onnx", "-s", "x=1,2;3"],
        ["compile", "m.onnx", "--parameters", "elsewhere"],
    ],
)
def test_wrong_options(arguments, partita_command):
    fails(partita_command(*arguments), ExitCode.USAGE, "error:", "--help")


def test_missing_and_damaged_models(partita_command, tmp_path):
    fails(partita_command("compile", tmp_path / "none.onnx"), ExitCode.MODEL, "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    fails(partita_command("inspect", tmp_path / "bad.onnx"), ExitCode.MODEL, "bad.onnx")


def test_unknown_targets_and_shapes(partita_command, model_file):
    fails(partita_command("compile", model_file, "-t", "quantum"), ExitCode.MODEL, "quantum", "cpu")
    fails(partita_command("compile", model_file, "-s", "q=1,4"), ExitCode.MODEL, "'q'", "'x'")


def test_operators_that_nobody_runs(partita_command, tmp_path):
    text = '<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> m (float[2] x) => (float[2] y) { y = acme.Frob (x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    fails(partita_command("explain", tmp_path / "m.onnx"), ExitCode.MODEL, "Frob")


def test_compilers_that_are_missing(partita_command, model_file, tmp_path):
    output = tmp_path / "m.so"
    fails(partita_command("compile", model_file, "-o", output, "--cc", "/no/cc"), ExitCode.C_COMPILER, "/no/cc")
    assert not output.exists()


def test_damaged_artifacts(partita_command, artifact, tmp_path):
    cut = tmp_path / "cut.so"
    cut.write_bytes(artifact.read_bytes()[:-100])
    for command in (["run", cut], ["inspect", cut], ["run", tmp_path / "none.so"], ["inspect", tmp_path]):
        fails(partita_command(*command), ExitCode.ARTIFACT if command[1] != tmp_path else ExitCode.MODEL)


def test_folders_that_do_not_exist(partita_command, model_file, artifact, tmp_path):
    fails(partita_command("compile", model_file, "-o", tmp_path / "no" / "m.so"), ExitCode.ARTIFACT, "no/m.so")
    fails(partita_command("run", artifact, "-o", tmp_path / "no" / "out.npz"), ExitCode.USAGE, "out.npz")


def test_inputs_that_do_not_fit(partita_command, artifact, tmp_path):
    np.save(tmp_path / "wrong.npy", np.zeros((2, 5), np.float64))
    (tmp_path / "text.npy").write_text("text")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "named.npz", other=np.zeros(2))
    fails(partita_command("run", artifact, "-i", tmp_path / "wrong.npy"), ExitCode.USAGE, "float64(2, 5)", "(N, 4)")
    fails(partita_command("run", artifact, "-i", tmp_path / "text.npy"), ExitCode.USAGE, "text.npy")
    fails(partita_command("run", artifact, "-i", tmp_path / "objects.npy"), ExitCode.USAGE, "objects.npy")
    fails(partita_command("run", artifact, "-i", tmp_path / "named.npz"), ExitCode.USAGE, "'other'", "'x'")
    fails(partita_command("run", artifact, "-i", "none.npy"), ExitCode.USAGE, "none.npy")
    fails(partita_command("run", artifact, "-s", "q=1"), ExitCode.USAGE, "'q'")
    fails(partita_command("run", artifact, "-s", "x=1,2,3"), ExitCode.USAGE, "rank 3")
    fails(partita_command("run", artifact, "-s", "x=1000000000000,4"), ExitCode.USAGE, "not possible")


def test_weights_that_do_not_fit(partita_command, artifact, tmp_path):
    np.savez(tmp_path / "w.npz", w=np.zeros((4, 3), np.float32))
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    before = artifact.read_bytes()
    fails(partita_command("bind", artifact, tmp_path / "w.npz"), ExitCode.USAGE, "'b' is missing")
    fails(partita_command("bind", artifact, tmp_path / "junk.safetensors"), ExitCode.USAGE, "junk.safetensors")
    assert artifact.read_bytes() == before


def test_faults_of_our_own(partita_command, model_file, monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a wheel came off")

    monkeypatch.setattr(partita, "compile", broken, raising=False)
    fails(partita_command("inspect", model_file), ExitCode.INTERNAL, "a wheel came off", "PARTITA_DEBUG")
    monkeypatch.setenv("PARTITA_DEBUG", "1")
    with pytest.raises(RuntimeError):
        main(["inspect", str(model_file)])


def test_interrupts(partita_command, model_file, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(partita, "compile", interrupted, raising=False)
    fails(partita_command("inspect", model_file), ExitCode.INTERRUPTED, "interrupted")


def test_names_from_models_do_not_reach_the_terminal(partita_command, tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> m (float[2] x) => (float[2] y) { y = Relu (x) }'
    )
    evil = "x\x1b[2J\r"
    model.graph.input[0].name = model.graph.node[0].input[0] = model.graph.node[0].name = evil
    onnx.save(model, tmp_path / "m.onnx")
    for command in ("inspect", "explain"):
        ended = partita_command(command, tmp_path / "m.onnx")
        assert ended.code == 0
        assert "\x1b" not in ended.out
        assert "\r" not in ended.out


def test_a_reader_that_goes_away_is_no_error(artifact):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "partita", "inspect", str(artifact)]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")
