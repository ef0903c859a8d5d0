"""The pool: one for all models of a process, memory for each thread, gone with its last user."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import programs
import pytest
from test_c import run_linked

from partita.runtime import Buffer, MetadataModule, Program, Region, Storage, Value, load_module

# y[i] = the sum of i, i + 1 .. i + 255, through a workspace that each thread must have to itself.
THROUGH_WORKSPACE = """
#include "partita.h"

static void piece(void *argument, int64_t begin, int64_t end, void *workspace) {
    const partita_call *call = argument;
    int32_t *y = call->arguments[0], *scratch = workspace;
    for (int64_t i = begin; i < end; i++) {
        for (int k = 0; k < 256; k++)
            scratch[k] = (int32_t)i + k;
        y[i] = 0;
        for (int k = 0; k < 256; k++)
            y[i] += scratch[k];
    }
}

partita_status SYMBOL_region(const partita_call *call) {
    call->services->parallel(call, piece, (void *)call, 4096, 8, call->arena, 1024);
    return PARTITA_OK;
}
"""


def workspace_module(symbol: str = "shared") -> MetadataModule:
    program = Program(
        symbol=symbol,
        values=(Value("y", 6, (4096,), 0),),
        inputs=(),
        outputs=(0,),
        buffers=(Buffer(Storage.ARGUMENT, 0, 0, 0, 4 * 4096), Buffer(Storage.ARENA, 0, 0, -1, 1024, 0)),
        regions=(Region(f"{symbol}_region", "cpu", (), (), (0,)),),
        arena_bytes=1024,
    )
    text = THROUGH_WORKSPACE.replace("SYMBOL", symbol)
    return MetadataModule(program, [programs.c_module(f"{symbol}_region", text)], {}, build=programs.FAST)


def threads_now() -> int:
    gc.collect()  # modules that nobody holds any more have threads too
    return len(list(Path("/proc/self/task").iterdir()))


EXPECTED = np.arange(4096, dtype=np.int32) * 256 + 255 * 128


def test_all_modules_of_a_process_share_one_pool(tmp_path):
    paths = [workspace_module(name).export_library(tmp_path / f"{name}.so") for name in ("one", "two", "three")]

    def check() -> None:
        before = threads_now()
        modules = [load_module(path, threads=threads) for path, threads in zip(paths, (3, 2, 4), strict=True)]
        for expected, module in zip((2, 2, 3), modules, strict=True):
            np.testing.assert_array_equal(module.run({})["y"], EXPECTED)
            assert threads_now() == before + expected  # beside the thread that calls
        for module in modules[:2]:
            module.close()
        np.testing.assert_array_equal(modules[2].run({})["y"], EXPECTED)
        modules[2].close()
        assert threads_now() == before

    in_a_child(check)  # where no module of another test has a pool


def in_a_child(check) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            check()
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_thread_starts_none():
    before = threads_now()
    with workspace_module() as module:
        module.threads = 1
        module.run({})
        assert threads_now() == before


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_each_thread_has_its_own_workspace(threads):
    instance = workspace_module().open_instance(threads)
    for _ in range(20):
        np.testing.assert_array_equal(instance.run({})["y"], EXPECTED)
    instance.close()


def test_a_child_of_a_fork_has_a_pool_of_its_own(tmp_path):
    script = f"""
import os, sys, numpy as np
from partita.runtime import load_module
module = load_module({str(tmp_path / "shared.so")!r}, threads=2)
first = module.run({{}})["y"]
child = os.fork()
if child == 0:
    again = load_module({str(tmp_path / "shared.so")!r}, threads=2)
    same = np.array_equal(again.run({{}})["y"], first) and np.array_equal(module.run({{}})["y"], first)
    again.close()
    module.close()
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    workspace_module().export_library(tmp_path / "shared.so")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", script], env=environment, timeout=60, check=False).returncode == 0


SEVERAL_CALLERS = """
#include <pthread.h>
#include <stdio.h>
#include "partita.h"
#include "shared.h"

/* Each caller opens, runs and closes instances of its own: the pool comes and goes, grows, and is fought for. */
static void *caller(void *argument) {
    for (int round = 0; round < 20; round++) {
        partita_instance *instance;
        partita_options options = {.size = sizeof options, .threads = 1 + (round + (int)(intptr_t)argument) % 4};
        if (shared_open(&options, &instance, NULL, 0))
            return "open";
        for (int run = 0; run < 10; run++) {
            partita_tensor output = {.data = NULL};
            if (shared_run(instance, NULL, &output))
                return "run";
            const int32_t *y = output.data;
            for (int i = 0; i < 4096; i++)
                if (y[i] != i * 256 + 255 * 128)
                    return "numbers";
        }
        shared_close(instance);
    }
    return NULL;
}

int main(void) {
    pthread_t threads[3];
    for (intptr_t index = 0; index < 3; index++)
        pthread_create(&threads[index], NULL, caller, (void *)index);
    int failed = 0;
    for (int index = 0; index < 3; index++) {
        void *problem;
        pthread_join(threads[index], &problem);
        if (problem) {
            puts(problem);
            failed = 1;
        }
    }
    return failed;
}
"""


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_callers_that_share_the_pool_are_clean_under_sanitizers(sanitizer, tmp_path):
    (tmp_path / "main.c").write_text(SEVERAL_CALLERS)
    result = run_linked(workspace_module(), tmp_path, [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"])
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("the thread sanitizer does not know this kernel's memory layout")
    assert result.returncode == 0, result.stdout + result.stderr
