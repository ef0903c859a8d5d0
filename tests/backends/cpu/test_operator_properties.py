"""Operators of every family at sizes drawn at random: no element, one, primes, a vector's width and one beside it."""

from __future__ import annotations

import itertools

import pytest
from batch import Batch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from operator_cases import FAMILIES as OPERATORS
from window_cases import BESIDE_TORCH, torch
from window_cases import FAMILIES as WINDOWS

CASES = 8  # compiled together
FAMILIES = {**OPERATORS, **WINDOWS}
STATIC = {"elementwise", "products", "signals", "frames"}
"""Families that need sizes: where an operand broadcasts, or whether numbers are complex, must be known."""


@pytest.mark.parametrize("family", FAMILIES)
def test_operators_at_any_size(family):
    """Every second batch is compiled for sizes that are known at run time only."""
    if family in BESIDE_TORCH and torch is None:
        pytest.skip("PyTorch is their judge: pip install partita[torch]")
    cases = st.lists(FAMILIES[family], min_size=CASES, max_size=CASES, unique_by=lambda case: case.key)

    turns = itertools.cycle([False, True])

    @settings(max_examples=3, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(cases)
    def check(drawn):
        batch = Batch(opset=27, is_dynamic=next(turns) and family not in STATIC)
        for case in drawn:
            batch.add(case.text, case.inputs, case.weights, case.outputs, case.wanted)
        batch.check()

    check()
