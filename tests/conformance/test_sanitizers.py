"""What the sanitizers are there to find, they find; and a case of the suite is clean under them."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import sanitizers

HERE = Path(__file__).parent
SOURCE = """
int shifted(int a, int bits) { return a << bits; }
int element(const int *x, int i) { int own[4] = {x[0]}; return own[i]; }
"""
CALLS = {"a shift by too much": "shifted(1, 40)", "a read beyond an array": "element((c_int * 4)(), 4)"}


@pytest.fixture(scope="module", params=sanitizers.KINDS)
def kind(request):
    try:
        sanitizers.find(request.param)
    except SystemExit as error:
        pytest.skip(str(error))
    return request.param


def run(kind, *command):
    sanitizer = sanitizers.find(kind)
    environment = {**os.environ, "LD_PRELOAD": " ".join(sanitizer.preload), "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_finding_ends_the_process(kind, call, tmp_path):
    sanitizer = sanitizers.find(kind)
    (tmp_path / "wrong.c").write_text(SOURCE)
    command = [*shlex.split(sanitizer.cc), *sanitizer.flags, "-shared", "-fPIC", "wrong.c", "-o", "wrong.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    text = "import sys; from ctypes import *; library = CDLL(sys.argv[1]); print(library.{})"
    good = run(kind, sys.executable, "-c", text.format("shifted(1, 4)"), str(tmp_path / "wrong.so"))
    assert (good.returncode, good.stdout) == (0, "16\n")
    assert run(kind, sys.executable, "-c", text.format(call), str(tmp_path / "wrong.so")).returncode != 0


def test_a_case_is_clean(kind):
    command = [sys.executable, str(HERE), "--sanitize", kind, "-k", "^test_add_bcast$"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "'passed': 1," in result.stdout, result.stdout + result.stderr
