"""Four checks for every pass, from one example: `before --> after` in ONNX's text form.

    example = example_of(partita.passes.dead_code)          # from the module's docstring
    check_example(dead_code, example.before, example.after)
    check(dead_code, graph_of("model (float[2] x) => (float[2] y) { y = Neg (x) }"))   # all but the text

A pass (1) leaves a graph that verifies, (2) makes what the example says, (3) computes the same numbers, and (4) finds
nothing to do in what it made. See docs/passes.md.
"""

import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import onnx

from partita.ir import dims
from partita.ir.evaluate import evaluate
from partita.ir.graph import Graph, Node
from partita.ir.read_onnx import read_onnx
from partita.ir.schema import NEWEST_OPSET
from partita.ir.types import DType, TensorType
from partita.ir.verify import verify
from partita.ir.write_onnx import write_onnx
from partita.passes.canonicalize import canonicalize
from partita.passes.dead_code import dead_code

HEADER = f'<ir_version: 10, opset_import: ["" : {NEWEST_OPSET}]>'
Pass = Callable[[Graph], bool]


@dataclass(frozen=True)
class Example:
    """One application of a pass, as texts."""

    before: str
    after: str
    bind: str = ""  # what runs when weights are bound, where the pass moves something there


def example_of(documented: ModuleType | Callable[..., Any]) -> Example | None:
    """The example in a docstring: the blocks after `before:`, `after:` and, if there is one, `bind:`. None when
    there is none in text form."""
    text = inspect.getdoc(documented) or ""
    found = re.search(r"^ +before: (.*?)^ +after: (.*?)(?:^ +bind: (.*?))?(?=^\S|\Z)", text, re.DOTALL | re.MULTILINE)
    if found is None or "=>" not in found[1]:
        return None
    return Example(*(textwrap.dedent(block or "").strip() for block in found.groups()))


def model_of(text: str) -> onnx.ModelProto:
    """The model that a text stands for. The newest opset is imported unless a header says otherwise."""
    model = onnx.parser.parse_model(text if text.lstrip().startswith("<") else f"{HEADER}\n{text}")
    model.ir_version = max(model.ir_version, 3)
    return model


def graph_of(text: str, *, canonical: bool = True) -> Graph:
    """The graph that a text stands for, typed unless `canonical` is off."""
    graph = read_onnx(model_of(text).SerializeToString())
    if canonical:
        canonicalize(graph)
    return graph


def text_of(graph: Graph) -> str:
    """The graph in the text form, for people."""
    return str(onnx.printer.to_text(write_onnx(graph)))


def check_example(function: Pass, before: str, after: str, **options: Any) -> Graph:
    """All four checks; gives the graph that the pass made of `before`."""
    graph = check(function, graph_of(before, canonical=function is not canonicalize), **options)
    expected = graph_of(after)
    for either in (graph, expected):
        dead_code(either)
    assert signature(graph) == signature(expected), f"got\n{text_of(graph)}\nexpected\n{text_of(expected)}"
    return graph


def check(
    function: Pass,
    graph: Graph,
    *,
    inputs: Mapping[str, np.ndarray] | None = None,
    tolerance: float = 0.0,
    changes: bool = True,
) -> Graph:
    """Runs the pass on `graph` and checks what holds for every pass. Numbers are equal to the last bit (NaN is NaN, -0
    is not 0) unless a relative `tolerance` is given."""
    inputs = inputs if inputs is not None else random_inputs(graph)
    names = [output.name for output in graph.outputs]
    wanted = evaluate(graph, inputs)
    assert function(graph) is changes, (
        f"{function.__name__} {'found nothing to do' if changes else 'changed something'}"
    )
    verify(graph)
    assert [output.name for output in graph.outputs] == names
    assert_same(evaluate(graph, inputs), wanted, tolerance)
    once = signature(graph)
    assert function(graph) is False, f"{function.__name__} changes what it made:\n{text_of(graph)}"
    assert signature(graph) == once
    return graph


def assert_same(got: Mapping[str, Any], wanted: Mapping[str, Any], tolerance: float = 0.0) -> None:
    for name, value in wanted.items():
        assert got[name].dtype == value.dtype
        assert got[name].shape == value.shape
        if tolerance or value.dtype.kind not in "fc":
            np.testing.assert_allclose(got[name], value, rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            np.testing.assert_array_equal(got[name], value, err_msg=name)
            np.testing.assert_array_equal(np.signbit(got[name].real), np.signbit(value.real), err_msg=name)


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Numbers for every input. A symbolic dimension gets a size of its own, from 2 on."""
    random = np.random.default_rng(seed)
    symbols = {name for v in graph.inputs for dim in v.shape for name in dims.symbols_of(dim)}
    sizes = {name: size for size, name in enumerate(sorted(symbols), start=2)}
    return {v.name: _random(random, v.tensor, [dims.evaluate(d, sizes) for d in v.shape]) for v in graph.inputs}


def _random(random: np.random.Generator, kind: TensorType, shape: list[int]) -> np.ndarray:
    if kind.dtype is DType.BOOL:
        return random.random(shape) < 0.5
    if kind.dtype.is_integer:
        return random.integers(0 if not kind.dtype.is_signed else -3, 4, shape).astype(kind.dtype.numpy)
    array = np.asarray(random.standard_normal(shape), dtype=kind.dtype.numpy)
    special = np.asarray([-0.0, 0.0, np.nan, np.inf, -np.inf], dtype=kind.dtype.numpy)
    if array.size >= 16:  # enough room for what floats hold in store
        array.reshape(-1)[: len(special)] = special
    return array


def signature(graph: Graph) -> object:
    """What two graphs have in common when they differ in names and order only."""
    numbers: dict[object, int] = {}

    def number(key: object) -> int:
        return numbers.setdefault(key, len(numbers))

    seen: dict[object, object] = {None: None}
    for value in graph.inputs:
        seen[value] = ("input", value.name, str(value.type))
    for value, parameter in graph.parameters.items():
        array = parameter.array
        seen[value] = ("parameter", str(array.dtype), array.shape, repr(array.tolist()))
    made = []
    for node in graph.nodes:
        key = (node.domain, node.op_type, *(repr(seen[v]) for v in node.inputs), _attributes(node))
        made.append(key)
        for output in node.outputs:
            seen[output] = ("result", hash(key), output.index, str(output.type))
    outputs = [(output.name, repr(seen[output])) for output in graph.outputs]
    parameters = Counter(repr(seen[value]) for value in graph.parameters)
    return outputs, Counter(map(repr, made)), parameters


def _attributes(node: Node) -> str:
    shown = {
        key: signature(value)
        if isinstance(value, Graph)
        else value.tolist()
        if isinstance(value, np.ndarray)
        else value
        for key, value in node.attributes.items()
    }
    return repr(sorted(shown.items(), key=lambda item: item[0]))
