"""Bind time: the parameter table computed from a model's parameters, with no C compiler.

The bind program is an ONNX model: its inputs are the model's original parameters, its outputs the table's entries.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from partita.errors import ParameterError
from partita.runtime.data_types import fits, type_name
from partita.runtime.strings import packed
from partita.runtime.table import Array

WORKERS = 4  # components evaluated at a time, at most: each holds what lies between its parameters and its entries


def value_digest(array: Array) -> str:
    """The digest by which a baked value is known: sha256 of its type, shape and bytes, in hexadecimal."""
    contents = packed(array)
    dense = np.ascontiguousarray(contents, dtype=contents.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{array.dtype.name}{list(array.shape)}".encode())
    digest.update(dense.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def check_baked(baked: Iterable[tuple[str, str]], parameters: Mapping[str, Array]) -> None:
    """Refuses parameters that change a value the compiler looked at. One that is not given is taken as kept.

    Raises:
        ParameterError: naming all of them.
    """
    changed = [name for name, digest in baked if name in parameters and value_digest(parameters[name]) != digest]
    if changed:
        raise ParameterError(
            f"the compiler looked at the values of {', '.join(map(repr, changed))}, and they differ now: "
            "compile the model again"
        )


def evaluate_bind_program(model: bytes, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """Computes the table's entries.

    Nodes that are connected are evaluated together, a few such components at a time, so that what lies between is
    dropped at once. Entries that are parameters are those very arrays.

    Args:
        model: the bind program, as bytes of an ONNX model.
        parameters: the original parameters; further ones are ignored.

    Raises:
        ParameterError: parameters are missing, or of another type or shape, all listed; or a node failed on them.
    """
    import onnx

    program: Any = onnx.load_model_from_string(model)
    _check_parameters(program, parameters)
    given = {item.name: _native(parameters[item.name]) for item in program.graph.input}
    entries: dict[str, Array] = {}
    with ThreadPoolExecutor(max_workers=min(WORKERS, len(os.sched_getaffinity(0)))) as pool:
        for results in pool.map(partial(_evaluate, program, parameters=given), _components(program)):
            entries.update(results)
    given |= _initializers(program)
    names = [output.name for output in program.graph.output]
    return {name: packed(entries[name] if name in entries else given[name]) for name in names}


def _check_parameters(program: Any, parameters: Mapping[str, Array]) -> None:
    problems = []
    for item in program.graph.input:
        wanted = item.type.tensor_type
        if item.name not in parameters:
            problems.append(f"{item.name!r} is missing")
            continue
        array = parameters[item.name]
        if not fits(array.dtype, wanted.elem_type):
            problems.append(f"{item.name!r} is {array.dtype}, expected {type_name(wanted.elem_type)}")
        shape = tuple(dim.dim_value for dim in wanted.shape.dim)
        if wanted.HasField("shape") and array.shape != shape:
            problems.append(f"{item.name!r} has shape {array.shape}, expected {shape}")
    if problems:
        raise ParameterError("the parameters do not fit the model:\n  " + "\n  ".join(problems))


def _native(array: Array) -> Array:
    """The array in this machine's byte order: the very one, where it is in it already. Strings as objects."""
    given = np.asarray(array)
    if given.dtype.kind in "UST":
        return given.astype(object)
    return given if given.dtype.isnative else given.astype(given.dtype.newbyteorder("="))


def _initializers(program: Any) -> dict[str, Array]:
    from onnx import numpy_helper

    return {item.name: numpy_helper.to_array(item) for item in program.graph.initializer}


def _reads(node: Any) -> list[str]:
    """Every name a node may read: its inputs, and whatever its subgraphs mention."""
    names = list(node.input)
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            names += [name for inner in graph.node for name in _reads(inner)]
            names += [output.name for output in graph.output]
    return names


def _components(program: Any) -> list[list[Any]]:
    """The nodes, in order, by weakly connected component; sharing a parameter does not connect."""
    nodes = list(program.graph.node)
    root = list(range(len(nodes)))

    def find(index: int) -> int:
        while root[index] != index:
            root[index] = root[root[index]]
            index = root[index]
        return index

    producer: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in _reads(node):
            if name in producer:
                one, other = sorted((find(producer[name]), find(index)))
                root[other] = one
        producer |= {name: index for name in node.output if name}
    components: dict[int, list[Any]] = {}
    for index, node in enumerate(nodes):
        components.setdefault(find(index), []).append(node)
    return list(components.values())


def _evaluate(program: Any, nodes: list[Any], parameters: Mapping[str, Array]) -> dict[str, Array]:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    read = {name for node in nodes for name in _reads(node)}
    produced = {name for node in nodes for name in node.output}
    inputs = [item for item in program.graph.input if item.name in read]
    outputs = [item for item in program.graph.output if item.name in produced]
    initializers = [item for item in program.graph.initializer if item.name in read]
    graph = helper.make_graph(nodes, "bind", inputs, outputs, initializers)
    model = helper.make_model(
        graph, opset_imports=program.opset_import, functions=program.functions, ir_version=program.ir_version
    )
    try:
        evaluator: Any = ReferenceEvaluator(model)
        results = evaluator.run(None, {item.name: parameters[item.name] for item in inputs})
    except Exception as error:  # whatever a node raises, the parameters made it
        names = ", ".join(repr(item.name) for item in outputs)
        raise ParameterError(f"computing {names} from the parameters failed: {error}") from error
    # Dense here rather than when they are used: threads share the work.
    return {item.name: np.asarray(result, order="C") for item, result in zip(outputs, results, strict=True)}
