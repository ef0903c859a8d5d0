"""The example in every pass's docstring, executed."""

import importlib
import pkgutil

import pytest
from pass_harness import check_example, example_of

import partita.passes

MODULES = [
    importlib.import_module(f"partita.passes.{info.name}") for info in pkgutil.iter_modules(partita.passes.__path__)
]
EXAMPLES = {module.__name__.rpartition(".")[2]: example for module in MODULES if (example := example_of(module))}

TOLERANCE = {"decompose": 1e-6, "fold_batch_normalization": 1e-5}  # other arithmetic, not other meaning


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_example(name):
    function = getattr(importlib.import_module(f"partita.passes.{name}"), name)
    check_example(function, EXAMPLES[name].before, EXAMPLES[name].after, tolerance=TOLERANCE.get(name, 0.0))


def test_passes_that_rewrite_have_examples():
    rewriting = {
        "canonicalize",
        "common_subexpressions",
        "dead_code",
        "decompose",
        "simplify_algebra",
        "simplify_shapes",
    }
    assert rewriting <= set(EXAMPLES)
