"""The runtime's planner against the compiler's: one rule in C and in Python."""

import numpy as np
import programs
import pytest

from partita import load_module
from partita.passes.plan_memory import PlannedBuffer, arrange, height
from partita.runtime import Buffer, MetadataModule, Program, Region, Storage, Symbol, Value

# Tells the offsets of `count` buffers, from the third on.
TELL_OFFSETS = """
#include "partita.h"

partita_status tell_offsets(const partita_call *call) {{
    int64_t *offsets = call->arguments[1];
    for (int64_t i = 0; i < {count}; i++)
        offsets[i] = call->offsets[2 + i];
    return PARTITA_OK;
}}
"""

LIVES = {  # (bytes for each of N, first step, last step)
    "the fullest step first is better": [(256, 3, 3), (192, 4, 7), (256, 2, 5), (192, 4, 5)],
    "the largest first is better": [(64, 1, 4), (64, 4, 5), (64, 3, 7), (128, 0, 2)],
    "sizes are rounded up, lives begin before the first step": [
        (3, -1, 9),
        (50, 0, 0),
        (65, 0, 2),
        (1, 1, 1),
        (0, 0, 9),
    ],
    "nothing lives together": [(9, 0, 0), (8, 1, 1), (7, 2, 2)],
}


@pytest.mark.parametrize("lives", LIVES.values(), ids=LIVES.keys())
def test_the_runtime_arranges_buffers_as_the_compiler_does(lives, tmp_path):
    program = Program(
        symbol="layout",
        values=(Value("x", programs.F32, (-1,), 0), Value("y", 7, (len(lives),), 1)),
        inputs=(0,),
        outputs=(1,),
        buffers=(
            Buffer(Storage.ARGUMENT, 0, 0, programs.INPUT, 0),
            Buffer(Storage.ARGUMENT, 0, 0, programs.OUTPUT, 8 * len(lives)),
            *(Buffer(Storage.ARENA, first, last, -1, -2 - n) for n, (_, first, last) in enumerate(lives)),
        ),
        regions=(Region("tell_offsets", "cpu", (), (0,), (1,)),),
        symbols=(Symbol("N"),),
        derived=tuple(f"partita_multiply(extents[0], {size})" for size, _, _ in lives),
        arena_bytes=-1,
    )
    text = TELL_OFFSETS.format(count=len(lives))
    module = MetadataModule(program, [programs.c_module("tell_offsets", text)], {}, build=programs.FAST)
    module.export_library(tmp_path / "layout.so")
    with load_module(tmp_path / "layout.so") as loaded:
        for n in (1, 2, 1, 37):
            offsets = loaded.run({"x": np.zeros(n, np.float32)})["y"]
            buffers = [PlannedBuffer(Storage.ARENA, n * size, first, last) for size, first, last in lives]
            expected = {id(buffer): offset for buffer, offset in arrange(buffers)}
            assert offsets.tolist() == [expected[id(buffer)] for buffer in buffers]
            assert loaded.arena_bytes >= height(arrange(buffers))
