"""How long compiling takes, cold and warm.

    python -m benchmarks.compile_time                           # resnet50 and mobilenet-v2
    python -m benchmarks.compile_time --models minilm --rounds 5

Each compilation is `partita compile MODEL -o FILE` in a process of its own. *Cold* starts with an empty cache, *warm*
with the cache that the cold one left; the same model, nothing changed. *Command* is the whole process, Python's
start and imports included; the other columns are its stages: `compile` is reading, passes and binding weights
(`import` what of it is loading the compiler's modules), `cc` the C compiler and linker, `export` writing it. *CPU*
is the processor time of all of it, of the C compilers too, which hardly depends on what else the machine does; the
rest is wall time. Figures are medians, in seconds.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine, zoo

STAGES = ["command", "cpu", "import", "compile", "cc", "export"]
IMPORT = "import time; start = time.perf_counter(); import partita.compiler; print(time.perf_counter() - start)"


def compile_once(model: Path, cache: Path) -> dict[str, float]:
    """Seconds of each stage of one compilation, in a fresh process, with this cache."""
    environment = {**os.environ, "PARTITA_CACHE_DIR": str(cache)}
    environment.pop("PARTITA_NO_CACHE", None)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "partita", "compile", str(model), "-o", f"{folder}/model.so", "--json"]
        start, before = time.perf_counter(), _cpu_seconds()
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        took = {"command": time.perf_counter() - start, "cpu": _cpu_seconds() - before}
    return {**took, **json.loads(ended.stdout)["seconds"]}


def _cpu_seconds() -> float:
    """Of all children so far, and theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def import_seconds() -> float:
    """Seconds that loading the compiler takes, in a fresh process."""
    return float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout)


def measure(name: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians by stage, of cold and of warm compilations."""
    model = zoo.get(name).path()
    found: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for turns in found.values():
                turns.append({**compile_once(model, Path(cache)), "import": import_seconds()})
    return {
        kind: {stage: statistics.median(turn[stage] for turn in turns) for stage in STAGES}
        for kind, turns in found.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("benchmarks.compile_time", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["resnet50", "mobilenet-v2"], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=3, help="cold and warm compilations of each (default 3)")
    options = parser.parse_args(arguments)
    print(machine.describe(), flush=True)
    print(f"\n| model | | {' | '.join(STAGES)} |\n|---|---|{'---|' * len(STAGES)}")
    for name in options.models:
        for kind, seconds in measure(name, options.rounds).items():
            print(f"| {name} | {kind} | {' | '.join(f'{seconds[stage]:.2f}' for stage in STAGES)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
