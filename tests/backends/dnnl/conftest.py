"""Tests that run oneDNN are skipped, by name, where it is missing."""

from __future__ import annotations

import pytest

from partita.backends.dnnl.library import DnnlLibrary, find_library


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "without_library: runs where oneDNN is missing too")


@pytest.fixture(autouse=True)
def _needs_library(request: pytest.FixtureRequest) -> None:
    found = find_library()
    if not isinstance(found, DnnlLibrary) and "without_library" not in request.keywords:
        pytest.skip(f"oneDNN is missing: {found}")
