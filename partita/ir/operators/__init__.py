"""The operators: one definition each, one file a family. Every file of this folder is read, so that all are known."""

import importlib
import pkgutil

from partita.ir.contents import known
from partita.ir.registry import Operator, definition, definitions, operator

__all__ = ["Operator", "definition", "definitions", "known", "operator"]

for _family in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_family.name}")
