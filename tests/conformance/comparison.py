"""Whether outputs are what a case wants: the suite's rule (element type, shape, tolerance), and lengths of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

BFLOAT16_RTOL = 2.0**-6  # the suite's own: two units in the last place


def difference(wanted: Any, given: Any, rtol: float, atol: float) -> str | None:
    """What is wrong with `given`, in a few words; None when nothing is."""
    if wanted is None or given is None:
        return None if wanted is given else "one is absent, the other not"
    if isinstance(wanted, list | tuple):
        return _list_difference(wanted, given, rtol, atol)
    wanted, given = np.asarray(wanted), np.asarray(given)
    if wanted.dtype.kind in "OSU":
        same = given.dtype.kind in "OSU" and wanted.shape == given.shape and np.array_equal(wanted, given)
        return None if same else "wrong strings"
    if wanted.dtype != given.dtype:
        return f"element type {given.dtype}, wanted {wanted.dtype}"
    if wanted.shape != given.shape:
        return f"shape {given.shape}, wanted {wanted.shape}"
    if wanted.dtype.name == "bfloat16":
        rtol = max(rtol, BFLOAT16_RTOL)
    wide = _widened(wanted), _widened(given)
    if np.allclose(wide[1], wide[0], rtol=rtol, atol=atol, equal_nan=True):
        return None
    wrong = ~np.isclose(wide[1], wide[0], rtol=rtol, atol=atol, equal_nan=True)
    place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    return f"{wrong.sum()} of {wrong.size} elements differ, the first {given[place]}, wanted {wanted[place]}"


def drawn_difference(wanted: Sequence[Any], given: Sequence[Any]) -> str | None:
    """What is wrong with zeros and ones drawn at random: types and shapes count, and that they are zeros and ones."""
    for one, other in zip(wanted, given, strict=True):
        if not np.isin(other, (0, 1)).all():
            return "numbers that are neither 0 nor 1"
        problem = difference(np.zeros_like(one), np.zeros_like(other), 0, 0)
        if problem is not None:
            return problem
    return None


def _list_difference(wanted: Sequence[Any], given: Any, rtol: float, atol: float) -> str | None:
    if not isinstance(given, list | tuple) or len(wanted) != len(given):
        return f"{len(given) if isinstance(given, list | tuple) else 'no'} elements, wanted {len(wanted)}"
    found = (difference(a, b, rtol, atol) for a, b in zip(wanted, given, strict=True))
    return next((text for text in found if text is not None), None)


def _widened(array: np.ndarray) -> np.ndarray:
    """Element types that NumPy does not know by itself as float32, which holds all of their values."""
    return array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.num > 23 else array
