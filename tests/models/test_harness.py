"""The measuring side: turns, tables, verdicts and memory, on runners whose behaviour is known."""

import json
import sys

import numpy as np
import pytest

from benchmarks import compare, compile_time, machine, memory, overhead, peers, zoo


class Steady(peers.Runner):
    """Answers with twice its input."""

    name = "steady"
    package = "numpy"
    factor = 2.0

    def __init__(self, path, inputs, threads):
        self.closed = False

    def run(self, inputs):
        return {"y": inputs["input"] * self.factor}


class Wrong(Steady):
    name = "wrong"
    factor = 2.1


class Broken(Steady):
    name = "broken"

    def run(self, inputs):
        raise ValueError("no such operator\nand a long explanation")


def test_runners_take_turns_in_rotating_order():
    calls = []
    runs = {name: lambda name=name: calls.append(name) for name in "abc"}
    turns = compare.take_turns(runs, rounds=3, seconds=0)
    assert {name: len(times) for name, times in turns.items()} == {"a": 3, "b": 3, "c": 3}
    assert calls[::4] == list("abcbcacab")  # a turn is one run to warm up and at least three that count


def test_failures_are_reported_with_their_reason(monkeypatch):
    runners = {runner.name: runner for runner in (Steady, Wrong, Broken)}
    monkeypatch.setattr(compare, "RUNNERS", runners)
    result = compare.measure(zoo.get("ds-cnn"), list(runners), threads=1, rounds=2, seconds=0)
    assert list(result.turns) == ["steady"]
    assert result.failures["broken"] == "ValueError: no such operator"
    assert "differs from steady's by 5.0e-02" in result.failures["wrong"]


def test_ratio_is_the_best_peer_over_ours():
    result = compare.Result("m", 1, {"partita": [2.0, 1.0, 3.0], "onnxruntime": [4.0], "openvino": [3.0]})
    assert result.ratio() == 1.5
    text = compare.table([result, compare.Result("n", 1, {}, {"partita": "Error: why"})], list(result.turns))
    assert "| m | 2 ±50% | 4 ±0% | 3 ±0% | 1.50 |" in text
    assert "| n | – | – | – | – |" in text
    assert "n, partita: Error: why" in text


def test_command_measures_a_peer_and_writes_every_turn(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "result.json"
    arguments = ["--models", "ds-cnn", "--runners", "onnxruntime", "--rounds", "2", "--seconds", "0"]
    assert compare.main([*arguments, "--json", str(file)]) == 0
    assert "| ds-cnn |" in capsys.readouterr().out
    content = json.loads(file.read_text())
    assert content["machine"] == machine.describe()
    assert len(content["results"][0]["turns"]["onnxruntime"]) == 2


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_peers_agree_with_the_float64_run(name):
    pytest.importorskip(name)
    from benchmarks.float64 import run_float64

    entry = zoo.get("autoencoder")
    inputs = entry.inputs(0)
    runner = peers.RUNNERS[name](entry.path(), inputs, 1)
    expected = run_float64(entry.model(), inputs)
    for key, value in runner.run(inputs).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-4)


def test_memory_of_a_whole_process_tree_is_seen():
    child = "x = bytearray(120_000_000); import time; time.sleep(0.3)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    seconds, megabytes, status, _ = memory.observe([sys.executable, "-c", parent])
    assert status == 0
    assert seconds > 0.3
    assert 110 < megabytes < 300


def test_stages_run_in_processes_of_their_own(tmp_path):
    pytest.importorskip("onnxruntime")
    usage = memory.stage_usage("ds-cnn", "onnxruntime", "run", tmp_path / "unused.so")
    assert usage.error == ""
    assert usage.tree_mb >= usage.peak_mb > 20
    failed = memory.stage_usage("no-such-model", "onnxruntime", "run", tmp_path / "unused.so")
    assert "no-such-model" in failed.error
    assert "no-such-model" in memory.table([usage, failed])


def test_compile_time_is_measured_cold_and_warm():
    found = compile_time.measure("digits", 1)
    assert list(found) == ["cold", "warm"]
    for seconds in found.values():
        assert list(seconds) == compile_time.STAGES
        assert seconds["command"] > seconds["import"] > 0


def test_a_call_is_measured_from_c_and_from_python():
    from_c, from_python, _ = overhead.measure("digits", 2)
    assert from_c > 0
    assert from_python > 0
