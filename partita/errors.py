"""Every error a user can meet, by the stage that raises it.

Each message says what is wrong, where (node, value or file), why, and what to try. Errors that come in numbers
(unsupported operators, wrong inputs) list all of a kind at once.
"""

from __future__ import annotations


class PartitaError(Exception):
    """The base of all errors of this package."""


class ModelError(PartitaError):
    """The file is not an ONNX model that can be read: format, opset, graph structure, types."""


class UnsupportedOperatorError(PartitaError):
    """No backend among the targets and the host can run some nodes; the message lists all of them."""


class ShapeError(PartitaError):
    """Shapes or types contradict each other, or a size that must be known is not."""


class VerificationError(PartitaError):
    """The graph breaks a rule of the IR: the compiler's own fault, found between two passes."""


class BackendError(PartitaError):
    """A backend is unknown, lacks what it needs on this machine, or did less than it claimed."""


class CompilerError(PartitaError):
    """No C compiler was found, or the one that was found failed; the message holds its command and output."""


class ArtifactError(PartitaError):
    """A compiled artifact is missing, truncated, of another version or architecture, or fails its digest."""


class InputError(PartitaError):
    """The caller's inputs do not fit the model: names, data types, shapes, counts."""


class ParameterError(PartitaError):
    """The parameter table lacks an entry, or new weights do not fit: names, shapes, baked values."""


class ExecutionError(PartitaError):
    """A run failed: an index out of range in the data, a library that refused, a module used after close."""
