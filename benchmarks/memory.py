"""Seconds and peak memory of every stage in a model's life, each in a process of its own.

    python -m benchmarks.memory                           # vgg19 and resnet50
    python -m benchmarks.memory --models minilm --json memory.json

Stages: `compile` (Partita's compile alone), `export` (compile and write the artifact), `load` (the artifact), `run`
(load and run once); for a peer `load` and `run`. *Peak* is the stage's own process; *tree* is the largest sum over
it and the C compilers it started, sampled, so that a very short peak can be missed. *Baseline* is a process that
only imports the same packages: subtract it to see what the model costs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine, zoo
from benchmarks.compare import OURS, installed
from benchmarks.peers import RUNNERS

#: goals for compiling: seconds, and megabytes of the whole process tree
GOALS = {("vgg19", "compile"): (25, 1600)}
INTERVAL = 0.01


@dataclass
class Usage:
    """What one stage took."""

    model: str
    runner: str
    stage: str
    seconds: float
    peak_mb: float
    tree_mb: float
    error: str = ""


def observe(command: Sequence[str]) -> tuple[float, float, int, str]:
    """Run a command; return seconds, the largest memory of its process tree in MB, its status and what it wrote."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        largest = 0.0
        while process.poll() is None:
            largest = max(largest, _tree_mb(process.pid))
            time.sleep(INTERVAL)
        output.seek(0)
        return time.perf_counter() - start, largest, process.returncode, output.read()


def _tree_mb(root: int) -> float:
    """Resident memory of a process and its descendants, pages shared between them counted once."""
    total, pending = 0, [root]
    while pending:
        pid = pending.pop()
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
            for thread in Path(f"/proc/{pid}/task").iterdir():
                pending += map(int, (thread / "children").read_text().split())
        except (OSError, ValueError):
            continue  # it has just ended
    return total / 1024


def stage_usage(model: str, runner: str, stage: str, artifact: Path) -> Usage:
    """Run one stage in a fresh interpreter."""
    command = [sys.executable, "-m", "benchmarks.memory", "--stage", stage, "--runner", runner]
    _, tree, status, output = observe([*command, "--models", model, "--artifact", str(artifact)])
    last = output.strip().rpartition("\n")[2]
    if status:
        return Usage(model, runner, stage, 0, 0, tree, error=last)
    report = json.loads(last)
    return Usage(model, runner, stage, report["seconds"], report["peak_mb"], max(tree, report["peak_mb"]))


def run_stage(model: str, runner: str, stage: str, artifact: Path) -> None:
    """The child's side: do the stage, print its seconds and this process's peak as the last line."""
    entry = zoo.get(model)
    path, inputs = entry.path(), entry.inputs(0)
    _import_of(runner)
    start = time.perf_counter()
    if stage == "baseline":
        pass
    elif runner != OURS:
        loaded = RUNNERS[runner](path, inputs, 1)
        if stage == "run":
            loaded.run(inputs)
    else:
        import partita

        if stage in {"compile", "export"}:
            module = partita.compile(path)
            if stage == "export":
                module.export_library(artifact)
        else:
            module = partita.load_module(artifact, threads=1)
            if stage == "run":
                module.run(inputs)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mb": _own_peak_mb()}))


def _import_of(runner: str) -> None:
    RUNNERS[runner].version()


def _own_peak_mb() -> float:
    """The high-water mark of this process alone; `getrusage` would count its parent's before `exec`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def table(usages: Sequence[Usage]) -> str:
    """One row for each stage."""
    lines = ["| model | runner | stage | seconds | peak MB | tree MB | |", "|---|---|---|---|---|---|---|"]
    for u in usages:
        note = u.error
        if u.runner == OURS and not u.error and (u.model, u.stage) in GOALS:
            seconds, megabytes = GOALS[u.model, u.stage]
            met = u.seconds < seconds and u.tree_mb < megabytes
            note = f"goal: {seconds} s, {megabytes} MB: {'met' if met else 'missed'}"
        figures = f"{u.seconds:.2f} | {u.peak_mb:.0f} | {u.tree_mb:.0f}" if not u.error else "– | – | –"
        lines.append(f"| {u.model} | {u.runner} | {u.stage} | {figures} | {note} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; with `--stage`, the child of one."""
    parser = argparse.ArgumentParser("benchmarks.memory", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["resnet50", "vgg19"], metavar="NAME")
    parser.add_argument("--runners", nargs="+", default=list(RUNNERS), choices=list(RUNNERS), metavar="NAME")
    parser.add_argument("--json", metavar="FILE")
    for name in ("--stage", "--runner", "--artifact"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stage:
        run_stage(options.models[0], options.runner, options.stage, Path(options.artifact))
        return 0

    versions = installed(options.runners)
    print(machine.describe(), "; ", ", ".join(f"{name} {v}" for name, v in versions.items()), sep="")
    usages = []
    with tempfile.TemporaryDirectory(prefix="partita-memory-") as folder:
        for model in options.models:
            zoo.get(model).path()  # built here, so that no stage pays for it
            for runner in versions:
                stages = ["compile", "export"] if runner == OURS else []
                for stage in ["baseline", *stages, "load", "run"]:
                    usages.append(stage_usage(model, runner, stage, Path(folder) / f"{model}.so"))
    print(table(usages))
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(u) for u in usages], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
