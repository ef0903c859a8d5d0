"""Equal input gives equal bytes, whatever process, folder, hash seed or cache the compiler works with."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import BUILD, compiled, network

SCRIPT = """
import sys
from dataclasses import replace
import small_models
for name, targets in (("plain", []), ("interpreted", ["reference"])):
    for cache in (False, True):
        build = replace(small_models.BUILD, cache=cache)
        module = small_models.compiled(small_models.network(), targets, build=build)
        module.export_library(f"{name}.{cache}.so")
        module.export_library(f"{name}.{cache}.tar")
"""
FILES = [
    f"{name}.{cache}.{suffix}"
    for name in ("plain", "interpreted")
    for cache in (False, True)
    for suffix in ("so", "tar")
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of two processes that have nothing in common but the model."""
    folders = []
    for seed, name in (("1", "one"), ("777", "another folder")):
        folder = tmp_path_factory.mktemp("reproducible") / name
        (folder / "temporary").mkdir(parents=True)
        here = Path(__file__).parent
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here)]),
            "TMPDIR": str(folder / "temporary"),
            "TZ": f"UTC+{seed[0]}",
            "PARTITA_CACHE_DIR": str(folder / "cache"),
            "PARTITA_NUM_THREADS": seed[0],
        }
        subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, env=environment, check=True)
        assert list((folder / "temporary").iterdir()) == []
        folders.append(folder)
    return folders


@pytest.mark.parametrize("name", FILES)
def test_two_processes_write_equal_bytes(written, name):
    one, other = ((folder / name).read_bytes() for folder in written)
    assert one == other


@pytest.mark.parametrize("name", ["plain", "interpreted"])
@pytest.mark.parametrize("suffix", ["so", "tar"])
def test_the_cache_changes_no_byte(written, name, suffix):
    folder = written[0]
    assert list((folder / "cache").iterdir()) != []
    assert (folder / f"{name}.True.{suffix}").read_bytes() == (folder / f"{name}.False.{suffix}").read_bytes()


def test_no_folder_of_the_machine_is_in_the_files(written):
    for folder in written:
        for name in FILES:
            data = (folder / name).read_bytes()
            assert str(folder).encode() not in data
            assert str(Path.home()).encode() + b"/" not in data


def test_compiling_twice_in_a_process_gives_equal_bytes(written, tmp_path):
    for number in range(2):
        build = replace(BUILD, cache=False)
        path = compiled(network(), build=build).export_library(tmp_path / f"{number}.so")
        assert path.read_bytes() == (written[0] / "plain.False.so").read_bytes()
