"""`partita profile`: times, operations and bytes of each kernel."""

import json

import pytest


def test_a_model_is_profiled(partita_command, model_file):
    facts = json.loads(partita_command("profile", model_file, "--threads", "1", "--repeat", "2", "--json").out)
    assert facts["threads"] == 1
    assert facts["peak"] > 1e8
    assert facts["kernels"] and all(kernel["seconds"] >= 0 for kernel in facts["kernels"])
    assert sum(kernel["operations"] for kernel in facts["kernels"]) > 0


def test_text_names_kernels_and_totals(partita_command, model_file):
    ended = partita_command("profile", model_file, "--repeat", "2", "--top", "1")
    assert ended.code == 0
    assert "of peak" in ended.out and "measured here" in ended.out


@pytest.mark.parametrize(("flags", "code"), [(["--profile"], 0), ([], 6)])
def test_a_compiled_model_must_have_been_compiled_for_it(partita_command, model_file, tmp_path, flags, code):
    path = tmp_path / "model.so"
    assert partita_command("compile", model_file, "-o", path, *flags).code == 0
    ended = partita_command("profile", path, "--repeat", "2")
    assert ended.code == code
    assert not code or "partita profile model.onnx" in ended.err
