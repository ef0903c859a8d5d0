"""The schedule: names become numbers that the runtime can follow."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pass_harness import graph_of
from toy_backends import Machine, region_named

from partita.ir.graph import Graph
from partita.ir.region import regions
from partita.passes.partition import partition
from partita.passes.plan_memory import plan_memory
from partita.passes.schedule import schedule
from partita.runtime import Function, Program, Storage, Symbol
from partita.runtime.program import check_program

HOST = Machine("cpu", ("*",))
TEXT = """model (float[2, 8] x) => (float[2, 8] y, float[2, 8] b) <float[8] w = {1, 2, 3, 4, 5, 6, 7, 8}> {
    a = Exp (x) b = Relu (a) c = Add (b, w) y = Exp (c)
}"""


def scheduled(text: str, *machines: Machine, table: Sequence[str] = (), **options) -> Program:
    """The program of a graph on the machines, the host last; checked by the runtime's own rules. Every function wants
    the parameters that its region's body holds."""
    graph = graph_of(text)
    partition(graph, [*machines, HOST], "m")
    plan = plan_memory(graph, {machine.name: machine for machine in (*machines, HOST)})
    functions = options.pop("functions", None) or wanting_parameters(graph)
    options = {"interpreted": frozenset(), "symbol": "m", "baked": [], **options}
    program = schedule(graph, plan, functions, table=table, **options)
    check_program(program, table)
    return program


def wanting_parameters(graph: Graph) -> dict[str, Function]:
    return {
        region.symbol: Function(region.symbol, tuple(value.name for value in region.body.parameters))
        for region in regions(graph)
    }


def named(program: Program, numbers: Sequence[int]) -> list[str]:
    return [program.values[number].name for number in numbers]


def test_inputs_and_outputs_keep_the_models_order():
    program = scheduled(TEXT, table=["w"])
    assert (program.input_names, program.output_names) == (("x",), ("y", "b"))
    assert [program.values[n].shape for n in (*program.inputs, *program.outputs)] == [(2, 8)] * 3
    places = [program.buffers[program.values[n].buffer] for n in (*program.inputs, *program.outputs)]
    assert [(place.storage, place.index, place.bytes) for place in places] == [
        (Storage.ARGUMENT, 0, 64),
        (Storage.ARGUMENT, 1, 64),
        (Storage.ARGUMENT, 2, 64),
    ]


def test_regions_run_in_order_on_numbered_values():
    program = scheduled(TEXT, Machine("acc", ("Relu", "Add")), table=["w"])
    assert [(r.symbol, r.backend, r.constants) for r in program.regions] == [
        ("m_cpu_0", "cpu", ()),
        ("m_acc_0", "acc", ("w",)),
        ("m_cpu_1", "cpu", ()),
    ]
    assert [(named(program, r.inputs), named(program, r.outputs)) for r in program.regions] == [
        (["x"], ["a"]),
        (["a"], ["b", "c"]),
        (["c"], ["y"]),
    ]
    assert program.regions[0].outputs == program.regions[1].inputs


def test_what_never_crosses_a_border_is_no_value_of_the_program():
    program = scheduled(TEXT, table=["w"])
    assert sorted(value.name for value in program.values) == ["b", "x", "y"]


def test_constants_are_found_by_their_place_in_the_table():
    program = scheduled(TEXT, table=["other", "w"])
    (constant,) = [buffer for buffer in program.buffers if buffer.storage is Storage.CONSTANT]
    assert (constant.index, constant.bytes) == (1, 32)


def test_a_parameter_that_no_code_reads_takes_nothing():
    graph = graph_of(TEXT)
    partition(graph, [HOST], "m")
    plan = plan_memory(graph, {"cpu": HOST})
    program = schedule(
        graph, plan, {"m_cpu_0": Function("m_cpu_0", ())}, frozenset(), symbol="m", table=[], baked=[("w", "digest")]
    )
    check_program(program, [])
    assert not any(buffer.storage is Storage.CONSTANT for buffer in program.buffers)
    place = plan.buffer_of[next(iter(region_named(graph, "m_cpu_0").body.parameters))]
    assert (program.buffers[place].bytes, program.buffers[place].offset) == (0, 0)
    assert program.baked == (("w", "digest"),)


@pytest.mark.parametrize("trait", ["interpreted", "has_state", "has_free"])
def test_what_a_region_needs_is_told(trait):
    function = Function("m_cpu_0", (), **({} if trait == "interpreted" else {trait: True}))
    options = {"interpreted": frozenset(["m_cpu_0"])} if trait == "interpreted" else {}
    text = "model (float[2] x) => (float[2] y) { y = Exp (x) }"
    (region,) = scheduled(text, functions={"m_cpu_0": function}, **options).regions
    assert [getattr(region, name) for name in ("interpreted", "has_state", "has_free")] == [
        trait == name for name in ("interpreted", "has_state", "has_free")
    ]


# ---------------------------------------------------------------------- symbolic sizes


def test_a_symbol_is_an_extent_and_what_is_computed_from_it_another():
    program = scheduled("model (float[N, M] x) => (float[M, N] y) { a = Exp (x) y = Transpose (a) }")
    assert program.symbols == (Symbol("N"), Symbol("M"))
    assert [program.values[n].shape for n in (*program.inputs, *program.outputs)] == [(-1, -2), (-2, -1)]
    assert program.arena_bytes == -1
    assert len(program.derived) == 1  # all three buffers are of one size
    assert {buffer.bytes for buffer in program.buffers} == {-3}
    assert "extents[0]" in program.derived[0] and "extents[1]" in program.derived[0]
    assert "partita_multiply" in program.derived[0]


def test_a_derived_size_is_computed_once():
    program = scheduled("model (float[N] x) => (float[K] y, float[L] z) { y = Concat <axis=0> (x, x) z = Neg (y) }")
    shapes = [program.values[n].shape for n in program.outputs]
    assert shapes[0] == shapes[1] == (-2,)
    assert len(program.derived) == len(set(program.derived)) == 3  # 2 N elements, and the bytes of N and of 2 N


def test_the_program_survives_the_manifest():
    program = scheduled(TEXT, Machine("acc", ("Relu", "Add")), table=["w"])
    assert Program.from_json(program.to_json()) == program
