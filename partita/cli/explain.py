"""`partita explain`: who runs each node, and why those before refused."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from partita.cli.options import (
    Commands,
    add_command,
    add_compile_options,
    add_json_option,
    compiled,
    is_artifact,
    loaded,
)
from partita.cli.text import columns, counted, print_json

EXAMPLES = """\
  partita explain model.onnx --target dnnl
  partita explain model.onnx --target dnnl --summary    each reason once, with how many nodes it met
  partita explain model.so                              as it was compiled
"""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "explain",
        "show which backend runs each node, and why others refused",
        "Shows, for each node of the simplified graph, which backend runs it and why each one before refused.",
        EXAMPLES,
    )
    parser.add_argument("model", type=Path, help="an ONNX model, or a compiled one")
    parser.add_argument("--summary", action="store_true", help="count nodes instead of listing them")
    add_compile_options(parser)
    add_json_option(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    module = loaded(options.model) if is_artifact(options.model) else compiled(options, options.model)
    decisions = module.extras["decisions"]
    if options.json:
        keys = ("node", "operator", "backend", "refusals")
        print_json([dict(zip(keys, decision, strict=True)) for decision in decisions])
    elif options.summary:
        print(_summary(decisions))
    else:
        print(columns([("node", "operator", "backend", "refused by"), *map(_row, decisions)], indent=""))
    return 0


def _row(decision: Sequence[Any]) -> tuple[str, str, str, str]:
    node, operator, backend, refusals = decision
    return node, operator, backend, "; ".join(f"{who}: {reason}" for who, reason in refusals)


def _summary(decisions: Sequence[Sequence[Any]]) -> str:
    runs = Counter((backend, operator) for _, operator, backend, _ in decisions)
    refused = Counter((who, operator, why) for _, operator, _, refusals in decisions for who, why in refusals)
    lines = []
    for backend in dict.fromkeys(backend for _, _, backend, _ in decisions):
        mine = {operator: count for (who, operator), count in runs.items() if who == backend}
        lines.append(f"{backend} runs {counted(sum(mine.values()), 'node')}")
        lines.append(columns((f"{count} ×", operator) for operator, count in mine.items()))
    for who in dict.fromkeys(who for who, _, _ in refused):
        mine_refused = [(f"{count} ×", operator, why) for (w, operator, why), count in refused.items() if w == who]
        lines += [f"{who} refused", columns(mine_refused)]
    return "\n".join(lines)
