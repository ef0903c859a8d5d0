"""The `dnnl` backend: regions on oneDNN, through its C API."""

from partita.backends.dnnl.backend import DnnlBackend

BACKEND = DnnlBackend

__all__ = ["BACKEND", "DnnlBackend"]
