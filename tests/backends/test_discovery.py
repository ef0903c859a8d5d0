"""Finding backends by folder and by entry point, and what is said when one cannot be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from partita.backends import discovery
from partita.backends.base import Accept, Availability, Backend, Claim
from partita.errors import BackendError
from partita.ir.graph import Node
from partita.ir.region import Region
from partita.passes.plan_memory import MemoryPlan
from partita.runtime import CSourceModule


class Accelerator(Backend):
    name = "accelerator"

    def claims(self, node: Node) -> Claim:
        return Accept()

    def emit(self, regions: Sequence[Region], plan: MemoryPlan) -> CSourceModule:
        raise NotImplementedError


class Missing(Accelerator):
    def probe(self) -> Availability:
        return Availability(False, "install the driver")


@dataclass
class Distribution:
    name: str


@dataclass
class Point:
    """What an entry point looks like to discovery."""

    name: str
    answer: object
    dist: Distribution | None = None
    value: str = "package:Backend"

    def load(self) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes other packages offer these entry points."""

    def install(*points: Point) -> None:
        monkeypatch.setattr(discovery, "entry_points", lambda group: list(points))

    return install


def names(backends: list[Backend]) -> list[str]:
    return [backend.name for backend in backends]


def test_the_host_is_last_and_named_once() -> None:
    assert names(discovery.backends()) == ["cpu"]
    assert names(discovery.backends(["reference"])) == ["reference", "cpu"]
    assert names(discovery.backends(["cpu", "reference", "reference"])) == ["reference", "cpu"]


def test_backend_of_another_package(offer: Any) -> None:
    offer(Point("accelerator", Accelerator, Distribution("vendor")))
    assert names(discovery.backends(["accelerator"])) == ["accelerator", "cpu"]
    found = {item.name: item.owner for item in discovery.available()}
    assert found["accelerator"] == "vendor"
    assert found["reference"] == "partita"
    assert list(found) == sorted(found)


def test_unknown_name_lists_what_there_is(offer: Any) -> None:
    offer(Point("accelerator", Missing, Distribution("vendor")))
    with pytest.raises(BackendError) as caught:
        discovery.backends(["abacus", "reference", "slide_rule"])
    message = str(caught.value)
    assert "no backend is called 'abacus', 'slide_rule'" in message
    assert "accelerator (vendor): not available: install the driver" in message
    assert "reference (partita): ONNX's reference evaluator" in message


def test_duplicate_names_both_owners(offer: Any) -> None:
    offer(Point("reference", Accelerator, Distribution("vendor")))
    with pytest.raises(BackendError, match="'reference' is offered by partita and by vendor"):
        discovery.backends()


def test_unavailable_backend_says_why(offer: Any) -> None:
    offer(Point("accelerator", Missing))
    with pytest.raises(BackendError, match="'accelerator' cannot be used here: install the driver"):
        discovery.backends(["accelerator"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ImportError("no module"), "of vendor cannot be loaded: ImportError: no module"),
        (dict, "is <class 'dict'>, which is no subclass of partita.backends.base.Backend"),
        (Missing, "calls itself 'accelerator'"),
    ],
)
def test_broken_package(offer: Any, answer: object, message: str) -> None:
    """It is named where it is wanted, listed with its fault, and in nobody else's way."""
    offer(Point("broken", answer, Distribution("vendor")))
    with pytest.raises(BackendError, match=message):
        discovery.backends(["broken"])
    (listed,) = [item for item in discovery.available() if item.name == "broken"]
    assert not listed.availability.available
    assert message in listed.availability.detail
    assert names(discovery.backends()) == ["cpu"]
