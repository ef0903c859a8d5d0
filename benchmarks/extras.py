"""Packages that only some models and measurements need."""

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """A model or a measurement needs a package that is not installed."""


def need(module: str, package: str) -> ModuleType:
    """Import a module, or say which package to install for it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{module} cannot be imported; install {package}: {error}") from error
