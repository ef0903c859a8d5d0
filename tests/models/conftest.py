"""Tests on whole networks. Those marked slow run only when asked for: `pytest -m slow tests/models`."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in (config.option.markexpr or ""):
        return
    skip = pytest.mark.skip(reason="slow; run with `pytest -m slow`")
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("slow"):
            item.add_marker(skip)


@pytest.fixture
def zoo_entry():
    """`zoo_entry(name)`: a model of the zoo; skips the test where the model's packages are missing."""
    from benchmarks import zoo

    def find(name: str) -> zoo.Entry:
        entry = zoo.get(name)
        try:
            entry.inputs(0)
            if entry.costly:
                entry.path()
        except zoo.MissingExtraError as error:
            pytest.skip(f"{name}: {error}")
        return entry

    return find
