"""The whole ONNX backend suite on the cpu backend, against its record. One test, as one run answers all questions."""

import pytest
import report
import workers


def test_suite():
    outcomes = workers.run()
    problems = {o.name: o.detail for o in outcomes.values() if o.status == workers.FAILED}
    wild = ("crashed", "no answer", "not a PartitaError")
    assert not {name: detail for name, detail in problems.items() if detail.startswith(wild)}
    recorded = set(report.EXPECTED.read_text().splitlines())
    found = set(report.expected_text(outcomes).splitlines())
    undecoded = [name for name, detail in problems.items() if "whose library was not there" in detail]
    found -= {f"{workers.FAILED} {name}" for name in undecoded}
    assert not sorted(found - recorded), "worse than recorded"
    assert not sorted(recorded - found), f"better than recorded: look at it, then {report.COMMAND}"
    if undecoded:
        pytest.skip(f"all else passes; no libraries to decode the images of {', '.join(undecoded)}")
    assert report.PAGE.read_text() == report.page(outcomes), f"stale: {report.COMMAND}"
