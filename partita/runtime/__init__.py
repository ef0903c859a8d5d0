"""What is shipped: the module tree, the parameter table, export, load and run.

It stands alone: an artifact is loaded on a machine where neither the compiler nor a C compiler is installed.
"""

from __future__ import annotations

from partita.runtime.bind import evaluate_bind_program, value_digest
from partita.runtime.executor import Device, Executor, cpu
from partita.runtime.load import LoadedModule, load_module, rebind_artifact
from partita.runtime.module import CSourceModule, Function, InterpretedModule, MetadataModule, Unit, table_of
from partita.runtime.profile import PROFILE_FLAG, KernelNote, KernelTime
from partita.runtime.program import Buffer, Extent, Kind, Program, Region, Storage, Symbol, Value
from partita.runtime.toolchain import BuildOptions, find_compiler

__all__ = [
    "PROFILE_FLAG",
    "Buffer",
    "BuildOptions",
    "CSourceModule",
    "Device",
    "Executor",
    "Extent",
    "Function",
    "InterpretedModule",
    "KernelNote",
    "KernelTime",
    "Kind",
    "LoadedModule",
    "MetadataModule",
    "Program",
    "Region",
    "Storage",
    "Symbol",
    "Unit",
    "Value",
    "cpu",
    "evaluate_bind_program",
    "find_compiler",
    "load_module",
    "rebind_artifact",
    "table_of",
    "value_digest",
]
