"""What partitioning asks of a backend: which nodes it takes, why it refuses the others, which chains it runs as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from partita.ir.graph import Graph, Node
from partita.ir.subgraph import fold


@dataclass(frozen=True, slots=True)
class Accept:
    """The backend runs this node."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The backend does not run this node, and why: shown by `partita explain` and in errors."""

    reason: str


Claim = Accept | Reject


@dataclass(frozen=True, slots=True)
class Composite:
    """A chain of operators that the backend runs as one, such as Conv -> Add -> Relu.

    `chain` lists the operator types from the first node to the last; a step may name alternatives ("Relu|Clip") and,
    with a final "?", be absent. Each step's result is read by the next step alone. `check` sees the matched nodes
    (types included) and may refuse them with a reason.
    """

    name: str
    chain: tuple[str, ...]
    check: Callable[[Sequence[Node]], Claim] = field(default=lambda nodes: Accept())


class Claimant(Protocol):
    """The part of a backend that partitioning sees."""

    name: str
    composites: tuple[Composite, ...]

    def claims(self, node: Node) -> Claim: ...


def match_composites(graph: Graph, backend: Claimant) -> None:
    """Folds every chain that `backend` runs as one into a node of type `Composite`, longest match first. Its
    attributes: `backend`, `name` (the composite's) and `body`."""
    for node in graph.nodes:
        for composite in backend.composites:
            chain = _match(graph, node, composite.chain)
            while len(chain) > 1 and isinstance(composite.check(chain), Reject):
                chain = _match(graph, node, composite.chain, limit=len(chain) - 1)
            if len(chain) > 1:
                fold(graph, chain, "Composite", {"backend": backend.name, "name": composite.name})
                break


def _match(graph: Graph, first: Node, chain: Sequence[str], limit: int | None = None) -> list[Node]:
    """The nodes of a chain that starts at `first`, at most `limit` of them; [] where a step that must be there is
    missing."""
    matched: list[Node] = []
    current: Node | None = first
    for place, step in enumerate(chain):
        if limit is not None and len(matched) == limit:
            return matched if all(s.endswith("?") for s in chain[place:]) else []
        names = step.rstrip("?").split("|")
        if current is not None and current.domain == "" and current.op_type in names:
            matched.append(current)
            current = _only_user(graph, current)
        elif not step.endswith("?"):
            return []
    return matched


def _only_user(graph: Graph, node: Node) -> Node | None:
    if len(node.outputs) != 1 or graph.is_output(node.output):
        return None
    uses = graph.uses(node.output)
    return uses[0][0] if len(uses) == 1 else None
