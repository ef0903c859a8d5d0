"""Operators that read between elements: Resize, GridSample, RoiAlign."""

from __future__ import annotations

import numpy as np

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Node
from partita.ir.operators.older import default_was, value_renamed
from partita.ir.operators.registry import upgrades
from partita.ir.types import DType

value_renamed("GridSample", before=20, attribute="mode", values={"bilinear": "linear", "bicubic": "cubic"})
default_was("RoiAlign", before=16, coordinate_transformation_mode="output_half_pixel")
value_renamed("Upsample", before=7, attribute="mode", values={"bilinear": "linear"})


@upgrades("Upsample", before=9)
def scales_as_operand(build: Builder, node: Node) -> None:
    attributes = node.attributes
    if node.version < 7:
        attributes["scales"] = (1.0, 1.0, attributes.pop("height_scale"), attributes.pop("width_scale"))
    scales = build.constant(np.asarray(attributes.pop("scales"), dtype=np.float32), DType.FLOAT32)
    build.graph.set_input(node, 1, scales)


@upgrades("Upsample", "Resize", before=11)
def places_without_centers(build: Builder, node: Node) -> None:
    """Elements lay at their index, not at their center, and the nearest one was the one before."""
    node.op_type = "Resize"
    node.attributes.update(coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    build.graph.set_inputs(node, [node.operand(0), None, node.operand(1)])


@upgrades("Resize", before=13)
def absent_operands(build: Builder, node: Node) -> None:
    """Operands that say nothing were empty tensors."""
    for index in (1, 2):
        value = node.input(index)
        if value is not None and any(dims.is_static(dim) and dim == 0 for dim in value.shape):
            build.graph.set_input(node, index, None)
