"""Calling a model from Python: what inputs may be, what comes out, what is refused."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from dataclasses import replace

import numpy as np
import programs
import pytest

from partita.errors import ExecutionError, InputError
from partita.runtime import Buffer, MetadataModule, Program, Region, Storage, Value, cpu
from partita.runtime.executor import Device

X = np.arange(4, dtype=np.float32)


@pytest.fixture(scope="module")
def module():
    return programs.two_affines()


@pytest.fixture(scope="module")
def dynamic():
    return programs.dynamic()


def expected(module, x=X):
    return programs.affine(programs.affine(x, module.params), module.params, "second")


def test_a_model_computes(module):
    np.testing.assert_allclose(module.run({"x": X})["y"], expected(module), rtol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        np.repeat(X, 2)[::2],
        X[::-1].copy()[::-1],
        X.astype(">f4"),
        np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view(np.float32),
        np.broadcast_to(X, (4,)),
    ],
    ids=["strided", "reversed", "swapped", "misaligned", "read-only"],
)
def test_any_array_of_the_right_type_is_read(module, given):
    np.testing.assert_allclose(module.run({"x": given})["y"], expected(module), rtol=1e-6)


def test_all_problems_with_inputs_are_told_at_once(module):
    with pytest.raises(InputError) as error:
        module.run({"y": X, "z": X})
    for part in ("'y' is not one", "'z' is not one", "'x' is missing: expected float32(4,)"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (X.astype(np.float64), r"float64\(4,\), expected float32\(4,\)"),
        (X.reshape(2, 2), r"float32\(2, 2\), expected float32\(4,\)"),
        (X[:3], "axis 0 has size 3, expected 4"),
        (np.array(["a"] * 4), "expected float32"),
        (None, "NoneType, expected float32"),
        (object(), "expected float32"),
    ],
    ids=["type", "rank", "size", "strings", "none", "object"],
)
def test_an_input_that_does_not_fit_is_refused(module, given, message):
    with pytest.raises(InputError, match=message):
        module.run({"x": given})
    module.run({"x": X})


def test_outputs_are_new_arrays_each_time(module):
    first = module.run({"x": X})["y"]
    kept = first.copy()
    module.run({"x": X + 1})
    np.testing.assert_array_equal(first, kept)


def test_a_symbolic_size_comes_from_the_input(dynamic):
    for rows in (2, 7, 1, 0, 7, 100):
        x = np.random.default_rng(rows).standard_normal((rows, 3), dtype=np.float32)
        np.testing.assert_array_equal(dynamic.run({"x": x})["y"], x + x)
    assert dynamic.arena_bytes >= 1200


def test_a_region_alone_takes_its_sizes_from_its_inputs(dynamic):
    x = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(dynamic.get_function("double_rows")(x)[0], x + x)


def test_sizes_that_contradict_are_refused_with_both():
    program = Program(
        symbol="pair",
        values=(Value("a", 1, (-1,), 0), Value("b", 1, (2, -1), 1)),
        inputs=(0, 1),
        outputs=(),
        buffers=(Buffer(Storage.ARGUMENT, 0, 0, 0), Buffer(Storage.ARGUMENT, 0, 0, 1)),
        regions=(),
        symbols=(programs.Symbol("N"),),
    )
    module = MetadataModule(program, [], {}, build=programs.FAST)
    module.run({"a": np.zeros(3, np.float32), "b": np.zeros((2, 3), np.float32)})
    message = "input 'b': axis 1 has size 4, but 'N' is 3 by axis 0 of input 'a'"
    with pytest.raises(InputError, match=message):
        module.run({"a": np.zeros(3, np.float32), "b": np.zeros((2, 4), np.float32)})


def test_a_derived_size_that_overflows_is_refused(dynamic):
    huge = replace(dynamic.program, derived=("partita_multiply(extents[0], INT64_MAX)", "extents[1]"))
    module = MetadataModule(huge, dynamic.imported_modules, {}, build=programs.FAST)
    with pytest.raises(InputError, match="negative size"):
        module.run({"x": np.zeros((2, 3), np.float32)})


def test_an_arena_beyond_memory_is_refused(dynamic):
    huge = replace(dynamic.program, derived=("extents[0]", "partita_multiply(extents[0], INT64_C(1) << 50)"))
    module = MetadataModule(huge, dynamic.imported_modules, {}, build=programs.FAST)
    with pytest.raises(ExecutionError, match="no memory for an arena"):
        module.run({"x": np.zeros((2, 3), np.float32)})


def test_a_size_that_depends_on_data_is_learnt_from_the_region():
    module = programs.data_dependent()
    for x in ([1, -2, 3, 0, 5, -1], [-1] * 6, [1] * 6):
        results = module.run({"x": np.array(x, np.float32)})
        positive = [item for item in x if item > 0]
        assert results["p"].tolist() == positive
        assert results["n"].tolist() == [-item for item in positive]


ALIASES = Program(
    symbol="aliases",
    values=(Value("x", 1, (4,), 0), Value("c", 1, (2,), 1), Value("s", 1, (), 2)),
    inputs=(0, 2),
    outputs=(0, 1, 0),
    buffers=(Buffer(Storage.ARGUMENT, 0, 0, 0), Buffer(Storage.CONSTANT, 0, 0, 0), Buffer(Storage.ARGUMENT, 0, 0, 1)),
    regions=(),
)


def test_an_output_may_be_an_input_or_a_constant_or_another_output():
    table = {"c": np.array([8, 9], np.float32)}
    module = MetadataModule(ALIASES, [], table, build=programs.FAST)
    results = module.run({"x": X, "s": np.float32(1)})
    assert results["x"].tolist() == X.tolist() and results["c"].tolist() == [8, 9]
    results["x"][:] = results["c"][:] = 0
    assert X[3] == 3 and table["c"].tolist() == [8, 9]


def test_an_interpreted_region_runs_on_the_engine():
    module = programs.interpreted()
    assert module.run({"x": X})["y"].tolist() == [0, 1, 4, 9]
    assert module.get_function("multiply")(X)[0].tolist() == [0, 1, 4, 9]


def with_engines(module, **engines):
    return MetadataModule(module.program, module.imported_modules, module.params, build=programs.FAST, engines=engines)


def test_an_engine_that_fails_is_told_with_its_region():
    def broken(model):
        def run(inputs):
            raise ValueError("out of steam")

        return run

    made = programs.interpreted(engine="broken")
    module = with_engines(made, broken=broken)
    with pytest.raises(ExecutionError, match=r"region 'multiply'.*out of steam"):
        module.run({"x": X})


def test_an_interrupt_passes_through_an_engine():
    def interrupted(model):
        def run(inputs):
            raise KeyboardInterrupt

        return run

    made = programs.interpreted(engine="slow")
    module = with_engines(made, slow=interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.run({"x": X})


def test_an_unknown_engine_is_told():
    with pytest.raises(ExecutionError, match="no engine 'nobody': there are onnxruntime, reference"):
        programs.interpreted(engine="nobody").run({"x": X})


def test_an_engine_that_computes_another_shape_is_refused():
    made = programs.interpreted(engine="wide")
    module = with_engines(made, wide=lambda model: lambda inputs: [np.zeros(9, np.float32)])
    with pytest.raises(ExecutionError, match=r"'y' with shape \(9,\), expected \(4,\)"):
        module.run({"x": X})


def test_an_engine_may_decide_the_size():
    program = Program(
        symbol="free",
        values=(Value("x", 1, (4,), 0), Value("y", 1, (-1,), 1)),
        inputs=(0,),
        outputs=(1,),
        buffers=(Buffer(Storage.ARGUMENT, 0, 0, 0), Buffer(Storage.HEAP, 0, 1, -1, -1)),
        regions=(Region("multiply", "reference", ("w",), (0,), (1,), interpreted=True),),
        symbols=(programs.Symbol("K", data_dependent=True),),
    )
    made = programs.interpreted(engine="filter")
    engines = {"filter": lambda model: lambda inputs: [inputs[0][inputs[0] > 1]]}
    module = MetadataModule(program, made.imported_modules, made.params, build=programs.FAST, engines=engines)
    assert module.run({"x": X})["y"].tolist() == [2, 3]
    assert module.run({"x": X - 5})["y"].tolist() == []


FAILING = """
#include "partita.h"
partita_status failing(const partita_call *call) {
    const int32_t *index = call->arguments[0];
    if (*index > 3)
        return call->services->fail(call, PARTITA_ERROR_INDEX, "index %d is outside of %d", *index, 4);
    *(int32_t *)call->arguments[1] = *index;
    return PARTITA_OK;
}
"""


def test_a_region_that_fails_is_told_and_the_model_goes_on():
    program = Program(
        symbol="gather",
        values=(Value("i", 6, (), 0), Value("o", 6, (), 1)),
        inputs=(0,),
        outputs=(1,),
        buffers=(Buffer(Storage.ARGUMENT, 0, 0, 0, 4), Buffer(Storage.ARGUMENT, 0, 0, 1, 4)),
        regions=(Region("failing", "cpu", (), (0,), (1,)),),
    )
    module = MetadataModule(program, [programs.c_module("failing", FAILING)], {}, build=programs.FAST)
    with pytest.raises(ExecutionError, match="region 'failing': index 9 is outside of 4"):
        module.run({"i": np.int32(9)})
    assert module.run({"i": np.int32(3)})["o"] == 3


def test_after_close_everything_is_refused():
    module = programs.two_affines()
    function = module.get_function("model_first")
    module.run({"x": X})
    module.close()
    module.close()
    for call in (lambda: module.run({"x": X}), lambda: function(X), lambda: module.get_function("model_first")):
        with pytest.raises(ExecutionError, match="closed"):
            call()


def test_an_instance_is_given_back_without_the_garbage_collector():
    made = programs.interpreted()
    instance = made.open_instance()
    instance.run({"x": X})
    reference = weakref.ref(instance)
    gc.disable()
    try:
        del instance
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_the_numbers(threads):
    made = programs.two_affines(count=10_000)
    x = np.random.default_rng(0).standard_normal(10_000, dtype=np.float32)
    instance = made.open_instance(threads)
    results = [instance.run({"x": x})["y"] for _ in range(200)]
    assert all(np.array_equal(results[0], result) for result in results)
    np.testing.assert_allclose(results[0], expected(made, x), rtol=1e-5, atol=1e-6)


def test_eight_callers_share_an_instance(module):
    failures = []

    def call(seed):
        x = np.full(4, seed, np.float32)
        for _ in range(200):
            if not np.allclose(module.run({"x": x})["y"], expected(module, x), rtol=1e-5):
                failures.append(seed)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_an_unknown_device_is_refused(module):
    with pytest.raises(InputError, match="'gpu'"):
        module["default"](Device("gpu"))
    with pytest.raises(KeyError):
        module["other"]
    with pytest.raises(InputError, match="no input 'q'"):
        module["default"](cpu())["set_input"]("q", X)


def test_a_forked_process_runs_the_model():
    module = programs.two_affines(count=10_000)
    instance = module.open_instance(4)
    x = np.ones(10_000, np.float32)
    before = instance.run({"x": x})["y"]
    child = os.fork()
    if child == 0:
        same = np.array_equal(instance.run({"x": x})["y"], before)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_number_of_threads_comes_from_the_environment(monkeypatch):
    text = """
#include "partita.h"
partita_status threads(const partita_call *call) {
    *(int32_t *)call->arguments[0] = call->services->threads;
    return PARTITA_OK;
}
"""
    program = Program(
        symbol="asks",
        values=(Value("n", 6, (), 0),),
        inputs=(),
        outputs=(0,),
        buffers=(Buffer(Storage.ARGUMENT, 0, 0, 0, 4),),
        regions=(programs.Region("threads", "cpu", (), (), (0,)),),
    )
    module = MetadataModule(program, [programs.c_module("threads", text)], {}, build=programs.FAST)
    monkeypatch.setenv("PARTITA_NUM_THREADS", "3")
    assert module.open_instance().run({})["n"] == 3
    assert module.open_instance(2).run({})["n"] == 2
    monkeypatch.setenv("PARTITA_NUM_THREADS", "")
    assert 1 <= module.open_instance().run({})["n"] <= len(os.sched_getaffinity(0))


def test_the_number_of_threads_is_the_cores_this_process_may_use(module, monkeypatch):
    monkeypatch.delenv("PARTITA_NUM_THREADS", raising=False)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        instance = module.open_instance()
        assert instance.thread_count() == 1
        instance.close()
    finally:
        os.sched_setaffinity(0, cores)
