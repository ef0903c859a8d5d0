"""A parameter of every element type goes through compiling, exporting, loading and running unchanged."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_models import compiled, identity_model

import partita
from partita.errors import ModelError, UnsupportedOperatorError

NUMBERS = {
    name: number
    for name, number in TensorProto.DataType.items()
    if name not in ("UNDEFINED", "STRING", "COMPLEX64", "COMPLEX128") and "FLOAT6" not in name.replace("FLOAT64", "")
}
"""Every type but strings, which have tests of their own; complex numbers, which no C backend takes; and FLOAT6, which
is too new for Partita."""


def every_pattern(data_type: int) -> np.ndarray:
    """Elements of the type, of shape (3, 2, 4): random bytes, NaNs and infinities among them."""
    dtype = helper.tensor_dtype_to_np_dtype(data_type)
    random = np.random.default_rng(data_type)
    if dtype.name.startswith(("bool", "int2", "uint2", "int4", "uint4", "float4")):
        return random.integers(0, 2, (3, 2, 4)).astype(dtype)
    return np.frombuffer(random.bytes(24 * dtype.itemsize), dtype).reshape(3, 2, 4)


@pytest.mark.parametrize("placement", ["inside", "beside"])
@pytest.mark.parametrize("name", NUMBERS)
def test_every_element_type_comes_through_unchanged(name, placement, tmp_path):
    parameter = every_pattern(NUMBERS[name])
    given = parameter[0, 0, :2]
    module = compiled(identity_model(NUMBERS[name], parameter))
    loaded = partita.load_module(module.export_library(tmp_path / "m.so", placement))
    for runnable in (module, loaded):
        results = runnable.run({"x": given})
        assert {array.dtype for array in results.values()} == {parameter.dtype}
        assert results["same"].shape == (3, 2, 4) and results["same"].tobytes() == parameter.tobytes()
        assert results["flat"].shape == (3, 8) and results["flat"].tobytes() == parameter.tobytes()
        assert results["y"].tobytes() == given.tobytes()


@pytest.mark.parametrize("name", ["COMPLEX64", "COMPLEX128"])
def test_types_that_no_code_takes_are_refused_with_every_node(name):
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(name))
    parameter = np.full((3, 2), 1j, dtype)
    with pytest.raises(UnsupportedOperatorError, match=r"3 node\(s\)") as error:
        compiled(identity_model(TensorProto.DataType.Value(name), parameter))
    assert name.lower() in str(error.value)


@pytest.mark.parametrize("number", [0, 27, 28, 99])
def test_types_that_partita_does_not_know_are_refused(number):
    model = identity_model(TensorProto.FLOAT, np.zeros((3, 2), np.float32))
    model.graph.initializer[0].data_type = number
    with pytest.raises(ModelError, match="'w'"):
        compiled(model)
