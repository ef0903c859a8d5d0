"""Inputs of a run: arrays from .npy and .npz files, and seeded random ones for the rest."""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from partita.cli.options import Shape, positive
from partita.errors import InputError
from partita.runtime import Kind, Program, Value
from partita.runtime.data_types import STRING, numpy_dtype
from partita.runtime.table import Array

_LARGEST = 1 << 34  # bytes: a random input larger than this is a mistake in a shape


def add_input_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("inputs")
    group.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE.npy",
        help="an input's array; or FILE.npz with arrays by name; or FILE.npy where the model has one input. "
        "Inputs not given are random",
    )
    group.add_argument("--seed", type=int, default=0, help="of the random inputs (default: %(default)s)")
    group.add_argument("--threads", type=positive, help="how many to run on (default: PARTITA_NUM_THREADS, or all)")


def inputs_for(program: Program, options: argparse.Namespace) -> dict[str, Any]:
    """Every input of a model: from files, or random. Floats are normal; integers and bools are 0 or 1, which index
    nearly anything; optional values are absent. Symbolic sizes are what --shape or the files say, else 1."""
    given = read_inputs(program, options.input)
    shapes = dict(options.shape)
    unknown = [name for name in shapes if name not in program.input_names]
    if unknown:
        raise InputError(f"--shape names {', '.join(map(repr, unknown))}; inputs are {_names(program)}")
    sizes = _sizes(program, {name: array.shape for name, array in given.items()} | shapes)
    values = [program.values[index] for index in program.inputs]
    return {
        value.name: given[value.name] if value.name in given else _random(value, sizes, options.seed)
        for value in values
    }


def read_inputs(program: Program, words: list[str]) -> dict[str, Array]:
    """The arrays that --input names."""
    given: dict[str, Array] = {}
    for word in words:
        name, _, file = word.rpartition("=")
        content = _load(Path(file))
        if not isinstance(content, dict):
            if not name and len(program.inputs) != 1:
                raise InputError(f"{file}: for which input? Write NAME={file}; inputs are {_names(program)}")
            content = {name or program.input_names[0]: content}
        elif name:
            raise InputError(f"{word}: an .npz file holds arrays by name; give it without {name}=")
        given |= content
    unknown = [name for name in given if name not in program.input_names]
    if unknown:
        raise InputError(f"the files hold {', '.join(map(repr, unknown))}; inputs are {_names(program)}")
    return given


def _load(path: Path) -> Any:
    try:
        content = np.load(path, allow_pickle=False)
        return content if isinstance(content, np.ndarray) else {name: content[name] for name in content.files}
    except (ValueError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: no .npy or .npz file of plain arrays: {error}") from error


def _names(program: Program) -> str:
    return ", ".join(map(repr, program.input_names)) or "none"


def _sizes(program: Program, shapes: dict[str, Shape]) -> dict[int, int]:
    """Symbolic sizes, as extents number them, from the shapes given."""
    sizes: dict[int, int] = {}
    for index in program.inputs:
        value = program.values[index]
        shape = shapes.get(value.name, ())
        if shape and len(shape) != len(value.shape):
            raise InputError(f"input {value.name!r} is {program.shape_text(value)}, not of rank {len(shape)}")
        for extent, size in zip(value.shape, shape, strict=False):
            if extent < 0 and isinstance(size, int):
                sizes.setdefault(extent, size)
    return sizes


def _random(value: Value, sizes: dict[int, int], seed: int) -> Array | None:
    """Random numbers of a value's type; nothing for an optional one."""
    if value.kind.is_optional:
        return None
    if value.kind is not Kind.TENSOR:
        raise InputError(
            f"input {value.name!r} is a sequence, which files do not hold; call the model from Python or C"
        )
    shape = tuple(extent if extent >= 0 else sizes.get(extent, 1) for extent in value.shape)
    is_string = value.data_type == STRING
    dtype = np.dtype(np.int64) if is_string else numpy_dtype(value.data_type)
    if any(size < 0 for size in shape) or dtype.itemsize * np.prod(shape, dtype=float) > _LARGEST:
        raise InputError(f"a random input {value.name!r} of shape {shape} is not possible")
    # Each input has numbers of its own, whatever the order of the inputs.
    generator = np.random.default_rng([seed & 0xFFFFFFFF, zlib.crc32(value.name.encode(errors="replace"))])
    if is_string:
        return generator.integers(0, 100, shape).astype(str).astype(object)
    if dtype.kind in "iub" or dtype.name in ("int4", "uint4", "int2", "uint2"):
        return generator.integers(0, 2, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)
