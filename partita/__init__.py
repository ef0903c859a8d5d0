"""Partita: an ONNX model in, one deployable module out.

    module = partita.compile("model.onnx", targets=["dnnl"])
    module.export_library("model.so")
    outputs = partita.load_module("model.so").run({"x": array})

Loading needs no compiler: `compile` is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from partita import errors
from partita.runtime import BuildOptions, Device, cpu, load_module

if TYPE_CHECKING:
    from partita.compiler import compile

__version__ = "0.1.0"
__all__ = ["BuildOptions", "Device", "__version__", "compile", "cpu", "errors", "load_module"]


def __getattr__(name: str) -> Any:
    if name == "compile":
        from partita.compiler import compile

        return compile
    raise AttributeError(f"module 'partita' has no attribute {name!r}")
