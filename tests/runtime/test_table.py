"""The parameter table: every element type, alignment, and the memory that writing takes."""

from __future__ import annotations

import io
import tracemalloc

import ml_dtypes
import numpy as np
import programs
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load_file

from partita.errors import ParameterError
from partita.runtime import MetadataModule, Program, load_module
from partita.runtime.data_types import DataType, data_type_of, element_bytes, numpy_dtype, type_name
from partita.runtime.table import ALIGNMENT, lay_out_arrays, view_table, write_table


def table_of(parameters, folder):
    """Writes the parameters' file, and returns its path and layout."""
    path, layout = folder / "table.safetensors", lay_out_arrays(parameters)
    with path.open("wb") as file:
        write_table(file, layout, parameters)
    return path, layout


def random(dtype, shape, seed=0):
    numbers = np.random.default_rng(seed).integers(0, 2, shape)
    return numbers.astype(dtype)


@pytest.mark.parametrize("data_type", DataType, ids=lambda member: member.name)
def test_every_element_type_is_kept(data_type, tmp_path):
    try:
        dtype = numpy_dtype(data_type)
    except ParameterError:
        pytest.skip(f"this ml_dtypes lacks {data_type.name}")
    parameters = {
        "a": random(dtype, (3, 5)),
        "b": random(dtype, ()),
        "c": random(dtype, (0, 2)),
        "d": random(dtype, (7,)),
    }
    path, layout = table_of(parameters, tmp_path)
    assert path.stat().st_size == layout.file_bytes
    data = np.fromfile(path, np.uint8)[len(layout.header) :]
    for name, view in view_table(data, layout.entries).items():
        assert view.dtype == parameters[name].dtype and view.shape == parameters[name].shape
        assert view.tobytes() == parameters[name].tobytes()
    assert set(load_file(path)) >= set(parameters)


@pytest.mark.parametrize("data_type", DataType, ids=lambda member: member.name)
def test_element_types_agree_with_onnx(data_type):
    assert TensorProto.DataType.Name(data_type) == data_type.name
    try:
        dtype = numpy_dtype(data_type)
    except ParameterError:
        pytest.skip(f"this ml_dtypes lacks {data_type.name}")
    assert data_type_of(dtype) == data_type
    assert element_bytes(data_type) == dtype.itemsize
    assert type_name(data_type) == dtype.name
    if data_type <= DataType.INT2:
        assert helper.tensor_dtype_to_np_dtype(data_type) == dtype


@pytest.mark.parametrize("data_type", [0, 8, 999])
def test_types_without_a_size_are_refused(data_type):
    assert element_bytes(data_type) == 0
    with pytest.raises(ParameterError):
        numpy_dtype(data_type)


def test_strings_are_refused():
    with pytest.raises(ParameterError, match="not an ONNX element type"):
        lay_out_arrays({"s": np.array(["a"])})


def test_entries_and_data_are_aligned():
    layout = lay_out_arrays({str(size): np.zeros(size, np.int8) for size in range(1, 200)})
    assert len(layout.header) % ALIGNMENT == 0
    assert all(entry.offset % ALIGNMENT == 0 for entry in layout.entries)


def test_arrays_of_any_order_are_written_dense(tmp_path):
    parameters = {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "swapped": np.arange(6).astype(">i4"),
        "reversed": np.arange(6, dtype=np.int64)[::-1],
    }
    path, _ = table_of(parameters, tmp_path)
    for name, array in load_file(path).items():
        if name in parameters:
            np.testing.assert_array_equal(array, parameters[name])


def test_writing_takes_little_memory():
    class Void(io.RawIOBase):
        def write(self, data):
            return len(data)

    parameters = {"large": np.zeros(1 << 24, np.float32), "swapped": np.zeros(4, ">f4")}
    layout = lay_out_arrays(parameters)
    tracemalloc.start()
    write_table(Void(), layout, parameters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_table_with_no_names_but_odd_types_survives_an_artifact(tmp_path):
    program = Program("odd", (), (), (), (), ())
    table = {"i4": np.array([-8, 7], ml_dtypes.int4), "c": np.array([1 + 2j]), "empty": np.zeros((0,), np.float16)}
    loaded = load_module(MetadataModule(program, [], table, build=programs.FAST).export_library(tmp_path / "odd.so"))
    for name, array in table.items():
        assert loaded.params[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded.params[name], array)
    assert loaded.run({}) == {}
