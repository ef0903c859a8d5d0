"""Runs the ONNX backend suite and prints what came of it; `--update` writes the record."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time

import onnx_suite
import report
import workers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/conformance", description=__doc__)
    parser.add_argument("-k", metavar="PATTERN", help="only the cases whose name the regular expression matches")
    parser.add_argument("--target", action="append", default=[], help="an accelerator; may be repeated")
    parser.add_argument("--update", action="store_true", help="write docs/conformance.md and expected.txt")
    parser.add_argument("-v", action="store_true", help="say in full why a case does not pass")
    parser.add_argument("--sanitize", action="store_true", help="with gcc's address and undefined behaviour sanitizers")
    options = parser.parse_args()
    if options.sanitize and not workers.IS_SANITIZED:
        restart_sanitized()
    names = [name for name in onnx_suite.cases() if re.search(options.k or "", name)]
    start = time.monotonic()
    outcomes = workers.run(names, options.target)
    for outcome in outcomes.values():
        if outcome.status != workers.PASSED:
            text = outcome.detail if options.v else ", ".join(report.missing(outcome.detail)) or outcome.detail[:160]
            print(f"{outcome.status} {outcome.name}: {text}")
    print(report.counts(outcomes.values()), f"in {time.monotonic() - start:.0f} s")
    if options.update and not options.k and not options.target:
        report.EXPECTED.write_text(report.expected_text(outcomes))
        report.PAGE.write_text(report.page(outcomes))


def restart_sanitized() -> None:
    """Runs this program again with the sanitizers' libraries loaded before all others."""
    libraries = [
        subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        **os.environ,
        "PARTITA_SANITIZED": "1",
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves much for the end of the process
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


if __name__ == "__main__":
    main()
