"""The short way through a call, and arrays of other libraries."""

from __future__ import annotations

import threading

import numpy as np
import programs
import pytest

from partita.errors import ExecutionError, InputError
from partita.runtime import cpu, plain_call

X = np.arange(4, dtype=np.float32)


@pytest.fixture(scope="module")
def module():
    return programs.two_affines()


def expected(module, x=X):
    return programs.affine(programs.affine(x, module.params), module.params, "second")


class Tensor:
    """An array of another library: all that it offers is DLPack. Counts how often it was asked for."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.asked = 0

    def __dlpack__(self, **options):
        self.asked += 1
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class Elsewhere(Tensor):
    """A tensor on a device."""

    def __dlpack__(self, **options):
        raise BufferError("it lies on device 7")

    def __array__(self, *_, **__):
        raise TypeError("it lies on a device")


@pytest.mark.parametrize("x", [X, X[::-1]], ids=["dense", "strided"])
def test_tensors_come_by_dlpack(module, x):
    tensor = Tensor(x)
    np.testing.assert_allclose(module.run({"x": tensor})["y"], expected(module, x), rtol=1e-6)
    assert tensor.asked


def test_a_tensor_is_read_where_it_lies(module):
    """`run` writes down the address of the memory that the tensor handed out."""
    memory = X.copy()
    instance = module.open_instance()
    instance.run({"x": Tensor(memory)})
    assert instance._inputs[0].data == memory.ctypes.data
    instance.close()


def test_an_executor_reads_a_set_tensor_when_it_runs(module):
    memory = X.copy()
    executor = module["default"](cpu())
    executor.set_input("x", Tensor(memory))
    memory += 1
    executor.run()
    np.testing.assert_allclose(executor.get_output(0), expected(module, X + 1), rtol=1e-6)


def test_torch_tensors(module):
    torch = pytest.importorskip("torch")
    np.testing.assert_allclose(module.run({"x": torch.from_numpy(X)})["y"], expected(module), rtol=1e-6)
    with pytest.raises(InputError, match=r"'x' is a Tensor .*grad.*expected float32"):
        module.run({"x": torch.from_numpy(X).requires_grad_()})
    with pytest.raises(InputError, match="'x' is float64"):
        module.run({"x": torch.from_numpy(X).double()})


def test_a_tensor_on_a_device_is_refused_with_its_reason(module):
    with pytest.raises(InputError, match=r"'x' is a Elsewhere \(it lies on device 7\), expected float32"):
        module.run({"x": Elsewhere(X)})


def test_inputs_of_every_kind_take_turns(module):
    """The short way and the long one leave nothing behind for each other."""
    kinds = [X, X[::-1], np.broadcast_to(X, (4,)), Tensor(X), X.astype(">f4"), X]
    for _ in range(3):
        for given in kinds:
            plain = given.array if isinstance(given, Tensor) else given
            np.testing.assert_allclose(module.run({"x": given})["y"], expected(module, plain), rtol=1e-6)
        for bad in ({}, {"x": X, "y": X}, {"x": X[:3]}, {"x": X.astype(np.float64)}, {"z": X}):
            with pytest.raises(InputError):
                module.run(bad)


def test_outputs_are_the_caller_s_own(module):
    results = [module.run({"x": X + n})["y"] for n in range(3)]
    for n, result in enumerate(results):
        np.testing.assert_allclose(result, expected(module, X + n), rtol=1e-6)


def test_a_closed_instance_refuses_plain_arrays(module):
    instance = module.open_instance()
    instance.run({"x": X})
    instance.close()
    with pytest.raises(ExecutionError, match="closed"):
        instance.run({"x": X})


def test_inputs_live_until_the_call_is_over(module):
    """A caller's dictionary may change, or lose its arrays, while C reads."""
    shared = {"x": X.copy()}
    stop = threading.Event()

    def replaces() -> None:
        while not stop.is_set():
            shared["x"] = X.copy()

    thread = threading.Thread(target=replaces)
    thread.start()
    try:
        for _ in range(2000):
            np.testing.assert_allclose(module.run(shared)["y"], expected(module), rtol=1e-6)
    finally:
        stop.set()
        thread.join()


def test_without_the_short_way_the_numbers_are_the_same(module, monkeypatch):
    assert plain_call.IS_AVAILABLE
    monkeypatch.setattr(plain_call, "IS_AVAILABLE", False)
    instance = module.open_instance()
    assert instance._plain is None
    np.testing.assert_array_equal(instance.run({"x": X})["y"], module.run({"x": X})["y"])
    instance.close()
