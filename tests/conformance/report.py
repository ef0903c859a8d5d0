"""The record of the suite: docs/conformance.md for readers, expected.txt for the test that keeps it true, sanitized.txt
for the runs under sanitizers, which take too long for a test."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from workers import FAILED, PASSED, UNSUPPORTED, Outcome

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.txt"
SANITIZED = HERE / "sanitized.txt"
PAGE = HERE.parents[1] / "docs" / "conformance.md"
COMMAND = "python tests/conformance --update"


def counts(outcomes: Iterable[Outcome]) -> dict[str, int]:
    found = list(outcomes)
    result = {status: sum(o.status == status for o in found) for status in (PASSED, FAILED, UNSUPPORTED)}
    return {**result, "engine": sum(o.status == PASSED and o.engine for o in found), "all": len(found)}


def expected_text(outcomes: Mapping[str, Outcome]) -> str:
    """One line for each case that does not pass, or passes without generated code."""
    lines = [f"{o.status if o.status != PASSED else 'engine'} {o.name}" for o in outcomes.values() if not _is_plain(o)]
    return "".join(f"{line}\n" for line in sorted(lines))


def record_sanitized(kind: str, outcomes: Mapping[str, Outcome]) -> None:
    """Writes what came of a run under the sanitizers of a compiler."""
    number = counts(outcomes.values())
    found = sum(outcome.detail.startswith("crashed") for outcome in outcomes.values())
    start = f"| `python tests/conformance --sanitize {kind}` |"
    others = [line for line in SANITIZED.read_text().splitlines() if not line.startswith(start)]
    lines = [*others, f"{start} {number['all']} | {number[PASSED]} | {found} |"]
    SANITIZED.write_text("".join(f"{line}\n" for line in sorted(lines)))


def _is_plain(outcome: Outcome) -> bool:
    return outcome.status == PASSED and not outcome.engine


def page(outcomes: Mapping[str, Outcome]) -> str:
    """docs/conformance.md."""
    number = counts(outcomes.values())
    lines = [
        "# Conformance",
        "",
        f"The ONNX backend suite on the `cpu` backend, made by `{COMMAND}`. Each case is compared at its",
        "own tolerance, element types and shapes included.",
        "",
        "| cases | passed | of these by bind time alone | failed | unsupported |",
        "|---|---|---|---|---|",
        f"| {number['all']} | {number[PASSED]} | {number['engine']} | {number[FAILED]} | {number[UNSUPPORTED]} |",
        "",
        "A case passes *by bind time alone* when nothing in it depends on an input: the bind program computes it with",
        "NumPy, and no generated code runs.",
    ]
    failed = {o.name: _short(o.detail) for o in outcomes.values() if o.status == FAILED}
    unsupported = {
        o.name: ", ".join(missing(o.detail)) or "other" for o in outcomes.values() if o.status == UNSUPPORTED
    }
    engine = {o.name: "" for o in outcomes.values() if o.status == PASSED and o.engine}
    lines += _section("Failed", failed) + _section("Unsupported, by operator", unsupported)
    lines += _section("Passed by bind time alone", engine)
    lines += ["", "## Sanitizers", ""]
    lines += [
        "Undefined behaviour, and reads and writes outside of memory, end a case. Whole runs, written with `--update`:"
    ]
    lines += ["", "| command | cases | passed | ended by a finding |", "|---|---|---|---|"]
    lines += SANITIZED.read_text().splitlines()
    return "\n".join(lines) + "\n"


def _section(title: str, reasons: Mapping[str, str]) -> list[str]:
    if not reasons:
        return []
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in reasons.items():
        by_reason[reason].append(f"`{name.removeprefix('test_')}`")
    lines = ["", f"## {title}", ""]
    for reason, names in sorted(by_reason.items()):
        lines.append((f"- **{reason}** ({len(names)}): " if reason else "- ") + ", ".join(sorted(names)))
    return lines


def missing(detail: str) -> list[str]:
    """The operators that an UnsupportedOperatorError names."""
    found = re.findall(r"^node .*? \((\w+), domain ([\w.]+), opset", detail, re.MULTILINE)
    return sorted({name if domain == "ai.onnx" else f"{domain}.{name}" for name, domain in found})


def _short(detail: str) -> str:
    return "wrong outputs" if detail.startswith("outputs:") else detail.partition(":")[0]
