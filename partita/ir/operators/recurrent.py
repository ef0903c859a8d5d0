"""Recurrent layers: RNN, GRU and LSTM."""

from __future__ import annotations

from partita.ir.operators.older import attribute_dropped, value_renamed

attribute_dropped("RNN", "GRU", "LSTM", before=7, attributes=["output_sequence"])
value_renamed("GRU", before=3, attribute="direction", values={"foward": "forward"})
