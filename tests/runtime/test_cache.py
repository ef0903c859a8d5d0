"""The cache of compiled objects: what is kept, what is told apart, and what may go wrong with it."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import programs
import pytest

from partita.runtime import load_module
from partita.runtime.cache import Cache, content_key, user_cache
from partita.runtime.toolchain import BuildOptions, Linking, Source, Toolchain

SOURCE = Source("one.c", "int one(void) { return 1; }\n")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("PARTITA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("PARTITA_NO_CACHE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def counting(tmp_path):
    """A compiler that counts its runs, and what it was asked for: objects, links."""
    log = tmp_path / "log"
    path = tmp_path / "cc"
    path.write_text(f'#!/bin/sh\ncase "$*" in *-dM*) ;; *) echo "$*" >> {log};; esac\nexec gcc "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def runs() -> int:
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return len(lines)

    return str(path), runs


def build(options: BuildOptions, *sources: Source) -> bytes:
    return Toolchain(options).build_library(sources or (SOURCE,), Linking())


def test_nothing_is_compiled_twice_and_the_bytes_are_the_same(counting):
    cc, runs = counting
    options = BuildOptions(cc=cc, optimization="-O0")
    first = build(options)
    assert runs() > 1
    assert build(options) == first
    assert runs() == 0
    assert build(replace(options, cache=False)) == first
    assert runs() > 1


def test_only_what_changed_is_compiled(counting):
    cc, runs = counting
    options = BuildOptions(cc=cc, optimization="-O0")
    build(options)
    runs()
    build(options, SOURCE, Source("two.c", "int two(void) { return 2; }\n"))
    assert runs() == 2  # the new file, and the link


@pytest.mark.parametrize(
    "change",
    [
        {"optimization": "-O1"},
        {"flags": ("-DX",)},
        {"mcpu": ""},
    ],
)
def test_other_flags_are_other_objects(counting, change):
    cc, runs = counting
    options = BuildOptions(cc=cc, optimization="-O0", mcpu="x86-64")
    build(options)
    runs()
    build(replace(options, **change))
    assert runs() > 2


def test_a_header_that_changes_is_seen(counting, tmp_path):
    cc, runs = counting
    options = BuildOptions(cc=cc, optimization="-O0")
    include = tmp_path / "include"
    include.mkdir()
    (include / "outer.h").write_text("#define OUTER 1\n")
    source = Source("src/a.c", '#include <outer.h>\n#include "b.h"\nint a = OUTER + B;\n', (str(include),))
    build(options, replace(source, headers=(("src/b.h", "#define B 1\n"),)))
    runs()
    build(options, replace(source, headers=(("src/b.h", "#define B 2\n"),)))
    assert runs() == 2
    (include / "outer.h").write_text("#define OUTER 22\n")
    build(options, replace(source, headers=(("src/b.h", "#define B 2\n"),)))
    assert runs() == 2


def test_damaged_entries_are_made_again(folder):
    good = build(BuildOptions(optimization="-O0"))
    for path in folder.glob("??/*"):
        path.write_bytes(path.read_bytes()[:-1] + b"\0\1")
    assert build(BuildOptions(optimization="-O0")) == good
    for path in folder.glob("??/*"):
        path.write_bytes(b"")
    assert build(BuildOptions(optimization="-O0")) == good


@pytest.mark.parametrize("variable", [("PARTITA_NO_CACHE", "1"), ("PARTITA_CACHE_SIZE", "0")])
def test_it_can_be_turned_off(monkeypatch, folder, variable):
    monkeypatch.setenv(*variable)
    build(BuildOptions(optimization="-O0"))
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARTITA_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert build(BuildOptions(optimization="-O0"))


def test_what_was_used_longest_ago_goes_first(folder):
    cache = Cache(folder, limit=5000)
    keys = [content_key(str(number)) for number in range(5)]
    for age, key in enumerate(keys):
        cache.put(key, bytes(968))
        os.utime(folder / key[:2] / key, (1000 + age, 1000 + age))
    cache.trim()
    assert all(cache.get(key) for key in keys)  # all of them fit
    for age, key in enumerate(keys):
        os.utime(folder / key[:2] / key, (1000 + age, 1000 + age))
    assert cache.get(keys[0])  # used again: now the youngest
    cache.put(content_key("new"), bytes(968))
    cache.trim()
    assert [cache.get(key) is not None for key in keys] == [True, False, False, False, True]


def test_many_writers_of_one_entry(folder):
    cache = Cache(folder)
    data = os.urandom(1 << 16)

    def use(_: int) -> bool:
        cache.put("ab" * 32, data)
        return cache.get("ab" * 32) == data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(200)))
    assert len(list(folder.glob("??/*"))) == 1


@pytest.mark.parametrize(
    ("text", "limit"), [("", 1 << 30), ("500M", 500 << 20), ("2 GiB", 2 << 30), ("nonsense", 1 << 30)]
)
def test_the_limit_is_read_from_the_environment(monkeypatch, text, limit):
    monkeypatch.setenv("PARTITA_CACHE_SIZE", text)
    found = user_cache()
    assert found is not None and found.limit == limit


def test_a_module_from_the_cache_is_exported_and_runs(tmp_path):
    x = np.arange(4, dtype=np.float32)
    paths = [programs.two_affines().export_library(tmp_path / name) for name in ("first.so", "second.so")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    one, other = (load_module(path).run({"x": x})["y"] for path in paths)
    np.testing.assert_array_equal(one, other)
