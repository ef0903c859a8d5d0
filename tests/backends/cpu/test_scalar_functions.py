"""exp, tanh, erf and their like in generated kernels are within 2 units in the last place, everywhere."""

import ctypes
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

import partita.backends.cpu
import partita.runtime
from partita.backends.cpu.emit import HEADER_NAMES
from partita.runtime import find_compiler

FOLDER = Path(partita.backends.cpu.__file__).parent / "c"
RUNTIME = Path(partita.runtime.__file__).parent / "c"
LIMIT = 2.0  # units in the last place
SOURCE = """
#include "partita_scalar.h"
#define OVER(name) \\
    void over_##name(const float *x, float *y, long n) { \\
        for (long i = 0; i < n; ++i) \\
            y[i] = partita_##name##_float(x[i]); \\
    }
OVER(exp)
OVER(exp_below)
OVER(tanh)
OVER(erf)
OVER(normal_cdf)
OVER(power_of_two_down)
OVER(power_of_two_up)
OVER(power_of_two_nearest)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scalar")
    (folder / "scalar.c").write_text(SOURCE)
    flags = ["-O2", "-ffp-contract=fast", "-fwrapv", "-shared", "-fPIC", f"-I{FOLDER}"]
    subprocess.run([*find_compiler(), *flags, "scalar.c", "-o", "scalar.so", "-lm"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "scalar.so"))


def apply(library, name, x):
    x = np.ascontiguousarray(x, np.float32)
    y = np.empty_like(x)
    pointer = ctypes.POINTER(ctypes.c_float)
    getattr(library, f"over_{name}")(x.ctypes.data_as(pointer), y.ctypes.data_as(pointer), ctypes.c_long(x.size))
    return y


def every_scale():
    """Floats of every exponent and sign: each 4,001st bit pattern that is a finite number."""
    x = np.arange(0, 2**32, 4001, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


def units(got, true):
    """The distance in units of the last place of the true value; denormals have one unit."""
    exponent = np.maximum(np.frexp(true)[1], -125)
    return np.abs(got.astype(np.float64) - true) / np.ldexp(1.0, exponent - 24)


@pytest.mark.parametrize("name", ["exp", "tanh", "erf"])
def test_error_is_small_at_every_scale(library, name):
    x = every_scale()
    with np.errstate(over="ignore"):
        true = (
            np.vectorize(math.erf)(x.astype(np.float64)) if name == "erf" else getattr(np, name)(x.astype(np.float64))
        )
    inside = true < np.finfo(np.float32).max
    assert units(apply(library, name, x)[inside], true[inside]).max() <= LIMIT


def test_exp_of_what_is_not_above_zero(library):
    x = -np.abs(every_scale())
    got, true = apply(library, "exp_below", x), np.exp(x.astype(np.float64))
    normal = true >= 2.0**-125
    assert units(got[normal], true[normal]).max() <= LIMIT
    assert (got[~normal] >= 0).all() and (got[~normal] <= 2.0**-124).all()
    np.testing.assert_array_equal(apply(library, "exp_below", np.array([0, -200, -np.inf], np.float32)), [1, 0, 0])


def test_share_of_the_normal_distribution(library):
    """Absolutely, as 1 + erf is: below zero it is small, and its product with x (Gelu) smaller."""
    x = every_scale()
    true = np.vectorize(math.erfc)(x.astype(np.float64) * -math.sqrt(0.5)) / 2
    error = np.abs(apply(library, "normal_cdf", x) - true)
    assert error.max() <= LIMIT * 2.0**-24
    assert np.abs(x * error)[np.abs(x) < 20].max() <= 2 * LIMIT * 2.0**-24
    ends = np.array([0.0, -0.0, -20.0, 20.0, -np.inf, np.inf], np.float32)
    np.testing.assert_array_equal(apply(library, "normal_cdf", ends), [0.5, 0.5, 0, 1, 0, 1])


def test_limits(library):
    x = np.array([np.inf, -np.inf, 200.0, -200.0, 0.0, -0.0], np.float32)
    np.testing.assert_array_equal(apply(library, "exp", x), [np.inf, 0, np.inf, 0, 1, 1])
    np.testing.assert_array_equal(apply(library, "tanh", x), [1, -1, 1, -1, 0, 0])
    np.testing.assert_array_equal(apply(library, "erf", x), [1, -1, 1, -1, 0, 0])
    for name in ("tanh", "erf"):
        assert np.signbit(apply(library, name, x))[-1], f"{name}(-0) is -0"


@pytest.mark.parametrize("name", ["exp", "exp_below", "tanh", "erf", "normal_cdf"])
def test_nan_stays_nan(library, name):
    assert np.isnan(apply(library, name, np.array([np.nan], np.float32))).all()


@pytest.mark.parametrize(("mode", "share"), [("down", 1.0), ("up", 0.0), ("nearest", 0.5)])
def test_powers_of_two(library, mode, share):
    """A number goes up where it is this share of the way to the next power, or more; the least power is 2^-127."""
    x = np.abs(every_scale())
    x = np.concatenate([x[x > 0], np.ldexp(np.float32([1, 1.25, 1.5, 1.75]), np.arange(-149, 128)[:, None]).ravel()])
    lower = np.exp2(np.maximum(np.floor(np.log2(x.astype(np.float64))), -127))
    goes_up = (x > lower) & (x >= lower * (1 + share))
    with np.errstate(over="ignore"):
        wanted = np.where(goes_up, 2 * lower, lower).astype(np.float32)
    np.testing.assert_array_equal(apply(library, f"power_of_two_{mode}", x), wanted)
    others = np.array([np.inf, 0, -3, np.nan], np.float32)
    np.testing.assert_array_equal(apply(library, f"power_of_two_{mode}", others), others)


def test_headers_go_together(tmp_path):
    """A region's file includes any of them."""
    text = "#define PARTITA_BLOCK 4\n" + "".join(f'#include "{name}.h"\n' for name in HEADER_NAMES)
    (tmp_path / "all.c").write_text(text)
    flags = ["-fsyntax-only", "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{FOLDER}", f"-I{RUNTIME}"]
    subprocess.run([*find_compiler(), *flags, "all.c"], cwd=tmp_path, check=True)
