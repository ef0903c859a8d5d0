"""Building: compilers that are missing or fail, hostile names, and what else may build and call the C."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import programs
import pytest

from partita.errors import CompilerError
from partita.runtime import (
    Buffer,
    BuildOptions,
    MetadataModule,
    Program,
    Storage,
    Value,
    find_compiler,
    load_module,
    toolchain,
)
from partita.runtime.model_source import c_string
from partita.runtime.toolchain import Toolchain

X = np.arange(4, dtype=np.float32)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def built(cc: str) -> MetadataModule:
    return programs.two_affines(build=BuildOptions(cc=cc))


# ------------------------------------------------------------------ compilers


def test_without_a_compiler_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("PARTITA_CC", raising=False)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CompilerError, match=r"install gcc or clang, or `pip install ziglang`"):
        find_compiler()


def test_ziglang_is_the_last_resort(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("PARTITA_CC", raising=False)
    assert find_compiler() == (sys.executable, "-m", "ziglang", "cc")


def test_a_compiler_that_is_named_and_missing_is_told():
    with pytest.raises(CompilerError, match="'/nowhere/cc' was not found"):
        built("/nowhere/cc").compile()


def test_a_compiler_that_fails_is_told_with_command_and_output(tmp_path):
    cc = script(tmp_path / "cc", "echo the moon is wrong >&2; exit 3")
    with pytest.raises(CompilerError, match=r"(?s)ended with code 3.*command: .*/cc .*the moon is wrong"):
        built(cc).compile()


def test_a_compiler_that_crashes_is_told(tmp_path):
    with pytest.raises(CompilerError, match="died of signal 11"):
        built(script(tmp_path / "cc", "kill -SEGV $$")).compile()


def test_a_compiler_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "_TIMEOUT", 0.2)
    with pytest.raises(CompilerError, match=r"took more than 0\.2 seconds"):
        built(script(tmp_path / "cc", "exec sleep 60")).compile()


def test_source_that_does_not_compile_is_told_and_can_be_mended():
    first, _ = programs.two_affines().imported_modules
    broken = programs.c_module("model_second", "not C", "second.scale2", "second.shift")
    with pytest.raises(CompilerError, match=r"compiling src/model_second\.c failed"):
        programs.two_affines(modules=[first, broken]).run({"x": X})


def test_a_function_that_is_promised_and_missing_is_told():
    first, _ = programs.two_affines().imported_modules
    empty = programs.c_module("model_second", "extern int nothing;", "second.scale2", "second.shift")
    with pytest.raises(CompilerError, match=r"(?s)linking failed.*model_second"):
        programs.two_affines(modules=[first, empty]).run({"x": X})


def test_flags_and_paths_reach_no_shell(tmp_path):
    trap = tmp_path / "trap"
    options = BuildOptions(optimization="-O0", flags=(f"-DX=$(touch {trap})", f"-DY=1; touch {trap}"))
    module = programs.two_affines(build=options)
    module.run({"x": X})
    assert not trap.exists()


def test_flags_reach_the_linker(tmp_path):
    log = tmp_path / "log"
    cc = script(tmp_path / "cc", f'echo "$@" >> {log}; exec gcc "$@"')
    programs.two_affines(build=BuildOptions(cc=str(cc), flags=("-DASKED=1",), cache=False)).compile()
    (linking,) = [line for line in log.read_text().splitlines() if "-o model.so" in line]
    assert "-DASKED=1" in linking


def test_failing_leaves_no_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(CompilerError):
        built("false").compile()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ziglang_builds_it_too():
    module = programs.two_affines(build=BuildOptions(cc=f"{sys.executable} -m ziglang cc"))
    np.testing.assert_allclose(module.run({"x": X})["y"], programs.two_affines().run({"x": X})["y"], rtol=1e-6)


def test_no_flag_gives_up_exact_semantics():
    flags = toolchain.compile_flags(BuildOptions())
    assert not {"-ffast-math", "-Ofast", "-ffinite-math-only", "-fno-signed-zeros", "-fassociative-math"} & set(flags)


def test_the_toolchain_says_what_the_code_may_use():
    assert set(Toolchain(BuildOptions(mcpu="x86-64-v3")).features()) >= {"avx2", "fma"}


# ------------------------------------------------------------------ names

HOSTILE = [
    'quote" backslash\\ end',
    "*/ int x; /*",
    "line\nbreak \\\n",
    "??/??=??'",
    "%s%n%d",
    "nul\0inside",
    "emoji 🎼 ünï",
    "int",
    "main",
    "x" * 100_000,
    '"); system("touch /tmp/partita-trap"); ("',
    "\\052/",
    "",
]


def hostile_model(name: str) -> MetadataModule:
    """A model whose input, output, constant and symbol have this name."""
    program = Program(
        symbol="hostile",
        values=(Value(name, 1, (-1,), 0), Value(name + "'", 1, (2,), 1)),
        inputs=(0,),
        outputs=(1, 0),
        buffers=(Buffer(Storage.ARGUMENT, 0, 0, 0), Buffer(Storage.CONSTANT, 0, 0, 0)),
        regions=(),
        symbols=(programs.Symbol(name),),
    )
    return MetadataModule(program, [], {name: np.array([1, 2], np.float32)}, build=programs.FAST)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_any_name_is_harmless(name, tmp_path):
    module = hostile_model(name)
    loaded = load_module(module.export_library(tmp_path / "model.so"))
    results = loaded.run({name: X})
    assert results[name].tolist() == X.tolist() and results[name + "'"].tolist() == [1, 2]
    assert list(loaded.params) == [name]
    assert not Path("/tmp/partita-trap").exists()


@pytest.mark.parametrize("name", ["__metadata__", "partita.padding.0", "a.b", "a_b"])
def test_names_that_the_table_reserves_are_kept_apart(name, tmp_path):
    module = hostile_model(name)
    module = MetadataModule(
        module.program,
        [],
        {name: np.array([1, 2], np.float32), "a b": np.array([3], np.int8), "last": np.array([4.0])},
        build=programs.FAST,
    )
    loaded = load_module(module.export_library(tmp_path / "model.so"))
    assert [array.tolist() for array in loaded.params.values()] == [[1, 2], [3], [4]]


def test_a_string_means_the_same_in_c():
    assert c_string("a1") == '"a1"'
    assert c_string("\x011") == '"\\0011"'
    assert c_string("??/") == '"\\077\\077\\057"'
    assert c_string("ü") == '"\\303\\274"'
