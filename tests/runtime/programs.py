"""Small programs for these tests, written by hand: what the compiler would build from a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import TensorProto, helper

from partita.runtime import (
    Buffer,
    BuildOptions,
    CSourceModule,
    Function,
    InterpretedModule,
    MetadataModule,
    Program,
    Region,
    Storage,
    Symbol,
    Unit,
    Value,
)

FAST = BuildOptions(optimization="-O1", flags=("-Wall", "-Wextra", "-Werror"))
F32 = TensorProto.FLOAT
INPUT, OUTPUT, SECOND_OUTPUT = 0, 1, 2  # of ARGUMENT buffers, where there is one input

# y = scale * x + shift, each of `count` elements; counts its inits in a constant's place through `fail`.
AFFINE = """
#include "partita.h"

struct state {{ const float *scale, *shift; }};
const int64_t {symbol}_state_bytes = sizeof(struct state);

partita_status {symbol}_init(const partita_call *call, void *memory, const void *const *constants) {{
    struct state *state = memory;
    (void)call;
    state->scale = constants[0];
    state->shift = constants[1];
    return PARTITA_OK;
}}

static void piece(void *argument, int64_t begin, int64_t end, void *workspace) {{
    (void)workspace;
    const partita_call *call = argument;
    const struct state *state = call->state;
    const float *x = call->arguments[0];
    float *y = call->arguments[1];
    for (int64_t i = begin; i < end; i++)
        y[i] = state->scale[i] * x[i] + state->shift[i];
}}

partita_status {symbol}(const partita_call *call) {{
    call->services->parallel(call, piece, (void *)call, {count}, 1, 0, 0);
    return PARTITA_OK;
}}
"""

# y = x + x over extents[0] rows of 3.
DOUBLE_ROWS = """
#include "partita.h"

partita_status double_rows(const partita_call *call) {
    const float *x = call->arguments[0];
    float *scratch = (float *)(call->arena + call->offsets[2]);
    float *y = call->arguments[1];
    for (int64_t i = 0; i < call->extents[1]; i++)
        scratch[i] = x[i];
    for (int64_t i = 0; i < call->extents[1]; i++)
        y[i] = scratch[i] + x[i];
    return PARTITA_OK;
}
"""

# y = the positive elements of x; extents[0] is how many there are.
POSITIVE = """
#include "partita.h"

partita_status positive(const partita_call *call) {
    const float *x = call->arguments[0];
    int64_t count = 0;
    for (int i = 0; i < 6; i++)
        count += x[i] > 0;
    float *y = call->services->reserve(call, 1, count * 4);
    if (!y)
        return PARTITA_ERROR_MEMORY;
    for (int i = 0, j = 0; i < 6; i++)
        if (x[i] > 0)
            y[j++] = x[i];
    call->extents[0] = count;
    return PARTITA_OK;
}
"""

NEGATE = """
#include "partita.h"

partita_status negate(const partita_call *call) {
    const float *x = call->arguments[0];
    float *y = call->arguments[1];
    for (int64_t i = 0; i < call->extents[0]; i++)
        y[i] = -x[i];
    return PARTITA_OK;
}
"""


def bind_program(*names: str, count: int = 4) -> bytes:
    """A bind program: the scale is the original one doubled, the shift is the original one."""
    doubled = [helper.make_node("Add", [f"{name}.scale"] * 2, [f"{name}.scale2"]) for name in names]
    inputs = [f"{name}.{part}" for name in names for part in ("scale", "shift")]
    outputs = [f"{name}.{part}" for name in names for part in ("scale2", "shift")]

    def described(items):
        return [helper.make_tensor_value_info(item, F32, [count]) for item in items]

    graph = helper.make_graph(doubled, "bind", described(inputs), described(outputs))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()


def parameters(*names: str, count: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Original parameters."""
    random = np.random.default_rng(seed)
    keys = [f"{name}.{part}" for name in names for part in ("scale", "shift")]
    return {key: random.standard_normal(count, dtype=np.float32) for key in keys}


def table(*names: str, count: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """The table that the bind program makes of them."""
    given = parameters(*names, count=count, seed=seed)
    return {
        key: value
        for name in names
        for key, value in ((f"{name}.scale2", given[f"{name}.scale"] * 2), (f"{name}.shift", given[f"{name}.shift"]))
    }


def affine(x: np.ndarray, weights: dict[str, np.ndarray], name: str = "first") -> np.ndarray:
    """What an affine region computes."""
    return weights[f"{name}.scale2"] * x + weights[f"{name}.shift"]


def affine_source(symbol: str, count: int = 4) -> str:
    return AFFINE.format(symbol=symbol, count=count)


def c_module(symbol: str, text: str, *constants: str, backend: str = "cpu") -> CSourceModule:
    return CSourceModule(backend, (Unit(symbol, text),), (Function(symbol, constants),))


def two_affines(symbol: str = "model", *, count: int = 4, **changes) -> MetadataModule:
    """x -> first -> h -> second -> y, h in the arena."""
    names = {name: (f"{name}.scale2", f"{name}.shift") for name in ("first", "second")}
    size = 4 * count
    program = Program(
        symbol=symbol,
        values=(Value("x", F32, (count,), 0), Value("h", F32, (count,), 1), Value("y", F32, (count,), 2)),
        inputs=(0,),
        outputs=(2,),
        buffers=(
            Buffer(Storage.ARGUMENT, 0, 0, INPUT, size),
            Buffer(Storage.ARENA, 0, 1, -1, size, 0),
            Buffer(Storage.ARGUMENT, 1, 1, OUTPUT, size),
        ),
        regions=(
            Region(f"{symbol}_first", "cpu", names["first"], (0,), (1,)),
            Region(f"{symbol}_second", "npu", names["second"], (1,), (2,)),
        ),
        arena_bytes=max(64, size),
    )
    modules = [
        c_module(f"{symbol}_{name}", affine_source(f"{symbol}_{name}", count), *constants, backend=backend)
        for (name, constants), backend in zip(names.items(), ("cpu", "npu"), strict=True)
    ]
    options = {
        "params": table("first", "second", count=count),
        "bind_program": bind_program("first", "second", count=count),
        "build": FAST,
        **changes,
    }
    return MetadataModule(
        options.pop("program", program), options.pop("modules", modules), options.pop("params"), **options
    )


def dynamic() -> MetadataModule:
    """x (N, 3) -> double_rows -> y (N, 3), with scratch whose size only N tells."""
    program = Program(
        symbol="dynamic",
        values=(Value("x", F32, (-1, 3), 0), Value("y", F32, (-1, 3), 1)),
        inputs=(0,),
        outputs=(1,),
        buffers=(
            Buffer(Storage.ARGUMENT, 0, 0, INPUT, -3),
            Buffer(Storage.ARGUMENT, 0, 0, OUTPUT, -3),
            Buffer(Storage.ARENA, 0, 0, -1, -3),
        ),
        regions=(Region("double_rows", "cpu", (), (0,), (1,)),),
        symbols=(Symbol("N"),),
        derived=("partita_multiply(extents[0], 3)", "partita_multiply(extents[1], 4)"),
        arena_bytes=-1,
    )
    return MetadataModule(program, [c_module("double_rows", DOUBLE_ROWS)], {}, build=FAST)


def data_dependent() -> MetadataModule:
    """x (6) -> positive -> p (K) -> negate -> n (K): K is known when `positive` has run."""
    program = Program(
        symbol="sieve",
        values=(Value("x", F32, (6,), 0), Value("p", F32, (-1,), 1), Value("n", F32, (-1,), 2)),
        inputs=(0,),
        outputs=(1, 2),
        buffers=(
            Buffer(Storage.ARGUMENT, 0, 0, INPUT, 24),
            Buffer(Storage.HEAP, 0, 2, -1, -2),
            Buffer(Storage.HEAP, 1, 2, -1, -2),
        ),
        regions=(
            Region("positive", "cpu", (), (0,), (1,), sets_extents=True),
            Region("negate", "cpu", (), (1,), (2,)),
        ),
        symbols=(Symbol("K", data_dependent=True),),
        derived=("partita_multiply(extents[0], 4)",),
    )
    modules = [c_module("positive", POSITIVE), c_module("negate", NEGATE)]
    return MetadataModule(program, modules, {}, build=FAST)


def interpreted(op_type: str = "Mul", engine: str = "reference") -> MetadataModule:
    """x -> an interpreted region that multiplies with a constant -> y."""
    info = [helper.make_tensor_value_info(name, F32, [4]) for name in ("x", "w", "y")]
    graph = helper.make_graph([helper.make_node(op_type, ["x", "w"], ["y"])], "region", info[:2], info[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    program = Program(
        symbol="mixed",
        values=(Value("x", F32, (4,), 0), Value("y", F32, (4,), 1)),
        inputs=(0,),
        outputs=(1,),
        buffers=(Buffer(Storage.ARGUMENT, 0, 0, INPUT, 16), Buffer(Storage.ARGUMENT, 0, 0, OUTPUT, 16)),
        regions=(Region("multiply", "reference", ("w",), (0,), (1,), interpreted=True),),
    )
    module = InterpretedModule("reference", "multiply", ("x", "w"), ("y",), ("w",), model, engine)
    return MetadataModule(program, [module], {"w": np.arange(4, dtype=np.float32)}, build=FAST)


def with_program(module: MetadataModule, **changes) -> Program:
    """The module's program, changed."""
    return replace(module.program, **changes)
