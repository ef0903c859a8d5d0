"""What partitioning asks of a backend: which nodes it takes, why it refuses the others, which chains it runs as one."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
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


@dataclass(slots=True)
class Matches:
    """What came of matching: the nodes that each new node stands for, and why checks refused chains, by their first
    node."""

    folded: dict[Node, list[Node]] = field(default_factory=dict)
    refusals: dict[Node, list[str]] = field(default_factory=dict)


def match_composites(graph: Graph, backend: Claimant, free: Sequence[Node]) -> Matches:
    """Folds every chain of `free` nodes that `backend` runs as one into a node of type `Composite`: the longest that
    starts at a node, of equally long ones the composite listed first. The new node's attributes: `backend`, `name`
    (the composite's) and `body`."""
    matches = Matches()
    left = dict.fromkeys(free)
    for first in free:
        if first not in left:
            continue
        for chain, composite in _chains(graph, first, backend.composites, left):
            answer = composite.check(chain)
            if isinstance(answer, Reject):
                operators = " + ".join(node.op_type for node in chain)
                matches.refusals.setdefault(first, []).append(f"{operators} as {composite.name}: {answer.reason}")
                continue
            node = fold(graph, chain, "Composite", {"backend": backend.name, "name": composite.name})
            matches.folded[node] = chain
            for member in chain:
                del left[member]
            break
    return matches


def _chains(
    graph: Graph, first: Node, composites: Sequence[Composite], left: Container[Node]
) -> list[tuple[list[Node], Composite]]:
    """The chains of two nodes and more that start at `first`, longest first."""
    found: list[tuple[list[Node], Composite]] = []
    for composite in composites:
        chain = _match(graph, first, composite.chain, left)
        while len(chain) > 1:
            found.append((chain, composite))
            chain = _match(graph, first, composite.chain, left, limit=len(chain) - 1)
    return sorted(found, key=lambda match: -len(match[0]))


def _match(
    graph: Graph, first: Node, steps: Sequence[str], left: Container[Node], limit: int | None = None
) -> list[Node]:
    """The nodes of a chain that starts at `first`, at most `limit` of them; [] where a step that must be there is
    missing."""
    matched: list[Node] = []
    current: Node | None = first
    for place, step in enumerate(steps):
        if limit is not None and len(matched) == limit:
            return matched if all(s.endswith("?") for s in steps[place:]) else []
        names = step.rstrip("?").split("|")
        if current is not None and current in left and current.domain == "" and current.op_type in names:
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
