"""The memory plan: what shares memory, what must not, and how little is enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_check import check_plan
from pass_harness import graph_of, model_of, random_inputs
from toy_backends import Machine

from benchmarks import zoo
from partita import compile, compiler, load_module
from partita.backends import discovery
from partita.backends.base import Backend
from partita.errors import PartitaError
from partita.ir import dims
from partita.ir.graph import Graph
from partita.ir.read_onnx import read_onnx
from partita.ir.types import DType, TensorType
from partita.passes import pipeline
from partita.passes.bind import BindProgram
from partita.passes.dead_code import dead_code
from partita.passes.partition import partition
from partita.passes.plan_memory import MemoryPlan, PlannedBuffer, arrange, height, plan_memory
from partita.runtime import Storage

HOST = Machine("cpu", ("*",))
VIEWS = Machine("cpu", ("*",), views_of=("Identity", "Reshape"))
OVERWRITES = Machine("cpu", ("*",), views_of=("Identity",), overwrites=("Relu", "Neg", "Add"))


def planned(text: str, *machines: Machine) -> MemoryPlan:
    """The plan of a graph on the machines, the host last; checked."""
    machines = machines or (HOST,)
    graph = graph_of(text)
    partition(graph, list(machines), "m")
    traits = {machine.name: machine for machine in machines}
    plan = plan_memory(graph, traits)
    if plan.arena_bytes >= 0:
        assert plan.arena_bytes >= plan.lower_bound
        check_plan(graph, plan, traits)
    return plan


def buffer(plan: MemoryPlan, name: str) -> PlannedBuffer:
    """Where the value of this name lies, in whichever region it is made."""
    return plan.buffer(next(value for value in plan.buffer_of if value.name == name))


def life(plan: MemoryPlan, name: str) -> tuple[int, int]:
    found = buffer(plan, name)
    return found.first, found.last


# ---------------------------------------------------------------------- lives

CHAIN = "model (float[16] x) => (float[16] y) { a = Exp (x) b = Exp (a) c = Exp (b) y = Exp (c) }"


def test_a_value_lives_from_who_makes_it_to_who_reads_it_last():
    text = "model (float[16] x) => (float[16] y) { a = Exp (x) b = Exp (a) c = Exp (b) y = Add (c, a) }"
    plan = planned(text)
    assert {name: life(plan, name) for name in "abc"} == {"a": (0, 3), "b": (1, 2), "c": (2, 3)}
    assert plan.arena_bytes == plan.lower_bound == 3 * 64


def test_values_that_do_not_live_together_share_memory():
    plan = planned(CHAIN)
    assert buffer(plan, "a").offset == buffer(plan, "c").offset != buffer(plan, "b").offset
    assert plan.arena_bytes == plan.lower_bound == 128


def test_inputs_outputs_and_parameters_are_not_the_arenas():
    text = "model (float[16] x) => (float[16] y) <float[16] w> { a = Add (x, w) y = Neg (a) }"
    graph = graph_of(text.replace("<float[16] w>", f"<float[16] w = {{{', '.join('1' * 16)}}}>"))
    partition(graph, [HOST], "m")
    plan = plan_memory(graph, {"cpu": HOST})
    storages = {name: buffer(plan, name).storage for name in "xwya"}
    assert storages == {
        "x": Storage.ARGUMENT,
        "w": Storage.CONSTANT,
        "y": Storage.ARGUMENT,
        "a": Storage.ARENA,
    }
    assert [buffer(plan, name).index for name in "xy"] == [0, 1]
    assert buffer(plan, "w").constant == "w"
    assert plan.arena_bytes == 64


def test_sizes_are_rounded_up_to_lines():
    plan = planned("model (float[3] x) => (float[3] y) { a = Exp (x) b = Exp (a) y = Exp (b) }")
    assert plan.arena_bytes == plan.lower_bound == 128


def test_a_graph_that_needs_no_arena_has_none():
    plan = planned("model (float[2] x) => (float[2] y) { y = Exp (x) }")
    assert plan.arena_bytes == plan.lower_bound == 0


def test_an_empty_tensor_needs_no_memory():
    plan = planned("model (float[0, 4] x) => (float[0, 4] y) { a = Exp (x) y = Exp (a) }")
    assert plan.arena_bytes == 0


# ---------------------------------------------------------------------- one memory for several values


def test_a_view_is_its_operands_memory_and_keeps_it_alive():
    text = """model (float[16] x) => (float[4, 4] y) <int64[2] shape = {4, 4}> {
        a = Exp (x) v = Reshape (a, shape) b = Exp (a) c = Exp (b) d = Reshape (c, shape) y = Add (v, d)
    }"""
    plan = planned(text, VIEWS)
    assert buffer(plan, "v") is buffer(plan, "a")
    assert buffer(plan, "d") is buffer(plan, "c")
    assert life(plan, "a") == (0, 5)
    assert plan.arena_bytes == plan.lower_bound == 3 * 64


def test_a_view_of_an_input_or_a_parameter_needs_no_memory():
    text = """model (float[16] x) => (float[4, 4] y) <int64[2] shape = {4, 4}, float[4] w = {1, 2, 3, 4}> {
        a = Reshape (x, shape) b = Identity (w) y = Add (a, b)
    }"""
    plan = planned(text, VIEWS)
    assert buffer(plan, "a").storage is Storage.ARGUMENT
    assert buffer(plan, "b").constant == "w"
    assert plan.arena_bytes == 0


def test_an_output_that_is_a_view_is_written_where_the_caller_wants_it():
    text = """model (float[16] x) => (float[4, 4] y) <int64[2] shape = {4, 4}> {
        a = Exp (x) y = Reshape (a, shape)
    }"""
    plan = planned(text, VIEWS)
    assert buffer(plan, "a") is buffer(plan, "y")
    assert buffer(plan, "a").index == 1
    assert plan.arena_bytes == 0


def test_a_node_writes_over_an_operand_that_dies():
    plan = planned("model (float[16] x) => (float[16] y) { a = Exp (x) b = Relu (a) y = Exp (b) }", OVERWRITES)
    assert buffer(plan, "a") is buffer(plan, "b")
    assert life(plan, "a") == (0, 2)
    assert plan.arena_bytes == plan.lower_bound == 64


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a = Exp (x) b = Relu (a) y = Add (b, a)", "a is read later"),
        ("b = Relu (x) y = Exp (b)", "the caller's input is not ours"),
        ("a = Exp (x) v = Identity (a) b = Add (a, v) y = Exp (b)", "b reads a as a view, too"),
        ("a = Exp (x) b = Exp (a) y = Exp (b)", "the backend allows nothing"),
    ],
)
def test_a_node_writes_over_nothing_else(body, why):
    plan = planned(f"model (float[16] x) => (float[16] y) {{ {body} }}", OVERWRITES)
    before = buffer(plan, "x" if "a =" not in body else "a")
    assert buffer(plan, "b") is not before, why


def test_a_node_writes_over_nothing_of_another_size():
    text = "model (float[1] x) => (float[16] y) <float[16] w = {%s}> { a = Exp (x) b = Add (a, w) y = Exp (b) }"
    plan = planned(text % ", ".join("1" * 16), OVERWRITES)
    assert buffer(plan, "a") is not buffer(plan, "b")


def test_what_a_region_is_given_is_not_overwritten_in_it():
    """A caller may run the region alone, on tensors of the caller's."""
    text = "model (float[16] x) => (float[16] y) { a = Exp (x) b = Relu (a) y = Exp (b) }"
    accelerator = Machine("acc", ("Relu",), overwrites=("Relu",))
    plan = planned(text, accelerator, HOST)
    assert buffer(plan, "a") is not buffer(plan, "b")


# ---------------------------------------------------------------------- parts of a whole

JOINS = Machine("cpu", ("*",), joins=("Concat",), overwrites=("Relu",))
JOIN = "model (float[16] x) => (float[32] y) { a = Exp (x) b = Neg (x) c = Concat <axis=0> (a, b) y = Exp (c) }"


def assembled(plan: MemoryPlan) -> list[str]:
    return sorted(node.output.name for node in plan.assembled)


def test_what_is_only_put_together_is_computed_where_it_belongs():
    plan = planned(JOIN, JOINS)
    assert assembled(plan) == ["c"]
    assert [buffer(plan, name).offset - buffer(plan, "c").offset for name in "ab"] == [0, 64]
    assert life(plan, "c") == (0, 3)
    assert plan.arena_bytes == plan.lower_bound == 128


def test_wholes_lie_in_larger_ones():
    body = "a = Exp (x) b = Neg (x) c = Concat <axis=0> (a, b) d = Neg (x) e = Concat <axis=0> (d, c) y = Exp (e)"
    plan = planned(f"model (float[16] x) => (float[48] y) {{ {body} }}", JOINS)
    assert assembled(plan) == ["c", "e"]
    assert [buffer(plan, name).offset - buffer(plan, "e").offset for name in "dcab"] == [0, 64, 64, 128]
    assert plan.arena_bytes == plan.lower_bound == 192


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a = Exp (x) c = Concat <axis=0> (a, a) y = Exp (c)", "a is there twice"),
        ("a = Exp (x) c = Concat <axis=0> (a, x) y = Exp (c)", "the caller's input lies elsewhere"),
        ("a = Exp (x) b = Neg (x) y = Concat <axis=0> (a, b)", "the caller's output may lie anywhere"),
        ("a = Exp (x) b = Neg (x) c = Concat <axis=0> (a, b) d = Relu (c) e = Concat <axis=0> (a, b) y = Sub (d, e)",
         "what overwrites c must not overwrite a"),
    ],
)  # fmt: skip
def test_what_lies_elsewhere_is_copied(body, why):
    plan = planned(f"model (float[16] x) => (float[32] y) {{ {body} }}", JOINS)
    assert "c" not in assembled(plan), why


def test_parts_that_are_no_whole_lines_are_copied():
    text = "model (float[8] x) => (float[16] y) { a = Exp (x) b = Neg (x) c = Concat <axis=0> (a, b) y = Exp (c) }"
    assert not assembled(planned(text, JOINS))


def test_what_a_region_is_given_is_copied_into_a_whole():
    """A caller may run the region alone, on tensors of the caller's."""
    assert not assembled(planned(JOIN, Machine("acc", ("Exp", "Neg")), JOINS))


def test_where_sizes_are_symbolic_all_parts_are_copied():
    """The runtime places each buffer for itself."""
    text = """model (float[16] x, float[n] z) => (float[32] y, float[n] r) {
        a = Exp (x) b = Neg (x) c = Concat <axis=0> (a, b) y = Exp (c) d = Exp (z) r = Exp (d)
    }"""
    assert not assembled(planned(text, JOINS))


# ---------------------------------------------------------------------- workspaces and regions


def test_a_workspace_lives_while_its_node_runs():
    machine = Machine("cpu", ("*",), scratch={"Neg": 100})
    plan = planned("model (float[16] x) => (float[16] y) { a = Exp (x) b = Neg (a) y = Exp (b) }", machine)
    ((node, number),) = plan.workspace_of.items()
    assert node.op_type == "Neg"
    assert (plan.buffers[number].first, plan.buffers[number].last, plan.buffers[number].bytes) == (1, 1, 100)
    assert plan.arena_bytes == plan.lower_bound == 64 + 64 + 128


def test_what_passes_between_regions_is_one_memory():
    text = "model (float[16] x) => (float[16] y) { a = Exp (x) b = Relu (a) c = Relu (b) y = Exp (c) }"
    plan = planned(text, Machine("acc", ("Relu",)), HOST)
    for name in "ac":
        assert len({id(plan.buffer(value)) for value in plan.buffer_of if value.name == name}) == 1
    assert plan.arena_bytes == 128


def test_what_a_region_hands_out_is_there_when_it_ends():
    """`a`, which nobody else reads, is a model's output in the middle of the region."""
    text = "model (float[16] x) => (float[16] y, float[4, 4] a) <int64[2] shape = {4, 4}> " + (
        "{ p = Exp (x) q = Exp (p) y = Exp (q) a = Reshape (p, shape) }"
    )
    plan = planned(text, VIEWS)
    assert buffer(plan, "a").storage is Storage.ARGUMENT
    two = "model (float[16] x) => (float[16] y) { a = Relu (x) b = Relu (a) c = Relu (b) d = Exp (c) y = Add (a, d) }"
    plan = planned(two, Machine("acc", ("Relu",)), HOST)
    assert life(plan, "a") == (0, 4)


# ---------------------------------------------------------------------- symbolic sizes

WIDE = """model (float[N, 16] x) => (float[N, 16] y) {
    a = Softmax (x) b = Concat <axis = 1> (a, x) c = Softmax <axis = 0> (b) d = Softmax <axis = 0> (a)
    e = Concat <axis = 1> (d, d) f = Add (c, e) g = Softmax (f) h = ReduceSum (g) y = Mul (d, h)
}"""


def test_symbolic_sizes_leave_the_offsets_to_the_runtime():
    plan = planned("model (float[N] x) => (float[N] y) { a = Exp (x) y = Neg (a) }")
    assert (plan.arena_bytes, plan.lower_bound) == (-1, -1)
    assert plan.symbols == ("N",)
    found = buffer(plan, "a")
    assert (found.storage, found.offset, str(found.bytes)) == (Storage.ARENA, -1, "4*N")


def test_a_size_that_depends_on_data_is_reserved_when_it_is_known():
    graph = graph_of("model (bool[4] x) => (int64[M, N] y) { a = NonZero (x) y = Transpose (a) }")
    partition(graph, [HOST], "m")
    plan = plan_memory(graph, {"cpu": HOST})
    reserved = [found for found in plan.buffers if found.storage is Storage.HEAP]
    assert reserved
    for found in reserved:
        assert plan.data_dependent.intersection(dims.symbols_of(found.bytes))
    for found in plan.buffers:
        assert found.storage is Storage.HEAP or dims.is_static(found.bytes)


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_a_symbolic_model_needs_at_run_time_what_a_static_one_does(rows, tmp_path):
    symbolic, static = compile(model_of(WIDE)), compile(model_of(WIDE), shapes={"x": [rows, 16]})
    assert (symbolic.program.arena_bytes, static.program.arena_bytes >= 64) == (-1, True)
    symbolic.export_library(tmp_path / "m.so")
    with load_module(tmp_path / "m.so") as module:
        module.run(random_inputs(graph_of(WIDE.replace("N", str(rows)))))
        assert module.arena_bytes == static.program.arena_bytes


# ---------------------------------------------------------------------- placing


@st.composite
def lives(draw: st.DrawFn) -> list[PlannedBuffer]:
    found = []
    for _ in range(draw(st.integers(1, 25))):
        first = draw(st.integers(-1, 12))
        last = first + draw(st.integers(0, 6))
        found.append(PlannedBuffer(Storage.ARENA, draw(st.integers(0, 700)), first, last))
    return found


@settings(max_examples=200, deadline=None)
@given(lives())
def test_no_two_buffers_alive_at_once_overlap(buffers):
    placed = arrange(buffers)
    assert sorted(map(id, buffers)) == sorted(id(buffer) for buffer, _ in placed)
    for count, (first, start) in enumerate(placed):
        assert start % 64 == 0
        assert 0 <= start <= height(placed) - first.bytes
        for second, other in placed[:count]:
            together = first.first <= second.last and second.first <= first.last
            assert not together or start + first.bytes <= other or other + second.bytes <= start


@pytest.mark.parametrize(
    ("lives", "needed", "why"),
    [
        ([(4, 3, 3), (3, 4, 7), (4, 2, 5), (3, 4, 5)], 10, "the largest first would take 11"),
        ([(1, 1, 4), (1, 4, 5), (1, 3, 7), (2, 0, 2)], 3, "the fullest step first would take 4"),
    ],
)
def test_the_better_of_two_orders_is_kept(lives, needed, why):
    buffers = [PlannedBuffer(Storage.ARENA, 64 * lines, first, last) for lines, first, last in lives]
    assert height(arrange(buffers)) == 64 * needed, why


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: setattr(buffer(plan, "b"), "offset", buffer(plan, "a").offset), "writes over what it reads"),
        (lambda plan: setattr(buffer(plan, "c"), "offset", buffer(plan, "a").offset), "a is lost before it is read"),
    ],
)
def test_the_check_of_these_tests_sees_what_is_lost(damage, message):
    text = "model (float[16] x) => (float[16] y) { a = Exp (x) b = Exp (a) c = Exp (b) y = Add (c, a) }"
    graph = graph_of(text)
    partition(graph, [HOST], "m")
    plan = plan_memory(graph, {"cpu": HOST})
    check_plan(graph, plan, {"cpu": HOST})
    damage(plan)
    with pytest.raises(AssertionError, match=message):
        check_plan(graph, plan, {"cpu": HOST})


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Graph, tuple[str, ...]]:
    """A random graph of views, of what overwrites and what needs scratch; the names of those an accelerator takes."""
    graph = Graph("random")
    graph.opsets = {"": 23}
    kind = TensorType(DType.FLOAT32, (16,))
    values = [graph.add_input(name, kind) for name in "xz"]
    values.append(graph.add_parameter("w", kind, lambda: np.ones(16, np.float32)))
    taken = []
    for number in range(draw(st.integers(1, 14))):
        operator = draw(st.sampled_from(["Identity", "Neg", "Relu", "Sub", "Concat"]))
        operands = [draw(st.sampled_from(values[-4:]))]
        if operator == "Sub":
            operands.append(draw(st.sampled_from([value for value in values if value.shape == operands[0].shape])))
        if operator == "Concat":
            operands += draw(st.lists(st.sampled_from(values[-4:]), max_size=2))
        node = graph.add_node(operator, operands, outputs=[f"v{number}"], name=f"n{number}")
        size = sum(int(value.shape[0]) for value in operands) if operator == "Concat" else operands[0].shape[0]
        node.output.type = TensorType(DType.FLOAT32, (size,))
        values.append(node.output)
        taken += [node.name] if draw(st.booleans()) else []
    graph.set_outputs(draw(st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True)))
    dead_code(graph)
    return graph, tuple(taken)


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_any_graph_keeps_its_values(drawn):
    graph, taken = drawn
    memory = {"views_of": ("Identity",), "overwrites": ("Neg", "Relu", "Sub"), "scratch": {"Relu": 100}}
    memory |= {"joins": ("Concat",)}
    machines = [Machine("acc", taken, **memory), Machine("cpu", ("*",), **memory)]
    partition(graph, machines, "m")
    traits = {machine.name: machine for machine in machines}
    check_plan(graph, plan_memory(graph, traits), traits)


# ---------------------------------------------------------------------- whole networks

NETWORKS = [name for name in zoo.names() if f"light-{name}" not in zoo.names() and name != "minilm-dynamic"]


def network(name: str, *targets: str) -> tuple[Graph, MemoryPlan, dict[str, Backend]]:
    """A model of the zoo up to its plan, by the compiler's own steps."""
    try:
        entry = zoo.get(name)
        graph = read_onnx(entry.path() if entry.costly or entry.shipped else entry.model())
        backends = discovery.backends(targets)
    except (zoo.MissingExtraError, PartitaError) as error:
        pytest.skip(str(error))
    pipeline.prepare(graph)
    bound = BindProgram(graph)
    bound.hoist(graph)
    partition(graph, backends, "m")
    compiler.lower(graph, backends, bound)
    traits = {backend.name: backend for backend in backends}
    return graph, plan_memory(graph, traits), traits


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_keeps_its_values_in_little_more_memory_than_they_take(name):
    graph, plan, traits = network(name)
    check_plan(graph, plan, traits)
    assert plan.lower_bound <= plan.arena_bytes <= 1.1 * plan.lower_bound


@pytest.mark.parametrize("name", ["light-squeezenet", "light-resnet50", "mobilenet-v2"])
def test_a_network_on_two_backends_keeps_its_values(name):
    check_plan(*network(name, "dnnl"))
