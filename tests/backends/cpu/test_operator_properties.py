"""Operators of every family at sizes drawn at random: no element, one, primes, a vector's width and one beside it."""

from __future__ import annotations

import pytest
from batch import Batch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from operator_cases import FAMILIES as OPERATORS
from window_cases import FAMILIES as WINDOWS

CASES = 16  # compiled together
FAMILIES = {**OPERATORS, **WINDOWS}


@pytest.mark.parametrize("family", FAMILIES)
def test_operators_at_any_size(family):
    cases = st.lists(FAMILIES[family], min_size=CASES, max_size=CASES, unique_by=lambda case: case.key)

    @settings(max_examples=2, derandomize=True, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(cases)
    def check(drawn):
        batch = Batch(opset=27)
        for case in drawn:
            batch.add(case.text, case.inputs, case.weights, case.outputs, case.wanted)
        batch.check()

    check()
