"""`partita compile`: an ONNX model becomes a model.so or a model.tar."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from partita.cli.inspect import region_rows, regions
from partita.cli.options import Commands, add_command, add_compile_options, add_json_option, build, compiled
from partita.cli.text import columns, duration, print_json, printable, progress, size

EXAMPLES = """\
  partita compile model.onnx                         model.so in this folder
  partita compile model.onnx -o net.so -t dnnl       oneDNN runs what it takes
  partita compile model.onnx -s x=8,3,224,224        with its batch fixed at 8
  partita compile model.onnx --mcpu x86-64-v3        for other machines than this one
  partita compile model.onnx -o model.tar            as source, to be built anywhere with make
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "compile",
        "compile an ONNX model",
        "Compiles an ONNX model into one file: a shared library that holds code and weights, or its source.",
        EXAMPLES,
    )
    parser.add_argument("model", type=Path, help="the ONNX model")
    parser.add_argument("-o", "--output", type=Path, help="model.so, or model.tar for source (default: MODEL.so)")
    parser.add_argument("--name", help="what symbols and the C header are named after (default: the model's file)")
    parser.add_argument(
        "--parameters",
        choices=["auto", "inside", "beside"],
        default="auto",
        help="where the weights go: into the file, or beside it as .safetensors (default: beside from 2 GiB)",
    )
    parser.add_argument("--dump-dir", type=Path, help="a folder for every intermediate graph, as .onnx and as text")
    parser.add_argument("--profile", action="store_true", help="let it tell `partita profile` what each kernel takes")
    add_compile_options(parser)
    add_json_option(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    output = options.output or Path(options.model.with_suffix(".so").name)
    seconds = {}
    start = time.perf_counter()
    module = compiled(options, options.model)
    seconds["compile"] = time.perf_counter() - start
    if output.suffix != ".tar":
        start = time.perf_counter()
        build(module)
        seconds["cc"] = time.perf_counter() - start
    start = time.perf_counter()
    with progress(f"writing {output.name}"):
        module.export_library(output, options.parameters)
    seconds["export"] = time.perf_counter() - start
    if options.json:
        facts = {"path": str(output), "bytes": output.stat().st_size, "symbol": module.program.symbol}
        print_json({**facts, "regions": regions(module), "seconds": seconds})
        return 0
    print(columns(region_rows(module)))
    took = ", ".join(f"{stage} {duration(value)}" for stage, value in seconds.items())
    print(f"{printable(str(output))}: {size(output.stat().st_size)} ({took})")
    return 0
