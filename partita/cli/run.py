"""`partita run`: a model on inputs, and how long it takes."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from partita.cli.inputs import add_input_options, inputs_for
from partita.cli.options import Commands, add_command, add_compile_options, add_json_option, positive, runnable
from partita.cli.text import columns, duration, print_json, progress, tensors
from partita.runtime.table import Array

EXAMPLES = """\
  partita run model.so                                  on random inputs
  partita run model.so -i image.npy -o result.npz       on yours
  partita run model.so -i a=a.npy -i b=b.npy --repeat 100
  partita run model.so -s x=8,128                       sizes of random inputs where the model leaves them open
  partita run model.onnx -t dnnl                        compiled first, kept nowhere
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "run",
        "run a model on files or random inputs",
        "Runs a compiled model, or an ONNX model that it compiles first, and prints a summary of each output.",
        EXAMPLES,
    )
    parser.add_argument("model", type=Path, help="a compiled model, or an ONNX model")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.npz", help="write the outputs, by name")
    parser.add_argument(
        "--repeat", type=positive, default=1, metavar="N", help="run N times after one to warm up, for the median time"
    )
    add_input_options(parser)
    add_compile_options(parser)
    add_json_option(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    module = runnable(options, options.model)
    inputs = inputs_for(module.program, options)
    with progress(f"running {module.program.symbol}"):
        outputs = module.run(inputs)  # the first run initializes
        times = []
        for _ in range(options.repeat):
            start = time.perf_counter()
            outputs = module.run(inputs)
            times.append(time.perf_counter() - start)
    if options.output:
        _write(options.output, outputs)
    timing = {"repeat": len(times), "median": statistics.median(times), "fastest": min(times)}
    if options.json:
        print_json(
            {
                "inputs": {name: _summary(array) for name, array in tensors(inputs)},
                "outputs": {name: _summary(array) for name, array in tensors(outputs)},
                "seconds": timing,
            }
        )
        return 0
    print(columns(("input", name, *_cells(array)) for name, array in tensors(inputs)))
    print(columns(("output", name, *_cells(array)) for name, array in tensors(outputs)))
    several = f" (median of {len(times)}, fastest {duration(timing['fastest'])})" if len(times) > 1 else ""
    print(f"{duration(timing['median'])} a run{several}")
    return 0


def _write(path: Path, outputs: dict[str, Any]) -> None:
    with path.open("wb") as file:  # a file, for savez adds a suffix to a name
        np.savez(file, allow_pickle=False, **dict(tensors(outputs)))


def _summary(array: Array) -> dict[str, Any]:
    result: dict[str, Any] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    if array.size and array.dtype.kind != "c":
        # JSON has no infinities: what is not finite is null.
        numbers = array.astype(np.float64)
        for name, value in (("min", numbers.min()), ("max", numbers.max()), ("mean", numbers.mean())):
            result[name] = float(value) if np.isfinite(value) else None
    return result


def _cells(array: Array) -> tuple[str, str]:
    found = _summary(array)
    statistics = ", ".join(
        f"{key} {'not finite' if found[key] is None else format(found[key], '.6g')}"
        for key in ("min", "max", "mean")
        if key in found
    )
    return f"{array.dtype}{list(array.shape)}", statistics
