"""Binding: what depends on parameters alone leaves every graph, once, and runs again on other weights."""

from __future__ import annotations

import numpy as np
import pytest
from pass_harness import assert_same, example_of, graph_of, model_of, random_inputs, signature
from toy_backends import Toy, cut, region_named

from partita.ir import dims
from partita.ir.evaluate import evaluate
from partita.ir.graph import Graph
from partita.ir.read_onnx import read_onnx
from partita.ir.region import regions
from partita.ir.verify import verify
from partita.passes import bind
from partita.passes.bind import BindProgram
from partita.runtime import evaluate_bind_program


def bound(text: str) -> tuple[Graph, BindProgram]:
    """A graph and its bind program; checked: it verifies, computes the same, and nothing more is to be hoisted."""
    graph = graph_of(text)
    program = BindProgram(graph)
    inputs = random_inputs(graph)
    wanted = evaluate(graph, inputs)
    hoisted = program.hoist(graph)
    assert hoisted is bool(program.graph.nodes)
    verify(graph)
    assert_same(evaluate(graph, inputs), wanted)
    once = signature(graph)
    assert program.hoist(graph) is False
    assert signature(graph) == once
    return graph, program


def operators(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.nodes]


def test_example():
    example = example_of(bind)
    graph, program = bound(example.before)
    assert signature(graph) == signature(graph_of(example.after))
    (name,) = [value.name for value in graph.parameters]
    program.finish(graph, [name])
    part, expected = read_onnx(program.to_bytes()), read_onnx(model_of(example.bind).SerializeToString())
    assert signature(part) == signature(expected)


# ---------------------------------------------------------------------- what is hoisted, and what stays


def test_a_chain_is_hoisted_and_its_last_result_alone_becomes_a_parameter():
    graph, program = bound(
        """model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Exp (w) b = Neg (a) y = Add (x, b) }"""
    )
    assert operators(graph) == ["Add"]
    assert [value.name for value in graph.parameters] == ["b"]
    assert operators(program.graph) == ["Exp", "Neg"]


def test_a_result_read_twice_is_one_parameter():
    graph, _ = bound(
        "model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Exp (w) b = Add (x, a) y = Mul (b, a) }"
    )
    assert [value.name for value in graph.parameters] == ["a"]
    assert graph.nodes[0].operand(1) is graph.nodes[1].operand(1)


def test_every_output_of_a_node_is_its_own_parameter():
    graph, program = bound(
        """model (float[2] x) => (float[2] y) <float[4] w = {1, 2, 3, 4}> {
            a, b = Split <num_outputs = 2> (w) c = Add (x, a) y = Mul (c, b)
        }"""
    )
    assert [value.name for value in graph.parameters] == ["a", "b"]
    assert {name: array.tolist() for name, array in program.evaluate(["b", "a"]).items()} == {"b": [3, 4], "a": [1, 2]}


def test_nothing_is_hoisted_from_a_graph_that_computes_with_inputs_alone():
    graph, program = bound("model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add (x, w) }")
    assert operators(graph) == ["Add"]
    program.finish(graph, ["w"])
    assert program.entries == ("w",)
    assert program.evaluate()["w"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "body",
    [
        "r = RandomNormalLike (w)",
        "r = RandomUniform <shape = [1, 2]> ()",
        "r = Bernoulli (w)",
        "m = Multinomial <sample_size = 2> (w) r = Cast <to = 1> (m)",
    ],
)
def test_what_is_random_stays(body):
    """Bound once, it would be the same in every run."""
    graph = graph_of(
        f"model (float[2] x) => (float[1, 2] y) <float[1, 2] w = {{0.5, 0.5}}> {{ {body} y = Add (x, r) }}"
    )
    before = operators(graph)
    assert BindProgram(graph).hoist(graph) is False
    assert operators(graph) == before


def test_an_output_of_the_model_keeps_its_node_and_its_name():
    graph, _ = bound(
        "model (float[2] x) => (float[2] y, float[2] k) <float[2] w = {1, 2}> { k = Exp (w) y = Add (x, k) }"
    )
    assert [value.name for value in graph.outputs] == ["y", "k"]
    assert operators(graph) == ["Exp", "Add"]


def test_what_has_no_known_size_stays():
    text = """model (float[2] x) => (float[M] y) <float[2] w = {0, 2}> {
        n = NonZero (w) s = Squeeze (n) f = Cast <to = 1> (s) e = ReduceSum <keepdims = 0> (x) y = Add (f, e)
    }"""
    graph = graph_of(text)
    program = BindProgram(graph)
    program.hoist(graph)
    hoisted = [output for node in program.graph.nodes for output in node.outputs]
    assert all(dims.all_static(output.shape) for output in hoisted)
    assert "Cast" in operators(graph)


# ---------------------------------------------------------------------- regions

TWO = """model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
    a = Add (x, w) b = Exp (a) y = Mul (b, w)
}"""


def two_regions() -> tuple[Graph, BindProgram, list[Graph]]:
    """Two regions of one backend around one of the host's; both read w."""
    graph, _ = cut(TWO, Toy("acc", ("Add", "Mul")))
    program = BindProgram(graph_of(TWO))
    program.hoist(graph)
    return graph, program, [region_named(graph, symbol).body for symbol in ("m_acc_0", "m_acc_1")]


def pack(body: Graph, op_type: str, name: str) -> None:
    """What a backend does when it lowers: a node between w and its reader."""
    node = next(n for n in body.nodes if any(v.parameter is not None for v in n.operands))
    weight = next(v for v in node.operands if v.parameter is not None)
    packed = body.add_node(op_type, [weight], outputs=[name])
    packed.output.type = weight.type
    body.set_input(node, node.inputs.index(weight), packed.output)


def test_regions_that_compute_the_same_share_one_entry():
    _, program, bodies = two_regions()
    pack(bodies[0], "Neg", "packed")
    pack(bodies[1], "Neg", "elsewhere")
    assert program.hoist(bodies[0]) and program.hoist(bodies[1])
    assert [[v.name for v in body.parameters] for body in bodies] == [["packed"], ["packed"]]
    assert operators(program.graph) == ["Neg"]
    assert program.evaluate(["packed"])["packed"].tolist() == [-1, -2]


def test_regions_that_compute_otherwise_under_one_name_have_an_entry_each():
    _, program, bodies = two_regions()
    pack(bodies[0], "Neg", "packed")
    pack(bodies[1], "Exp", "packed")
    for body in bodies:
        program.hoist(body)
    first, second = ([v.name for v in body.parameters] for body in bodies)
    assert first == ["packed"] and second != first
    values = program.evaluate([*first, *second])
    np.testing.assert_array_equal(values["packed"], [-1, -2])
    np.testing.assert_allclose(values[second[0]], np.exp([1, 2]), rtol=1e-6)


@pytest.mark.parametrize(("content", "names"), [([3, 4], ["c", "c.2"]), ([1, 2], ["c", "c"])])
def test_constants_of_one_name_are_told_apart_by_their_bytes(content, names):
    """Backends that lower different regions make names on their own."""
    _, program, bodies = two_regions()
    for body, numbers in zip(bodies, ([1, 2], content), strict=True):
        array = np.array(numbers, np.float32)
        weight = next(iter(body.parameters))
        constant = body.add_parameter("c", weight.type, lambda array=array: array, is_constant=True)
        node = next(n for n in body.nodes if weight in n.operands)
        body.set_input(node, node.inputs.index(weight), constant)
        program.hoist(body)
    assert [[v.name for v in body.parameters] for body in bodies] == [[name] for name in names]
    arrays = program.evaluate(names)
    assert arrays[names[0]].tolist() == [1, 2]
    assert arrays[names[1]].tolist() == content


def test_a_computed_name_never_hides_a_models_input():
    graph = graph_of("model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Exp (x) y = Add (a, w) }")
    program = BindProgram(graph)
    body = graph_of("model (float[2] a) => (float[2] y) <float[2] w = {1, 2}> { x = Neg (w) y = Add (a, x) }")
    program.hoist(graph)
    program.hoist(body)
    assert [value.name for value in body.parameters] == ["x.bound"]
    assert program.evaluate(["x.bound"])["x.bound"].tolist() == [-1, -2]


def test_a_region_that_names_a_run_time_value_alike_renames_it():
    _, program, bodies = two_regions()
    pack(bodies[0], "Neg", "packed")
    program.hoist(bodies[0])
    inner = bodies[1].inputs[0]
    bodies[1].rename(inner, "packed")
    pack(bodies[1], "Neg", "again")
    program.hoist(bodies[1])
    assert inner.name == "packed.unbound"
    assert [v.name for v in bodies[1].parameters] == ["packed"]


# ---------------------------------------------------------------------- the table and its program


def test_entries_are_what_is_asked_for_and_outputs_that_are_parameters():
    graph = graph_of("model (float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {3, 4}> { y = Add (x, w) }")
    program = BindProgram(graph)
    unused = graph.value_named("v")
    graph.set_outputs([*graph.outputs, unused])
    program.hoist(graph)
    program.finish(graph, ["w", "w"])
    assert program.entries == ("w", "v")
    assert {name: array.tolist() for name, array in program.evaluate().items()} == {"w": [3, 4], "v": [1, 2]}


def test_a_weight_that_nothing_needs_is_not_asked_for():
    graph, program = bound(
        "model (float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {3, 4}> { a = Exp (w) y = Add (x, a) }"
    )
    program.finish(graph, ["a"])
    assert list(program.weights) == ["w"]


def test_the_program_runs_again_on_other_weights():
    graph, program = bound(
        "model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Neg (w) b = Add (x, a) y = Mul (b, w) }"
    )
    program.finish(graph, ["a", "w"])
    other = evaluate_bind_program(program.to_bytes(), {"w": np.array([5, 6], np.float32)})
    assert {name: array.tolist() for name, array in other.items()} == {"a": [-5, -6], "w": [5, 6]}


def test_a_part_of_the_program_asks_for_its_own_weights_alone():
    _, program = bound(
        """model (float[2] x) => (float[2] y) <float[2] v = {1, 2}, float[2] w = {3, 4}> {
            a = Neg (v) b = Exp (w) c = Add (x, a) y = Mul (c, b)
        }"""
    )
    part = read_onnx(program.to_bytes(["a"]))
    assert ([v.name for v in part.inputs], operators(part)) == (["v"], ["Neg"])
    assert evaluate_bind_program(program.to_bytes(["a"]), {"v": np.ones(2, np.float32)})["a"].tolist() == [-1, -1]


# ---------------------------------------------------------------------- baking


def test_to_look_at_what_is_computed_bakes_the_weights_behind_it():
    graph, program = bound(
        """model (float[2] x) => (float[2] y) <float[2] u = {1, 1}, float[2] v = {1, 2}, float[2] w = {3, 4}> {
            a = Add (u, v) b = Neg (a) c = Exp (w) d = Mul (b, x) y = Add (d, c)
        }"""
    )
    assert not any(weight.baked for weight in program.weights.values())
    assert graph.value_named("b").parameter.bake().tolist() == [-2, -3]
    assert {name: weight.baked for name, weight in program.weights.items()} == {"u": True, "v": True, "w": False}


def test_to_compute_does_not_bake():
    graph, program = bound("model (float[2] x) => (float[2] y) <float[2] w = {3, 4}> { c = Exp (w) y = Add (x, c) }")
    assert graph.value_named("c").parameter.array.shape == (2,)
    program.evaluate(["c"])
    assert not program.weights["w"].baked


@pytest.mark.parametrize(("looks", "kept"), [(True, ["v", "w"]), (False, ["w"])])
def test_what_was_looked_at_is_kept_although_no_entry_needs_it(looks, kept):
    weights = "<float[2] v = {1, 2}, float[2] w = {3, 4}>"
    graph = graph_of(f"model (float[2] x) => (float[2] y) {weights} {{ a = Add (x, v) y = Add (a, w) }}")
    program = BindProgram(graph)
    if looks:
        graph.value_named("v").parameter.bake()
    program.hoist(graph)
    program.finish(graph, ["w"])
    assert sorted(program.weights) == kept


def test_a_region_that_looks_bakes_the_models_weight():
    graph, program, bodies = two_regions()
    next(iter(bodies[0].parameters.values())).bake()
    assert program.weights["w"].baked
    assert len(regions(graph)) == 3
