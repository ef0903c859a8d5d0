"""What a call from Python costs over the C function that it calls.

    python -m benchmarks.overhead                                   # ds-cnn, one thread
    python -m benchmarks.overhead --models autoencoder --rounds 100

In one process, turns of two kinds follow each other: `module.run(inputs)` from Python, and the same C entry point
called from C, on the same inputs. A turn counts as the median of its calls; the overhead is the median, over all
rounds, of the difference between two neighbouring turns.
"""

import argparse
import ctypes
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

import partita
from benchmarks import machine, zoo
from partita.runtime import LoadedModule
from partita.runtime.library import Options, Tensor
from partita.runtime.toolchain import Linking, Source, Toolchain

CALLS = 200  # of a turn

TIMED = """
#include <stdint.h>
#include <time.h>

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

/* The nanoseconds of each of `count` calls. */
__attribute__((visibility("default"))) void timed_calls(int32_t (*run)(void *, const void *, void *), void *instance,
                                                        const void *inputs, void *outputs, int64_t count,
                                                        int64_t *nanoseconds) {
    for (int64_t index = 0; index < count; index++) {
        const int64_t start = now();
        run(instance, inputs, outputs);
        nanoseconds[index] = now() - start;
    }
}
"""


class FromC:
    """A model opened as a C program opens it, and a C function that times its runs."""

    def __init__(self, path: Path, module: LoadedModule, inputs: dict[str, np.ndarray]) -> None:
        program = module.program
        library, timed = ctypes.CDLL(str(path)), path.with_name("timed.so")
        timed.write_bytes(Toolchain().build_library([Source("timed.c", TIMED)], Linking()))
        self.times = (ctypes.c_int64 * CALLS)()
        self._call = ctypes.CDLL(str(timed)).timed_calls
        self._run = getattr(library, f"{program.symbol}_run")
        self._instance = ctypes.c_void_p()
        options = Options(size=ctypes.sizeof(Options), parameters=str(path).encode(), threads=1)
        message = ctypes.create_string_buffer(1024)
        if getattr(library, f"{program.symbol}_open")(
            ctypes.byref(options), ctypes.byref(self._instance), message, ctypes.c_size_t(1024)
        ):
            raise RuntimeError(message.value.decode())
        results = module.run(inputs)
        self._arrays = [inputs[name] for name in program.input_names], [results[name] for name in program.output_names]
        self._tensors = [(Tensor * len(arrays))(*map(_tensor, arrays)) for arrays in self._arrays]
        for tensors, indices in zip(self._tensors, (program.inputs, program.outputs), strict=True):
            for tensor, index in zip(tensors, indices, strict=True):
                tensor.data_type = program.values[index].data_type

    def __call__(self) -> float:
        """Microseconds of a run: the median of a turn."""
        self._call(self._run, self._instance, *self._tensors, ctypes.c_int64(CALLS), self.times)
        return statistics.median(self.times) / 1e3


def _tensor(array: np.ndarray) -> Tensor:
    return Tensor(data=array.ctypes.data, rank=array.ndim, shape=array.shape)


def from_python(run: Callable[[], object]) -> float:
    """Microseconds of a run: the median of a turn."""
    times = []
    for _ in range(CALLS):
        start = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e3


def measure(name: str, rounds: int) -> tuple[float, float, float]:
    """Microseconds: of the C function, of a call from Python, and by how much the latter is more."""
    entry = zoo.get(name)
    inputs = entry.inputs(0)
    with tempfile.TemporaryDirectory() as folder:
        path = partita.compile(entry.path()).export_library(Path(folder, "model.so"))
        module = partita.load_module(path, threads=1)
        from_c = FromC(path, module, inputs)
    pairs = [(from_c(), from_python(partial(module.run, inputs))) for _ in range(rounds + 1)][1:]  # the first warms up
    alone, called = (statistics.median(column) for column in zip(*pairs, strict=True))
    return alone, called, statistics.median(outside - inside for inside, outside in pairs)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser("benchmarks.overhead", description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["ds-cnn"], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=30, help=f"turns of {CALLS} calls each (default 30)")
    options = parser.parse_args(arguments)
    print(machine.describe(), flush=True)
    print("\n| model | C, µs | Python, µs | overhead, µs |\n|---|---|---|---|")
    for name in options.models:
        alone, called, overhead = measure(name, options.rounds)
        print(f"| {name} | {alone:.2f} | {called:.2f} | {overhead:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
