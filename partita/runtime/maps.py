"""Maps as Python has them. The code knows tensors alone: a dict goes in as its keys and its values, and a list of dicts
is made of a tensor with a row for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from partita.errors import ExecutionError, InputError
from partita.runtime.data_types import STRING, numpy_dtype
from partita.runtime.program import Program


def taken_apart(program: Program, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs with two arrays for each dict.

    Raises:
        InputError: what should be a map is none, or its keys or values are of another type.
    """
    result = dict(inputs)
    types = {program.values[index].name: program.values[index].data_type for index in program.inputs}
    for name, labels in program.maps:
        if labels is not None or name not in result:
            continue
        given = result.pop(name)
        if not isinstance(given, Mapping):
            raise InputError(f"input {name!r} is a {type(given).__name__}, expected a dict")
        for part, content in (("keys", given.keys()), ("values", given.values())):
            data_type = types[f"{name}.{part}"]
            try:
                array = np.array(list(content), object if data_type == STRING else numpy_dtype(data_type))
            except (TypeError, ValueError, OverflowError) as error:
                raise InputError(f"the {part} of input {name!r} do not fit: {error}") from error
            result[f"{name}.{part}"] = array
    return result


def put_together(program: Program, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs, those of ZipMap as lists of dicts.

    Raises:
        ExecutionError: there are not as many values as keys.
    """
    result = dict(outputs)
    for name, labels in program.maps:
        if labels is None:
            continue
        rows = outputs[name]
        if rows.shape[1] != len(labels):
            raise ExecutionError(f"output {name!r}: {rows.shape[1]} values for {len(labels)} keys")
        result[name] = [dict(zip(labels, row, strict=True)) for row in rows.tolist()]
    return result
