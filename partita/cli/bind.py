"""`partita bind`: other weights into a compiled model, with no C compiler."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from partita.cli.options import Commands, add_command
from partita.cli.text import printable, progress, size
from partita.errors import ParameterError
from partita.runtime import rebind_artifact
from partita.runtime.table import Array

EXAMPLES = """\
  partita bind model.so finetuned.safetensors
  partita bind model.so finetuned.npz -o model-v2.so
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "bind",
        "put other weights into a compiled model",
        "Computes a compiled model's table from other weights: the original parameters, by their names in the ONNX "
        "model. Runs no compiler. Weights that change a value the code depends on are refused.",
        EXAMPLES,
    )
    parser.add_argument("artifact", type=Path, help="the compiled model")
    parser.add_argument("weights", type=Path, help="a .safetensors or .npz file")
    parser.add_argument("-o", "--output", type=Path, help="where the result goes (default: into the compiled model)")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    with progress(f"binding {options.weights.name}"):
        written = rebind_artifact(options.artifact, read_weights(options.weights), options.output)
    print(f"{printable(str(options.output or options.artifact))}: {size(written.stat().st_size)}")
    return 0


def read_weights(path: Path) -> dict[str, Array]:
    """Arrays by name.

    Raises:
        ParameterError: the file is of neither format.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            weights: dict[str, Array] = load_file(path)
            return weights
        content = np.load(path, allow_pickle=False)
        return {name: content[name] for name in content.files}
    except OSError:
        raise
    except Exception as error:
        raise ParameterError(f"{path}: neither .safetensors nor .npz with arrays by name: {error}") from error
