"""What the backend refuses, and the reason it gives; finding the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from harness import Array, array, compile_for, model, node, refusal

from partita.backends import discovery
from partita.backends.dnnl import DnnlBackend
from partita.backends.dnnl.library import DnnlLibrary, find_library
from partita.errors import BackendError

DOUBLE = np.zeros((2, 3), np.float64)
IMAGE = array(1, 3, 7, 7)

REFUSALS: dict[str, tuple[onnx.NodeProto, Mapping[str, Array | Sequence[Any]], Mapping[str, Array], str]] = {
    "operator": (node("Sin", ["x"], ["y"]), {"x": [2, 3]}, {}, "oneDNN has no primitive for Sin"),
    "double": (node("Relu", ["x"], ["y"]), {"x": DOUBLE}, {}, "'x' is float64[2, 3]; this backend computes in float32"),
    "symbol": (node("Relu", ["x"], ["y"]), {"x": ["batch", 3]}, {}, "'x' has the symbolic size batch"),
    "empty": (node("Relu", ["x"], ["y"]), {"x": [0, 3]}, {}, "'x' is empty"),
    "axes": (node("Relu", ["x"], ["y"]), {"x": [1] * 13}, {}, "'x' has 13 axes; oneDNN takes 12"),
    "conv_weights": (
        node("Conv", ["x", "w"], ["y"]),
        {"x": IMAGE, "w": array(4, 3, 3, 3)},
        {},
        "'w' is computed at run time",
    ),
    "conv_axes": (
        node("Conv", ["x", "w"], ["y"]),
        {"x": array(1, 2, 3, 3, 3, 3)},
        {"w": array(1, 2, 1, 1, 1, 1)},
        "Conv of 6 axes; oneDNN takes 3 to 5",
    ),
    "pool_in_padding": (
        node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[2, 0, 0, 0]),
        {"x": IMAGE},
        {},
        "some windows would be empty",
    ),
    "pool_ceiling": (
        node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1, count_include_pad=1),
        {"x": IMAGE},
        {},
        "count_include_pad with ceil_mode",
    ),
    "gemm_flipped": (
        node("Gemm", ["x", "w"], ["y"], transA=1),
        {"x": array(3, 2)},
        {"w": array(3, 4)},
        "transA or transB, and 'x' is computed at run time",
    ),
    "gemm_factor": (node("Gemm", ["x", "w"], ["y"], alpha=2.0), {"x": DOUBLE.astype("f"), "w": [3, 4]}, {}, "alpha"),
    "gemm_matrix": (
        node("Gemm", ["x", "w", "c"], ["y"]),
        {"x": array(2, 3)},
        {"w": array(3, 4), "c": array(2, 4)},
        "C (float32[2, 4]) is not a parameter with one number a column",
    ),
    "lrn": (node("LRN", ["x"], ["y"], size=4), {"x": IMAGE}, {}, "an even size"),
    "clip": (node("Clip", ["x", "low"], ["y"]), {"x": IMAGE, "low": []}, {}, "'low' is computed at run time"),
    "broadcast": (
        node("Sub", ["x", "z"], ["y"]),
        {"x": [3, 1], "z": [3, 5]},
        {},
        "the first operand is broadcast",
    ),
    "operands": (node("Max", ["x", "x", "x"], ["y"]), {"x": [3]}, {}, "Max of 3 operands; oneDNN takes two"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusal(case: str) -> None:
    nodes, inputs, weights, reason = REFUSALS[case]
    assert reason in refusal("dnnl", model([nodes], inputs, weights))


def test_refusal_of_positions() -> None:
    pool = node("MaxPool", ["x"], ["y", "positions"], kernel_shape=[2, 2])
    proto = model([pool], {"x": IMAGE}, {}, ["y", "positions"])
    assert "the second output" in refusal("dnnl", proto)


def test_limits_of_clip_are_baked() -> None:
    """They are in the code: other weights must have them too."""
    proto = model([node("Clip", ["x", "low"], ["y"])], {"x": IMAGE}, {"low": np.array(0, np.float32)})
    program = compile_for("dnnl", proto).program
    assert [name for name, _ in program.baked] == ["low"]
    assert program.regions[0].constants == ()


# ---------------------------------------------------------------------- the library


def test_library_of_the_environment() -> None:
    found = find_library()
    assert isinstance(found, DnnlLibrary)
    assert found.version.startswith("3.")
    assert DnnlBackend().probe().available


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARTITA_DNNL", str(tmp_path))
    return tmp_path


def write_headers(prefix: Path, major: int) -> None:
    (prefix / "include").mkdir()
    lines = [f"#define DNNL_VERSION_{name} {number}" for name, number in [("MAJOR", major), ("MINOR", 6), ("PATCH", 3)]]
    (prefix / "include" / "dnnl_version.h").write_text("\n".join(lines))


@pytest.mark.without_library
def test_missing_library(empty: Path) -> None:
    answer = DnnlBackend().probe()
    assert not answer.available
    assert "no oneDNN was found" in answer.detail
    assert "pip install onednn-devel-cpu-gomp" in answer.detail
    with pytest.raises(BackendError, match=r"'dnnl' cannot be used here: no oneDNN was found: install .*pip install"):
        compile_for("dnnl", model([node("Relu", ["x"], ["y"])], {"x": [3]}, {}))
    with pytest.raises(BackendError, match="no oneDNN was found"):
        discovery.backends(["dnnl"])


@pytest.mark.without_library
def test_library_of_another_version(empty: Path) -> None:
    write_headers(empty, 2)
    assert f"oneDNN 2.6.3 in {empty} is not version 3" in DnnlBackend().probe().detail


@pytest.mark.without_library
def test_headers_without_library(empty: Path) -> None:
    write_headers(empty, 3)
    assert "has headers of oneDNN 3.6.3, but no libdnnl.so" in DnnlBackend().probe().detail
