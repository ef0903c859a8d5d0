"""The module tree: what it refuses when it is made, and when regions are initialized."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import programs
import pytest

from partita.errors import ExecutionError, ParameterError
from partita.runtime import Buffer, Function, MetadataModule, Program, Region, Storage, Unit, Value, cpu
from partita.runtime.module import CSourceModule

# Counts its inits in its first constant, and fails as long as the second is negative.
COUNTING = """
#include "partita.h"
const int64_t {symbol}_state_bytes = 8;
partita_status {symbol}_init(const partita_call *call, void *state, const void *const *constants) {{
    (void)state;
    *(float *)(uintptr_t)constants[0] += 1;
    if (*(const float *)constants[1] < 0)
        return call->services->fail(call, PARTITA_ERROR_BACKEND, "no %s today", "luck");
    return PARTITA_OK;
}}
partita_status {symbol}(const partita_call *call) {{
    *(float *)call->arguments[1] = *(const float *)call->arguments[0] + 1;
    return PARTITA_OK;
}}
"""


def counting() -> MetadataModule:
    """x -> one -> h -> two -> y, each adding 1."""
    program = Program(
        symbol="counting",
        values=tuple(Value(name, programs.F32, (1,), index) for index, name in enumerate("xhy")),
        inputs=(0,),
        outputs=(2,),
        buffers=(
            Buffer(Storage.ARGUMENT, 0, 0, 0, 4),
            Buffer(Storage.ARENA, 0, 1, -1, 4, 0),
            Buffer(Storage.ARGUMENT, 1, 1, 1, 4),
        ),
        regions=(
            Region("one", "a", ("one.count", "one.fails"), (0,), (1,)),
            Region("two", "b", ("two.count", "two.fails"), (1,), (2,)),
        ),
        arena_bytes=64,
    )
    modules = [
        programs.c_module(name, COUNTING.format(symbol=name), f"{name}.count", f"{name}.fails")
        for name in ("one", "two")
    ]
    names = ("one.count", "one.fails", "two.count", "two.fails")
    return MetadataModule(program, modules, {name: np.zeros(1, np.float32) for name in names}, build=programs.FAST)


X = {"x": np.zeros(1, np.float32)}


def test_a_lookup_initializes_that_region_alone():
    module = counting()
    module.get_function("one")
    assert (module.params["one.count"], module.params["two.count"]) == (1, 0)


def test_a_region_is_initialized_once():
    module = counting()
    module.get_function("one")
    module.get_function("one")
    module.run(X)
    module.run(X)
    assert (module.params["one.count"], module.params["two.count"]) == (1, 1)


def test_each_instance_initializes_its_own_regions():
    module = counting()
    first, second = module.open_instance(), module.open_instance()
    assert first.run(X)["y"] == second.run(X)["y"] == 2
    assert module.params["one.count"] == 2
    first.close()
    assert second.run(X)["y"] == 2


def test_a_failed_init_is_told_and_retried():
    module = counting()
    module.params["two.fails"][0] = -1
    module.get_function("one")
    with pytest.raises(ExecutionError, match="region 'two': no luck today"):
        module.get_function("two")
    with pytest.raises(ExecutionError, match="no luck"):
        module.run(X)
    module.params["two.fails"][0] = 0
    assert module.run(X)["y"] == 2
    assert (module.params["one.count"], module.params["two.count"]) == (1, 3)


def test_an_unknown_region_is_refused():
    with pytest.raises(KeyError, match="there are model_first, model_second"):
        programs.two_affines().get_function("third")


def test_one_region_runs_alone():
    module = programs.two_affines()
    x = np.arange(4, dtype=np.float32)
    (second,) = module.get_function("model_second")(x)
    np.testing.assert_allclose(second, programs.affine(x, module.params, "second"))


def test_a_missing_constant_is_refused_when_the_module_is_made():
    table = programs.table("first", "second")
    del table["first.shift"], table["second.scale2"]
    with pytest.raises(ParameterError, match=r"(?s)wants constant 'first.shift'.*wants constant 'second.scale2'"):
        programs.two_affines(params=table)


def test_symbols_defined_twice_are_refused():
    module = programs.two_affines()
    again = programs.c_module("again", "", backend="npu")
    again = replace(again, functions=(Function("model_first", ("first.scale2", "first.shift")),))
    with pytest.raises(ParameterError, match="'model_first' is defined by 'cpu' and again by 'npu'"):
        programs.two_affines(modules=[*module.imported_modules, again])


def test_a_region_symbol_that_hides_an_entry_point_is_refused():
    module = programs.two_affines()
    regions = (replace(module.program.regions[0], symbol="model_run"), module.program.regions[1])
    with pytest.raises(ParameterError, match=r"'model_run' .* is taken by the model's entry points"):
        programs.two_affines(program=replace(module.program, regions=regions))


@pytest.mark.parametrize("symbol", ["a b", "1a", "", 'a"', "a\n", "partita"])
def test_a_symbol_that_is_no_identifier_is_refused(symbol):
    module = programs.two_affines()
    with pytest.raises(ParameterError, match=r"not a C identifier|the runtime's own"):
        programs.two_affines(program=replace(module.program, symbol=symbol))


def test_a_region_that_no_module_defines_is_refused():
    with pytest.raises(ParameterError, match="no module defines region 'model_second'"):
        programs.two_affines(modules=programs.two_affines().imported_modules[:1])


def test_different_constants_in_schedule_and_module_are_refused():
    module = programs.two_affines()
    first = replace(module.imported_modules[0], functions=(Function("model_first", ("first.shift", "first.scale2")),))
    with pytest.raises(ParameterError, match="want different constants"):
        programs.two_affines(modules=[first, module.imported_modules[1]])


@pytest.mark.parametrize("name", ["../x", "a/b", "", "-o", "a b"])
def test_a_file_name_that_is_not_plain_is_refused(name):
    module = programs.two_affines()
    first = replace(module.imported_modules[0], units=(Unit(name, ""),))
    with pytest.raises(ParameterError, match="is not a plain one"):
        programs.two_affines(modules=[first, module.imported_modules[1]])


def test_every_problem_of_a_program_is_told_at_once():
    module = programs.two_affines()
    buffers = (*module.program.buffers, Buffer(Storage.ARENA, 0, 0, -1, 4, 1000), Buffer(Storage.CONSTANT, 0, 0, 99))
    values = (*module.program.values, Value("z", programs.F32, (-1,), 0), Value("r", programs.F32, (1,) * 17, 77))
    with pytest.raises(ParameterError) as error:
        programs.two_affines(program=replace(module.program, buffers=buffers, values=values))
    for part in ("outside the arena", "constant 99", "'z' has a size that no symbol", "rank 17", "buffer 77"):
        assert part in str(error.value)


def test_the_host_may_be_empty():
    module = programs.two_affines()
    host = CSourceModule("host", (), ())
    assert programs.two_affines(modules=[host, *module.imported_modules]).run({"x": np.zeros(4, np.float32)})


def test_the_table_is_not_copied():
    module = programs.two_affines()
    instance = module.open_instance()
    instance.run({"x": np.zeros(4, np.float32)})
    module.params["second.shift"][:] = 7
    module.params["second.scale2"][:] = 0
    assert instance.run({"x": np.zeros(4, np.float32)})["y"].tolist() == [7] * 4


def test_the_executor_sets_runs_and_gets():
    module = programs.two_affines()
    executor = module["default"](cpu(0))
    x = np.ones(4, np.float32)
    executor["set_input"]("x", x)
    with pytest.raises(ExecutionError, match="run first"):
        executor["get_output"](0)
    executor["run"]()
    np.testing.assert_array_equal(executor["get_output"](0), module.run({"x": x})["y"])
    assert (executor["get_num_inputs"](), executor["get_num_outputs"]()) == (1, 1)


def test_an_executor_keeps_its_module_alive():
    executor = programs.two_affines()["default"](cpu())
    executor.run(x=np.ones(4, np.float32))
    assert executor.get_output(0).shape == (4,)


def test_the_source_of_a_region_can_be_read():
    module = programs.two_affines()
    assert "model_first_init" in module.source("model_first")
    assert ".abi_version = PARTITA_ABI_VERSION" in module.source()
    with pytest.raises(KeyError):
        module.source("nobody")


def test_a_region_that_disagrees_with_its_module_is_refused():
    module = programs.two_affines()
    regions = (replace(module.program.regions[0], has_free=True), module.program.regions[1])
    with pytest.raises(ParameterError, match="disagree about its init or its free"):
        programs.two_affines(program=replace(module.program, regions=regions))
