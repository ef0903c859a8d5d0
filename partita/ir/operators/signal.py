"""Signal processing: DFT and what is built on it."""

from __future__ import annotations

from partita.ir.operators.older import attribute_to_input, default_was

default_was("DFT", before=20, axis=1)
attribute_to_input("DFT", before=20, attribute="axis", index=2, shape=())
