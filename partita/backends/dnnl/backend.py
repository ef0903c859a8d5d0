"""The backend's class: what the compiler calls, each answered in a file of its own."""

from __future__ import annotations

from collections.abc import Sequence

from partita.backends.base import Availability, Backend
from partita.backends.dnnl.claims import COMPOSITES, refusal
from partita.backends.dnnl.emit import headers, print_region
from partita.backends.dnnl.library import DnnlLibrary, find_library
from partita.backends.dnnl.lower import lower_region
from partita.errors import BackendError
from partita.ir.graph import Graph, Node
from partita.ir.region import Region
from partita.passes.claims import Accept, Claim, Reject
from partita.passes.plan_memory import MemoryPlan
from partita.runtime import CSourceModule, Function, Unit


class DnnlBackend(Backend):
    """oneDNN on the CPU: float32, static shapes."""

    name = "dnnl"
    composites = COMPOSITES

    def probe(self) -> Availability:
        found = find_library()
        if isinstance(found, DnnlLibrary):
            return Availability(True, f"oneDNN {found.version} in {found.prefix}")
        return Availability(False, found)

    def claims(self, node: Node) -> Claim:
        reason = refusal(node)
        return Accept() if reason is None else Reject(reason)

    def lower(self, body: Graph) -> None:
        lower_region(body)

    def emit(self, regions: Sequence[Region], plan: MemoryPlan) -> CSourceModule:
        found = find_library()
        if not isinstance(found, DnnlLibrary):
            raise BackendError(f"backend 'dnnl' cannot be used: {found}")
        units, functions = [], []
        for region in regions:
            text, constants = print_region(region)
            units.append(Unit(region.symbol, text))
            functions.append(Function(region.symbol, constants, has_state=True, has_free=True))
        return CSourceModule(
            self.name,
            tuple(units),
            tuple(functions),
            headers(),
            include_directories=found.include_directories,
            library_directories=found.library_directories,
            libraries=("dnnl",),
        )
