"""A model made for one sample, for several at once: the first size of every input becomes the batch."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, numpy_helper, shape_inference


def batched(model: ModelProto, batch: int) -> ModelProto:
    """The model for `batch` samples in the first axis of its inputs and outputs.

    Sizes of one in front of a Reshape's wanted shape are samples, too: so networks write their last flattening, and
    encoders their heads.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    parameters = {item.name: item for item in graph.initializer}
    parameters |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    del graph.value_info[:]
    for item in (*graph.input, *graph.output):
        if item.name not in parameters:
            item.type.tensor_type.shape.dim[0].dim_value = batch
    for name in {node.input[1] for node in graph.node if node.op_type == "Reshape"}:
        if name in parameters:
            shape = numpy_helper.to_array(parameters[name])
            if len(shape) > 1 and shape[0] == 1:
                changed = np.concatenate([[batch], shape[1:]]).astype(np.int64)
                parameters[name].CopyFrom(numpy_helper.from_array(changed, name))
    return shape_inference.infer_shapes(result, strict_mode=True)
