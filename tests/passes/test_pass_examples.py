"""The example in every pass's docstring, executed. Passes that take more than a graph run theirs in their own tests."""

import importlib
import inspect
import pkgutil

import pytest
from pass_harness import check_example, example_of

import partita.passes

# Other arithmetic, not other meaning:
TOLERANCE = {"decompose": 1e-6, "fold_scale": 1e-5, "hoist_scale": 1e-5, "recognize_gelu": 1e-6}


def passes():
    """The functions that are called as their module and take a graph alone."""
    for info in pkgutil.iter_modules(partita.passes.__path__):
        module = importlib.import_module(f"partita.passes.{info.name}")
        function = getattr(module, info.name, None)
        if function is None:
            continue
        needed = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        if len(needed) == 1 and example_of(module):
            yield pytest.param(function, example_of(module), id=info.name)


@pytest.mark.parametrize(("function", "example"), list(passes()))
def test_example(function, example):
    check_example(function, example.before, example.after, tolerance=TOLERANCE.get(function.__name__, 0.0))


def test_passes_that_rewrite_have_examples():
    found = {parameters.id for parameters in passes()}
    assert found >= {
        "canonicalize",
        "common_subexpressions",
        "dead_code",
        "decompose",
        "fold_scale",
        "hoist_scale",
        "recognize_gelu",
        "simplify_algebra",
        "simplify_shapes",
    }
