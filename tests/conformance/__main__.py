"""Runs the ONNX backend suite and prints what came of it; `--update` writes the record."""

from __future__ import annotations

import argparse
import re
import time

import onnx_suite
import report
import sanitizers
import workers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/conformance", description=__doc__)
    parser.add_argument("-k", metavar="PATTERN", help="only the cases whose name the regular expression matches")
    parser.add_argument("--target", action="append", default=[], help="an accelerator; may be repeated")
    parser.add_argument("--update", action="store_true", help="write docs/conformance.md and expected.txt")
    parser.add_argument("-v", action="store_true", help="say in full why a case does not pass")
    parser.add_argument(
        "--sanitize",
        nargs="?",
        const="gcc",
        choices=sanitizers.KINDS,
        help="with the address and undefined behaviour sanitizers of a compiler (gcc)",
    )
    options = parser.parse_args()
    if options.sanitize and workers.SANITIZER is None:
        sanitizers.restart(options.sanitize)
    names = [name for name in onnx_suite.cases() if re.search(options.k or "", name)]
    start = time.monotonic()
    outcomes = workers.run(names, options.target)
    for outcome in outcomes.values():
        if outcome.status != workers.PASSED:
            text = outcome.detail if options.v else ", ".join(report.missing(outcome.detail)) or outcome.detail[:160]
            print(f"{outcome.status} {outcome.name}: {text}")
    print(report.counts(outcomes.values()), f"in {time.monotonic() - start:.0f} s")
    if not options.update or options.k or options.target:
        return
    if options.sanitize:
        report.record_sanitized(options.sanitize, outcomes)
    else:
        report.EXPECTED.write_text(report.expected_text(outcomes))
        report.PAGE.write_text(report.page(outcomes))


if __name__ == "__main__":
    main()
