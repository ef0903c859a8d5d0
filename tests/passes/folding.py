"""The checks of `pass_harness` for passes that fold nodes into functions: partitioning and fusion.

In the text form a folded node is a call of a function of the domain `partita`; names count here, as passes choose them.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx
from pass_harness import Example, assert_same, graph_of, model_of, random_inputs

from partita.ir.evaluate import evaluate
from partita.ir.graph import Graph
from partita.ir.schema import NEWEST_OPSET
from partita.ir.verify import verify
from partita.ir.write_onnx import write_onnx

FUNCTION = f'<domain: "partita", opset_import: ["" : {NEWEST_OPSET}]>'
MODEL = f'<ir_version: 10, opset_import: ["" : {NEWEST_OPSET}, "partita" : 1]>'


def check_folding(function: Callable[[Graph], object], example: Example, tolerance: float = 0.0) -> Graph:
    """All four checks; gives the graph that the pass made."""
    graph = check_folded(function, graph_of(example.before), tolerance)
    after = model_of(f"{MODEL}\n{example.after}".replace('<domain: "partita">', FUNCTION))
    assert calls(write_onnx(graph)) == calls(after), onnx.printer.to_text(write_onnx(graph))
    return graph


def check_folded(function: Callable[[Graph], object], graph: Graph, tolerance: float = 0.0) -> Graph:
    """All but the text: the graph verifies, computes the same, and the pass finds nothing more to do."""
    inputs = random_inputs(graph)
    wanted = evaluate(graph, inputs)
    function(graph)
    verify(graph)
    assert_same(evaluate(graph, inputs), wanted, tolerance)
    once = calls(write_onnx(graph))
    function(graph)
    assert calls(write_onnx(graph)) == once
    return graph


def calls(model: onnx.ModelProto) -> object:
    """What a model and its functions compute, in names."""
    functions = {f.name: (list(f.input), list(f.output), _nodes(f.node)) for f in model.functions}
    graph = model.graph
    return [i.name for i in graph.input], [o.name for o in graph.output], _nodes(graph.node), functions


def _nodes(nodes: list[onnx.NodeProto]) -> list[object]:
    return [
        (n.domain, n.op_type, list(n.input), list(n.output), sorted(a.SerializeToString() for a in n.attribute))
        for n in nodes
    ]
