"""`partita inspect`: what a model is made of, before or after it was compiled."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from partita.cli.options import (
    Commands,
    add_command,
    add_compile_options,
    add_json_option,
    compiled,
    is_artifact,
    loaded,
)
from partita.cli.text import columns, counted, print_json, printable, size, typed
from partita.runtime import Kind, LoadedModule, MetadataModule, Value
from partita.runtime.data_types import type_name

Module = MetadataModule | LoadedModule
EXAMPLES = """\
  partita inspect model.so
  partita inspect model.so --constants         every entry of the parameter table
  partita inspect model.onnx --target dnnl     what compiling would give; runs no C compiler
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "inspect",
        "show inputs, outputs, regions, constants, memory and sizes",
        "Shows what a compiled model holds, or what an ONNX model would be compiled to.",
        EXAMPLES,
    )
    parser.add_argument("model", type=Path, help="an ONNX model, or a compiled one")
    parser.add_argument("--constants", action="store_true", help="list every entry of the parameter table")
    add_compile_options(parser)
    add_json_option(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    module: Module = loaded(options.model) if is_artifact(options.model) else compiled(options, options.model)
    if options.json:
        print_json(facts(module))
    else:
        print(report(module, options.constants))
    return 0


def facts(module: Module) -> dict[str, Any]:
    """All of it, as JSON."""
    program = module.program
    result = {
        "symbol": program.symbol,
        "model": module.extras["model"],
        "inputs": [_value(module, program.values[index]) for index in program.inputs],
        "outputs": [_value(module, program.values[index]) for index in program.outputs],
        "symbols": [asdict(symbol) for symbol in program.symbols],
        "regions": regions(module),
        "constants": [
            {"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "bytes": array.nbytes}
            for name, array in module.params.items()
        ],
        "baked": [name for name, _ in program.baked],
        "arena_bytes": program.arena_bytes if program.arena_bytes >= 0 else None,
        "arena_lower_bound": module.extras["arena_lower_bound"] if program.arena_bytes >= 0 else None,
        "constant_bytes": _constant_bytes(module),
    }
    if isinstance(module, LoadedModule):
        result |= _file_facts(module)
    return result


def regions(module: Module) -> list[dict[str, Any]]:
    """A dictionary per region, in the order they run."""
    program, operators = module.program, module.extras["operators"]
    return [
        {
            "symbol": region.symbol,
            "backend": region.backend,
            "kind": "interpreted" if region.interpreted else "c",
            "nodes": operators[region.symbol],
            "inputs": [program.values[index].name for index in region.inputs],
            "outputs": [program.values[index].name for index in region.outputs],
            "constants": list(region.constants),
            "constant_bytes": sum(module.params[name].nbytes for name in set(region.constants)),
        }
        for region in program.regions
    ]


def region_rows(module: Module) -> list[Sequence[str]]:
    """The regions, a row each."""
    return [
        (
            region["symbol"],
            region["backend"] + (" (interpreted)" if region["kind"] == "interpreted" else ""),
            counted(region["nodes"], "node"),
            counted(len(region["constants"]), "constant"),
            size(region["constant_bytes"]),
        )
        for region in regions(module)
    ]


def report(module: Module, with_constants: bool) -> str:
    """All of it, for people."""
    program = module.program
    lines = [f"{program.symbol}, of the graph {module.extras['model']!r}"]
    for title, indices in (("inputs", program.inputs), ("outputs", program.outputs)):
        values = [program.values[index] for index in indices]
        lines += [title, columns((value.name, typed(program, value)) for value in values)]
    if program.symbols:
        kinds = ("known from the inputs", "known once the data is")
        rows = [(symbol.name, kinds[symbol.data_dependent]) for symbol in program.symbols]
        lines += ["symbolic dimensions", columns(rows)]
    lines += [counted(len(program.regions), "region"), columns(region_rows(module))]
    if with_constants:
        entries = [(name, f"{a.dtype}{list(a.shape)}", size(a.nbytes)) for name, a in module.params.items()]
        lines += ["constants", columns(entries)]
    if program.baked:
        names = ", ".join(name for name, _ in program.baked)
        lines += ["parameters whose values the code depends on", f"  {names}"]
    return printable("\n".join([*lines, "memory", columns(_memory(module))]))


def _memory(module: Module) -> list[Sequence[str]]:
    program = module.program
    arena = "its size depends on the inputs' shapes"
    if program.arena_bytes >= 0:
        arena = f"{size(program.arena_bytes)}; no plan needs less than {size(module.extras['arena_lower_bound'])}"
    entries = f"{size(_constant_bytes(module))} in {counted(len(module.params), 'entry').replace('entrys', 'entries')}"
    rows: list[Sequence[str]] = [("arena", arena), ("constants", entries)]
    if isinstance(module, LoadedModule):
        found = _file_facts(module)
        place = "beside it" if found["constants_beside"] else "inside"
        rows.append(("file", f"{size(found['file_bytes'])}: {size(found['code_bytes'])} of code, constants {place}"))
        rows.append(("needs", ", ".join(found["features"]) or "no particular instructions"))
    return rows


def _file_facts(module: LoadedModule) -> dict[str, Any]:
    manifest = module.artifact.manifest
    code = manifest["code"]
    return {
        "file_bytes": module.artifact.path.stat().st_size,
        "code_bytes": code["bytes"] if code else module.artifact.code.nbytes,
        "constants_beside": manifest["table"]["beside"],
        "constants_sha256": manifest["table"]["sha256"],
        "features": manifest["features"],
        "flags": manifest["flags"],
    }


def _constant_bytes(module: Module) -> int:
    return sum(array.nbytes for array in module.params.values())


def _value(module: Module, value: Value) -> dict[str, Any]:
    names = [symbol.name for symbol in module.program.symbols]
    shape = [e if e >= 0 else names[-e - 1] if -e - 1 < len(names) else None for e in value.shape]
    result = {"name": value.name, "dtype": type_name(value.data_type), "shape": shape}
    return result if value.kind is Kind.TENSOR else result | {"shape": None, "kind": value.kind.name.lower()}
