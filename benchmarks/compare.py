"""Partita and its peers on the same models, in the same process, in turns.

    python -m benchmarks.compare                              # every model, one thread
    python -m benchmarks.compare --models resnet50 minilm     # some
    python -m benchmarks.compare --threads 2 --json out.json

In every round each runner gets one turn on the model, in rotating order: one run to warm up, then as many as fill the
turn's time, each timed. A turn counts as the median of its runs, a runner as the median of its turns. The last column
is the best peer's time divided by Partita's: above 1, Partita is ahead.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import machine, zoo
from benchmarks.extras import MissingExtraError
from benchmarks.peers import RUNNERS, Inputs, Partita, Runner

OURS = "partita"


@dataclass
class Result:
    """One model: milliseconds by runner, every turn's, and what kept a runner from taking part."""

    model: str
    threads: int
    turns: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    load_seconds: dict[str, float] = field(default_factory=dict)

    def median(self, runner: str) -> float | None:
        turns = self.turns.get(runner)
        return statistics.median(turns) if turns else None

    def spread(self, runner: str) -> float:
        """How far a runner's turns lie apart, as a fraction of their median."""
        turns = self.turns[runner]
        return (max(turns) - min(turns)) / statistics.median(turns)

    def ratio(self) -> float | None:
        """The best peer's time divided by ours."""
        ours = self.median(OURS)
        peers = [self.median(name) for name in self.turns if name != OURS]
        return min(peers) / ours if ours and peers else None


def take_turns(runs: dict[str, Callable[[], object]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of every turn by name; the order rotates, so that nobody always follows the same neighbour."""
    turns: dict[str, list[float]] = {name: [] for name in runs}
    order = list(runs)
    for _ in range(rounds):
        for name in order:
            turns[name].append(_turn(runs[name], seconds))
        order = order[1:] + order[:1]
    return turns


def _turn(run: Callable[[], object], seconds: float) -> float:
    time.sleep(0.02)  # threads of the runner before may still be spinning
    run()
    times = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def measure(entry: zoo.Entry, names: Sequence[str], threads: int, rounds: int, seconds: float) -> Result:
    """Load one model into every runner, check that they agree, and let them take turns."""
    result = Result(entry.name, threads)
    inputs = entry.inputs(0)
    runners: dict[str, Runner] = {}
    try:
        outputs = {}
        for name in names:
            start = time.perf_counter()
            try:
                runners[name] = RUNNERS[name](entry.path(), inputs, threads)
                result.load_seconds[name] = time.perf_counter() - start
                outputs[name] = {k: np.array(v) for k, v in runners[name].run(inputs).items()}
            except Exception as error:  # one runner's failure is a result, not the end of the comparison
                result.failures[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
                runners.pop(name, None)
        result.failures |= _disagreements(outputs)
        runs = {name: _bound(r, inputs) for name, r in runners.items() if name not in result.failures}
        result.turns = take_turns(runs, rounds, seconds)
    finally:
        for runner in runners.values():
            runner.close()
    return result


def _bound(runner: Runner, inputs: Inputs) -> Callable[[], object]:
    return lambda: runner.run(inputs)


def _disagreements(outputs: dict[str, dict[str, np.ndarray]]) -> dict[str, str]:
    """Runners whose results lie far from the first peer's: a wrong answer has no time."""
    reference = next((name for name in outputs if name != OURS), None)
    found = {}
    for name, values in outputs.items():
        for key, expected in outputs[reference].items() if reference else ():
            error = np.abs(values[key] - expected).max() / max(np.abs(expected).max(), 1e-30)
            if not error < 1e-3:
                found[name] = f"{key} differs from {reference}'s by {error:.1e} of the largest value"
    return found


def table(results: Sequence[Result], names: Sequence[str]) -> str:
    """Medians in milliseconds, the spread of the turns, and the ratio of the best peer to Partita."""
    lines = ["| model | " + " | ".join(names) + " | best peer / partita |", "|---|" + "---|" * (len(names) + 1)]
    for result in results:
        cells = []
        for name in names:
            median = result.median(name)
            cells.append("–" if median is None else f"{median:.4g} ±{result.spread(name) / 2:.0%}")
        ratio = result.ratio()
        lines.append(f"| {result.model} | {' | '.join(cells)} | {f'{ratio:.2f}' if ratio else '–'} |")
    notes = [f"{r.model}, {name}: {reason}" for r in results for name, reason in r.failures.items()]
    return "\n".join([*lines, *(["", "Not measured:"] if notes else []), *notes])


def installed(names: Sequence[str]) -> dict[str, str]:
    """Versions of the runners that can run here; says on stderr which ones cannot."""
    versions = {}
    for name in names:
        try:
            versions[name] = RUNNERS[name].version()
        except MissingExtraError as error:
            print(f"without {name}: {error}", file=sys.stderr)
    return versions


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _options(arguments)
    Partita.fast_math = tuple(options.fast_math)
    versions = installed(options.runners)
    names = list(versions)
    title = f"{machine.describe()}; {options.threads} threads; " + ", ".join(f"{n} {v}" for n, v in versions.items())
    print(title, flush=True)
    results = []
    for model in options.models:
        try:
            entry = zoo.get(model)
            entry.path()
        except MissingExtraError as error:
            print(f"without {model}: {error}", file=sys.stderr)
            continue
        results.append(measure(entry, names, options.threads, options.rounds, options.seconds))
        print(f"{model} …", file=sys.stderr, flush=True)
    print(table(results, names))
    if options.json:
        content = {"machine": machine.describe(), "versions": versions, "results": [asdict(r) for r in results]}
        Path(options.json).write_text(json.dumps(content, indent=1) + "\n")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    measured = [name for name in zoo.names() if not name.startswith("light-")]
    parser = argparse.ArgumentParser("benchmarks.compare", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=measured, metavar="NAME", help="default: all with weights")
    parser.add_argument("--runners", nargs="+", default=list(RUNNERS), choices=list(RUNNERS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="turns of every runner (default 7)")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a turn (default 0.3)")
    parser.add_argument(
        "--fast-math", action="append", default=[], metavar="ALGORITHM", help="what Partita may use: strassen"
    )
    parser.add_argument("--json", metavar="FILE", help="write every turn's figure to a file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
