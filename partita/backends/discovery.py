"""Finding backends: the folders beside this file, and what other packages offer in the entry-point group.

A folder's `__init__.py` has the backend's class as `BACKEND`; an entry point of the group `partita.backends` names the
class itself. The folder's or entry point's name is the backend's.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points

import partita.backends
from partita.backends.base import Availability, Backend
from partita.errors import BackendError

HOST = "cpu"
GROUP = "partita.backends"


@dataclass(frozen=True, slots=True)
class Offer:
    """A backend that could be used: its name, the package that brings it, and whether this machine can run it."""

    name: str
    owner: str
    availability: Availability


@dataclass(frozen=True, slots=True)
class _Provider:
    name: str
    owner: str
    load: Callable[[], object]

    def make(self) -> Backend:
        """The backend.

        Raises:
            BackendError: it cannot be imported, or is no backend.
        """
        who = f"backend {self.name!r} of {self.owner}"
        try:
            made = self.load()
            backend = made() if isinstance(made, type) else made
        except Exception as error:
            raise BackendError(f"{who} cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(backend, Backend):
            raise BackendError(f"{who} is {made!r}, which is no subclass of partita.backends.base.Backend")
        if backend.name != self.name:
            raise BackendError(f"{who} calls itself {backend.name!r}; give both one name")
        return backend

    def offer(self) -> Offer:
        try:
            answer = self.make().probe()
        except BackendError as error:
            answer = Availability(False, str(error))
        return Offer(self.name, self.owner, answer)


def backends(names: Sequence[str] = ()) -> list[Backend]:
    """The backends of these names, in order of priority, and the host last.

    Raises:
        BackendError: a name is unknown, offered twice, or of a backend that lacks what it needs here; all of them.
    """
    providers = _providers()
    wanted = [*(name for name in dict.fromkeys(names) if name != HOST), HOST]
    unknown = [name for name in wanted if name not in providers]
    if unknown:
        known = "\n".join(f"  {_described(provider.offer())}" for provider in providers.values())
        raise BackendError(f"no backend is called {', '.join(map(repr, unknown))}; there are\n{known}")
    found = [providers[name].make() for name in wanted]
    problems = [
        f"backend {backend.name!r} cannot be used here: {answer.detail}"
        for backend in found
        if not (answer := backend.probe()).available
    ]
    if problems:
        raise BackendError("\n".join(problems))
    return found


def available() -> list[Offer]:
    """Every backend there is, with its probe's answer.

    Raises:
        BackendError: two have one name.
    """
    return [provider.offer() for provider in _providers().values()]


def _described(offer: Offer) -> str:
    state = "" if offer.availability.available else "not available: "
    return f"{offer.name} ({offer.owner}): {state}{offer.availability.detail}"


def _providers() -> dict[str, _Provider]:
    """By name, sorted; a name that two packages offer is an error."""
    found: dict[str, _Provider] = {}
    problems = []
    for provider in sorted((*_in_tree(), *_out_of_tree()), key=lambda p: (p.name, p.owner)):
        other = found.setdefault(provider.name, provider)
        if other is not provider:
            problems.append(f"backend {provider.name!r} is offered by {other.owner} and by {provider.owner}")
    if problems:
        raise BackendError("; ".join(problems) + ": remove one of the packages")
    return found


def _in_tree() -> Iterator[_Provider]:
    for module in pkgutil.iter_modules(partita.backends.__path__):
        if module.ispkg:
            yield _Provider(module.name, "partita", lambda name=module.name: _class_of(name))  # type: ignore[misc]


def _class_of(folder: str) -> object:
    return importlib.import_module(f"partita.backends.{folder}").BACKEND


def _out_of_tree() -> Iterator[_Provider]:
    for point in entry_points(group=GROUP):
        owner = point.dist.name if point.dist is not None else point.value
        yield _Provider(point.name, owner, point.load)


__all__ = ["GROUP", "HOST", "Offer", "available", "backends"]
