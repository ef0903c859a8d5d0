"""Whole models of the suite with each list of targets: the light models, and those that converters wrote."""

import onnx_suite
import pytest
import workers

from partita.backends import discovery

TARGETS = ([], ["dnnl"], ["reference"])
NOT_YET = frozenset(
    line.split()[1] for line in (onnx_suite.HERE / "expected.txt").read_text().splitlines() if "engine" not in line
)


@pytest.mark.parametrize("targets", TARGETS, ids=lambda targets: "+".join(targets) or "cpu")
@pytest.mark.parametrize("kind", ["real", "simple", "pytorch-converted", "pytorch-operator"])
def test_cases(kind, targets):
    """Every case passes that does so on the host alone."""
    for offer in discovery.available():
        if offer.name in targets and not offer.availability.available:
            pytest.skip(f"{offer.name}: {offer.availability.detail}")
    names = [case.name for case in onnx_suite.cases().values() if case.kind == kind and case.name not in NOT_YET]
    outcomes = workers.run(names, targets)
    assert not {o.name: o.detail for o in outcomes.values() if o.status != workers.PASSED}
