"""`partita profile`: where a model's time goes, kernel by kernel."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from partita.cli.inputs import add_input_options, inputs_for
from partita.cli.options import Commands, add_command, add_compile_options, add_json_option, positive, runnable
from partita.cli.text import columns, counted, duration, print_json, printable, progress, size
from partita.runtime import KernelTime
from partita.runtime.peak import measured_peak

EXAMPLES = """\
  partita profile model.onnx --threads 1                compiled for it, kept nowhere
  partita profile model.onnx --top 10                   the ten slowest kernels
  partita compile model.onnx -o model.so --profile      compiled for it, and kept:
  partita profile model.so -i image.npy
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "profile",
        "show where a model's time goes",
        "Runs a model and shows, for each kernel, its time, the operations and bytes that it stands for, and its "
        "share of what this machine can do at most. Operations are those of the definition: a kernel that needs "
        "fewer can be above 100 %%.",
        EXAMPLES,
    )
    parser.add_argument("model", type=Path, help="an ONNX model, or one compiled with --profile")
    parser.add_argument("--repeat", type=positive, default=20, metavar="N", help="runs to take the median of")
    parser.add_argument("--top", type=positive, metavar="N", help="the N slowest kernels only, slowest first")
    add_input_options(parser)
    add_compile_options(parser)
    add_json_option(parser)
    parser.set_defaults(execute=execute, profile=True)


def execute(options: argparse.Namespace) -> int:
    module = runnable(options, options.model)
    inputs = inputs_for(module.program, options)
    with progress(f"profiling {module.program.symbol}"):
        times = module.profile(inputs, runs=options.repeat)
        peak = measured_peak(threads=module.thread_count())
    total = sum(time.seconds for time in times)
    shown = sorted(times, key=lambda time: -time.seconds)[: options.top] if options.top else times
    if options.json:
        kernels = [{**asdict(time.note), "region": time.region, "seconds": time.seconds} for time in shown]
        print_json({"peak": peak, "seconds": total, "threads": module.thread_count(), "kernels": kernels})
        return 0
    print(columns([("time", "share", "Gop/s", "of peak", "moves", "kernel"), *(_row(t, total, peak) for t in shown)]))
    operations = sum(time.note.operations for time in times)
    rate = operations / total if total else 0.0
    print(
        f"{printable(module.program.symbol)}: {duration(total)} in {counted(len(times), 'kernel')} on "
        f"{counted(module.thread_count(), 'thread')}, {rate / 1e9:.1f} Gop/s: {rate / peak:.0%} of the "
        f"{peak / 1e9:.1f} Gop/s measured here"
    )
    return 0


def _row(time: KernelTime, total: float, peak: float) -> tuple[str, ...]:
    rate = time.note.operations / time.seconds if time.seconds else 0.0
    return (
        duration(time.seconds),
        f"{time.seconds / total:.1%}" if total else "",
        f"{rate / 1e9:.1f}",
        f"{rate / peak:.0%}",
        size(time.note.bytes),
        f"{time.note.name}: {time.note.operators}",
    )
