"""`partita verify`: a compiled model against the ONNX model it came from, run by somebody else."""

from __future__ import annotations

import argparse
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from partita.cli.inputs import add_input_options, inputs_for
from partita.cli.options import Commands, add_command, add_compile_options, add_json_option, loaded, runnable
from partita.cli.text import columns, print_json, progress, tensors
from partita.errors import ExecutionError
from partita.runtime.table import Array

EXAMPLES = """\
  partita verify model.onnx model.so
  partita verify model.onnx -t dnnl                     compiles it first
  partita verify model.onnx model.so --against reference --tolerance 1e-5
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "verify",
        "compare a compiled model with its ONNX model",
        "Runs the ONNX model elsewhere and the compiled one here, on the same inputs, and prints the largest error of "
        "each output. Exit code 1 if one is above the tolerance, or of another type or shape.",
        EXAMPLES,
    )
    parser.add_argument("model", type=Path, help="the ONNX model")
    parser.add_argument("artifact", type=Path, nargs="?", help="the compiled model (default: compile MODEL now)")
    parser.add_argument(
        "--against",
        choices=["auto", "onnxruntime", "reference"],
        default="auto",
        help="who else runs it: ONNX Runtime, or ONNX's reference evaluator, which is slow (default: ONNX Runtime "
        "if it is installed)",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="the largest error allowed, relative to the output's largest magnitude (default: 1e-4, for 16-bit floats "
        "1e-2, for smaller ones 0.25; integers must be equal)",
    )
    add_input_options(parser)
    add_compile_options(parser)
    add_json_option(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    module = loaded(options.artifact, options.threads) if options.artifact else runnable(options, options.model)
    inputs = inputs_for(module.program, options)
    peer = options.against
    if peer == "auto":
        peer = "onnxruntime" if importlib.util.find_spec("onnxruntime") else "reference"
    with progress(f"running {options.model.name} with {peer}"):
        expected = _run_elsewhere(peer, options.model, inputs)
    with progress(f"running {module.program.symbol}"):
        outputs = module.run(inputs)
    ours, theirs = dict(tensors(outputs)), dict(tensors(expected))
    results = [compare(name, ours.get(name), theirs.get(name), options.tolerance) for name in {**ours, **theirs}]
    passed = all(result["passed"] for result in results)
    if options.json:
        print_json({"against": peer, "passed": passed, "outputs": [_finite(result) for result in results]})
    else:
        rows = [(r["name"], r["problem"] or _text(r), "ok" if r["passed"] else "FAILED") for r in results]
        print(columns(rows))
        print(f"{'verified' if passed else 'NOT verified'} against {peer}")
    return 0 if passed else 1


def compare(name: str, ours: Array | None, theirs: Array | None, tolerance: float | None) -> dict[str, Any]:
    """The largest error of an output, absolute and relative to the largest finite magnitude expected. What is not
    finite must be the same in both; None is what is absent."""
    allowed = tolerance if tolerance is not None else 0.0 if theirs is None else default_tolerance(theirs.dtype)
    result: dict[str, Any] = {
        "name": name,
        "error": math.inf,
        "relative": math.inf,
        "tolerance": allowed,
        "problem": "",
    }
    if ours is None or theirs is None:
        result["problem"] = "absent, but not expected to be" if ours is None else "expected to be absent"
    elif ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        result["problem"] = f"{ours.dtype}{list(ours.shape)}, expected {theirs.dtype}{list(theirs.shape)}"
    else:
        kind = np.complex128 if theirs.dtype.kind == "c" else np.float64
        left, right = ours.astype(kind), theirs.astype(kind)
        finite = np.isfinite(right)
        if not np.array_equal(left[~finite], right[~finite], equal_nan=True) or not np.isfinite(left[finite]).all():
            result["problem"] = "not finite in other places than expected"
        else:
            result["error"] = float(np.abs(left[finite] - right[finite]).max(initial=0.0))
            largest = float(np.abs(right[finite]).max(initial=0.0))
            result["relative"] = result["error"] / (largest or 1.0)
    result["passed"] = result["relative"] <= allowed
    return result


def default_tolerance(dtype: np.dtype[Any]) -> float:
    """What different orders of summation explain, by the output's type; integers must be equal."""
    if dtype.kind in "iub" or "int" in dtype.name:
        return 0.0
    return 1e-4 if dtype.itemsize >= 4 else 1e-2 if dtype.itemsize == 2 else 0.25


def _run_elsewhere(peer: str, path: Path, inputs: dict[str, Array]) -> dict[str, Any]:
    try:
        if peer == "onnxruntime":
            return _onnxruntime(path, inputs)
        from onnx.reference import ReferenceEvaluator

        evaluator: Any = ReferenceEvaluator(str(path))
        results = evaluator.run(None, inputs)
        return {
            name: result if isinstance(result, list) or result is None else np.asarray(result)
            for name, result in zip(evaluator.output_names, results, strict=True)
        }
    except Exception as error:
        what = str(error).strip().splitlines()[0]
        raise ExecutionError(f"{peer} cannot run {path}: {type(error).__name__}: {what}") from error


def _onnxruntime(path: Path, inputs: dict[str, Array]) -> dict[str, Any]:
    onnxruntime: Any = importlib.import_module("onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _text(result: dict[str, Any]) -> str:
    return f"largest error {result['error']:.3g}, relative {result['relative']:.3g} (allowed {result['tolerance']:.3g})"


def _finite(result: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinities: what is not finite is null."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in result.items()}
