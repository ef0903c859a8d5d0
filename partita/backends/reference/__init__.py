"""The `reference` backend: regions that ONNX's reference evaluator interprets. Slow, and nearly complete."""

from partita.backends.reference.backend import ReferenceBackend

BACKEND = ReferenceBackend

__all__ = ["BACKEND", "ReferenceBackend"]
