"""What this machine can do at most: additions and multiplications a second, measured by a loop of nothing else."""

from __future__ import annotations

import ctypes
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from partita.runtime.toolchain import BuildOptions, Linking, Source, Toolchain

# Twelve sums, so that each has left the pipeline when it is wanted again.
_SOURCE = """
#include <stdint.h>
#include <time.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define SUMS 12

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

/* Operations a second of one thread: the best of some tries. */
__attribute__((visibility("default"))) double partita_peak(float factor) {
    double best = 0;
    volatile float sink;
    for (int try = 0; try < 20; try++) {
        const int64_t turns = 100000;
        lanes sums[SUMS], scale = factor - (lanes){0}, term = 1 - scale;
        for (int s = 0; s < SUMS; s++)
            sums[s] = scale * (float)s;
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (int64_t turn = 0; turn < turns; turn++) {
#pragma GCC unroll 12
            for (int s = 0; s < SUMS; s++)
                sums[s] = sums[s] * scale + term;
        }
        clock_gettime(CLOCK_MONOTONIC, &end);
        for (int s = 1; s < SUMS; s++)
            sums[0] += sums[s];
        sink = sums[0][0];
        const double seconds = (end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) * 1e-9;
        const double rate = 2.0 * LANES * SUMS * turns / seconds;
        best = rate > best ? rate : best;
    }
    (void)sink;
    return best;
}
"""


def measured_peak(build: BuildOptions | None = None, threads: int = 1) -> float:
    """float32 additions and multiplications a second, on as many threads.

    Raises:
        CompilerError: there is no compiler, or it failed.
    """
    options = replace(build or BuildOptions(), flags=())
    with tempfile.TemporaryDirectory(prefix="partita-") as folder:
        path = Path(folder) / "peak.so"
        path.write_bytes(Toolchain(options).build_library([Source("peak.c", _SOURCE)], Linking()))
        peak = ctypes.CDLL(str(path)).partita_peak
    peak.restype = ctypes.c_double
    peak.argtypes = [ctypes.c_float]
    with ThreadPoolExecutor(threads) as pool:
        return float(sum(pool.map(peak, [0.5] * threads)))
