"""Maps at a model's border: inside there are none.

A map that goes in becomes two inputs, `x.keys` and `x.values`, tensors of rank 1. What ZipMap gives becomes the tensor
of its values, a row for each map. The nodes that take or give maps move to the domain `partita`, where they take
tensors; what the border was is told, for those who run the model with dicts.
"""

from __future__ import annotations

import onnx
from onnx import helper

DOMAIN = "ai.onnx.ml"
Maps = tuple[tuple[str, tuple[int | str, ...] | None], ...]
"""Names of inputs that were maps, with None; and of outputs that are lists of maps, with the keys of all of them."""


def take_out_maps(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Maps]:
    """The model without maps at its border; another one, if it had any."""
    inputs = {info.name for info in model.graph.input if info.type.HasField("map_type")}
    outputs = {info.name for info in model.graph.output}
    zipped = [node for node in model.graph.node if _is(node, "ZipMap") and node.output[0] in outputs]
    if not inputs and not zipped:
        return model, ()
    result = onnx.ModelProto()
    result.CopyFrom(model)
    result.opset_import.append(helper.make_opsetid("partita", 1))
    graph = result.graph
    maps: list[tuple[str, tuple[int | str, ...] | None]] = [(name, None) for name in sorted(inputs)]
    infos = [part for info in graph.input for part in (_parts(info) if info.name in inputs else [info])]
    del graph.input[:]
    graph.input.extend(infos)
    for node in graph.node:
        if _is(node, "CastMap", "DictVectorizer") and node.input[0] in inputs:
            node.domain, name = "partita", node.input[0]
            node.input[:] = [f"{name}.keys", f"{name}.values"]
        elif _is(node, "ZipMap") and node.output[0] in outputs:
            node.domain = "partita"
            maps.append((node.output[0], _labels(node)))
    untyped = {name for name, labels in maps if labels is not None}
    for info in (*graph.output, *graph.value_info):
        if info.name in untyped:
            info.ClearField("type")
    return result, tuple(maps)


def _is(node: onnx.NodeProto, *names: str) -> bool:
    return node.domain == DOMAIN and node.op_type in names and len(node.input) == len(node.output) == 1


def _parts(info: onnx.ValueInfoProto) -> list[onnx.ValueInfoProto]:
    """Two inputs in the place of a map."""
    types = {"keys": info.type.map_type.key_type, "values": info.type.map_type.value_type.tensor_type.elem_type}
    return [
        helper.make_tensor_value_info(f"{info.name}.{part}", kind, [f"{info.name}.size"])
        for part, kind in types.items()
    ]


def _labels(node: onnx.NodeProto) -> tuple[int | str, ...]:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if "classlabels_strings" in attributes:
        return tuple(text.decode() for text in attributes["classlabels_strings"].strings)
    return tuple(attributes["classlabels_int64s"].ints) if "classlabels_int64s" in attributes else ()
