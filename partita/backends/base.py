"""What a backend is: the contract between the compiler and whoever can run a part of a model.

A backend is one folder with one class. It says which nodes it takes, and why it refuses the others; it rewrites the
regions it was given; and it turns each into C source (or into a graph that an engine interprets).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from partita.ir.dims import Dim
from partita.ir.graph import Graph, Node
from partita.ir.region import Region
from partita.passes.claims import Accept, Claim, Composite, Reject
from partita.passes.plan_memory import MemoryPlan
from partita.runtime import CSourceModule, InterpretedModule


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether this machine has what the backend needs, and what is missing or was found, in words."""

    available: bool
    detail: str


FAST_MATH = ("strassen",)  # faster algorithms that a user may allow, whose errors are larger


class Backend(ABC):
    """One accelerator, kernel library, engine, or the host."""

    name: str
    composites: tuple[Composite, ...] = ()
    mcpu: str = "native"  # the processor that the code is for, as the C compiler's -march names it
    fast_math: frozenset[str] = frozenset()  # which of `FAST_MATH` the user allows

    def probe(self) -> Availability:
        """Looks for headers, libraries and instruction sets."""
        return Availability(True, "needs nothing")

    @abstractmethod
    def claims(self, node: Node) -> Claim:
        """Whether the backend runs `node`, and why not. A composite that its check accepted is the backend's without
        this question; `lower` and `emit` see it as a node of domain `partita`, type `Composite`, with attributes `name`
        (the composite's) and `body`."""

    def lower(self, body: Graph) -> None:
        """Rewrites a region's graph in place: decomposition, fusion, layouts, packing of parameters as nodes."""
        return

    def views(self, node: Node) -> Mapping[int, int]:
        """Outputs (by index) that are an input under another shape: they share its memory, and nothing runs."""
        return {}

    def in_place(self, node: Node) -> Mapping[int, int]:
        """Outputs (by index) that may overwrite an input that dies here."""
        return {}

    def parts(self, node: Node) -> Sequence[int]:
        """Where each operand lies in the output, in bytes, of a node that does nothing but put its operands together:
        they may be computed there. None where it does more."""
        return ()

    def workspace(self, node: Node) -> Dim:
        """Bytes of scratch memory that `node` needs while it runs."""
        return 0

    @abstractmethod
    def emit(self, regions: Sequence[Region], plan: MemoryPlan) -> CSourceModule | InterpretedModule:
        """The module of these regions: one function each, named by its symbol. An accelerator is given one region at
        a time, the host all of its regions."""


__all__ = ["FAST_MATH", "Accept", "Availability", "Backend", "Claim", "Composite", "Reject"]
