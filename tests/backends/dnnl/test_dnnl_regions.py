"""Chains that run as one primitive, and what lies between primitives: layouts, blocks, residuals, borders."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from harness import BUILD, Array, array, check, compare, compile_for, decisions, expected, model, node
from onnx import numpy_helper

import partita
from partita.errors import ExecutionError


def source(module: partita.runtime.MetadataModule) -> str:
    """The C of the backend's first region."""
    name = next(m.functions[0].symbol for m in module.imported_modules if m.backend == "dnnl")
    return module.source(name)


def primitives(module: partita.runtime.MetadataModule) -> int:
    """Of all the backend's regions."""
    mine = [item for item in module.imported_modules if item.backend == "dnnl"]
    return sum(module.source(item.functions[0].symbol).count("begin(b, ") for item in mine)


def conv(x: str, w: str, y: str, name: str = "") -> onnx.NodeProto:
    return node("Conv", [x, w], [y], pads=[1, 1, 1, 1], name=name)


ACTIVATIONS = {
    "Relu": {},
    "Clip": {},
    "Sigmoid": {},
    "Tanh": {},
    "Elu": {"alpha": 0.5},
    "LeakyRelu": {"alpha": 0.1},
    "HardSwish": {},
    "Gelu": {},
}


LIMITS = {"low": np.array(-0.3, np.float32), "high": np.array(0.8, np.float32)}


def activations(x: str, numbers: list[onnx.NodeProto]) -> tuple[list[onnx.NodeProto], list[str]]:
    """The nodes that compute `x`, once for each activation, with weights of its own, and followed by it; and the
    results' names."""
    nodes = []
    for op_type, attributes in ACTIVATIONS.items():
        for number in numbers:
            copied = node(number.op_type, number.input, [f"{number.output[0]}.{op_type}"])
            copied.attribute.extend(number.attribute)
            made = {"w", *(number.output[0] for number in numbers)}
            copied.input[:] = [f"{name}.{op_type}" if name in made else name for name in number.input]
            nodes.append(copied)
        limits = list(LIMITS) if op_type == "Clip" else []
        nodes.append(node(op_type, [f"{x}.{op_type}", *limits], [op_type], **attributes))
    return nodes, list(ACTIVATIONS)


def own_weights(*shape: int) -> dict[str, Array]:
    return {f"w.{op_type}": array(*shape, seed=seed) for seed, op_type in enumerate(ACTIVATIONS)}


@pytest.mark.parametrize("addend", ["none", "residual", "bias"])
@pytest.mark.parametrize("channels", [1, 15, 16, 17])
def test_conv_chain(addend: str, channels: int) -> None:
    inputs, weights = {"x": array(1, 3, 7, 9)}, {**own_weights(channels, 3, 3, 3), **LIMITS}
    nodes = [conv("x", "w", "c")]
    if addend != "none":
        nodes.append(node("Add", [addend, "c"], ["a"]))
    if addend == "residual":
        inputs[addend] = array(1, channels, 7, 9, seed=2)
    if addend == "bias":
        weights[addend] = array(channels, 1, 1)
    nodes, outputs = activations(nodes[-1].output[0], nodes)
    assert primitives(check("dnnl", nodes, inputs, weights, outputs)) == len(ACTIVATIONS)


@pytest.mark.parametrize("addend", ["none", "residual", "bias"])
@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7), (1, 1)])
def test_matmul_chain(addend: str, shape: tuple[int, ...]) -> None:
    inputs, weights = {"x": array(*shape)}, {**own_weights(shape[-1], 17), **LIMITS}
    nodes = [node("MatMul", ["x", "w"], ["c"])]
    if addend != "none":
        nodes.append(node("Sum", ["c", addend], ["a"]))
    if addend == "residual":
        inputs[addend] = array(*shape[:-1], 17, seed=3)
    if addend == "bias":
        weights[addend] = array(17)
    nodes, outputs = activations(nodes[-1].output[0], nodes)
    assert primitives(check("dnnl", nodes, inputs, weights, outputs)) == len(ACTIVATIONS)


def test_gemm_chain() -> None:
    nodes = [node("Gemm", ["x", "w", "b"], ["g"]), node("Add", ["g", "r"], ["a"]), node("Relu", ["a"], ["y"])]
    inputs = {"x": array(3, 5), "r": array(3, 7, seed=2)}
    assert primitives(check("dnnl", nodes, inputs, {"w": array(5, 7), "b": array(7)})) == 1


def test_factors_of_gemm_are_bound_into_its_parameters() -> None:
    nodes = [node("Gemm", ["x", "w", "b"], ["g"], alpha=0.5, beta=3.0), node("Relu", ["g"], ["y"])]
    proto = model(nodes, {"x": array(3, 5)}, {"w": array(5, 7), "b": array(7)})
    module = compile_for("dnnl", proto)
    compare(module, proto, {"x": array(3, 5)})
    other = {"w": array(5, 7, seed=8), "b": array(7, seed=8)}
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(other[tensor.name], tensor.name))
    compare(module.bind(other), proto, {"x": array(3, 5)})


def residual_network(blocks: int, channels: int) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Blocks of two convolutions around which their input is led: x -> y."""
    nodes = [conv("x", "w", "v0", "stem")]
    weights = {"w": array(channels, 3, 3, 3) / 5}
    for n in range(blocks):
        weights |= {f"{name}{n}": array(channels, channels, 3, 3, seed=n) / 20 for name in ("a", "b")}
        nodes += [
            conv(f"v{n}", f"a{n}", f"p{n}", f"first{n}"),
            node("Relu", [f"p{n}"], [f"q{n}"]),
            conv(f"q{n}", f"b{n}", f"r{n}", f"second{n}"),
            node("Add", [f"r{n}", f"v{n}"], [f"s{n}"]),
            node("Relu", [f"s{n}"], [f"v{n + 1}"]),
        ]
    return [*nodes, node("MaxPool", [f"v{blocks}"], ["y"], kernel_shape=[2, 2], strides=[2, 2])], weights


@pytest.mark.parametrize("channels", [3, 16, 17])
def test_residual_network(channels: int) -> None:
    nodes, weights = residual_network(3, channels)
    module = check("dnnl", nodes, {"x": array(1, 3, 12, 10)}, weights, tolerance=1e-4)
    assert primitives(module) == 8
    assert source(module).count("then_add(b, t_v") == 3
    assert "then_add(b, t_v0, true)" in source(module)  # written over: nothing reads it afterwards


def test_residual_that_is_the_operand_is_not_overwritten() -> None:
    nodes = [conv("x", "w", "a"), conv("a", "w2", "c"), node("Add", ["c", "a"], ["s"]), node("Relu", ["s"], ["y"])]
    weights = {"w": array(16, 3, 3, 3), "w2": array(16, 16, 3, 3)}
    assert "then_add(b, t_a, false)" in source(check("dnnl", nodes, {"x": array(1, 3, 7, 7)}, weights))


def test_residual_that_is_read_later_is_not_overwritten() -> None:
    nodes = [
        conv("x", "w", "a"),
        conv("a", "w2", "c"),
        conv("c", "w2", "d"),
        node("Add", ["d", "a"], ["s"]),
        node("Mul", ["s", "a"], ["y"]),
    ]
    weights = {"w": array(16, 3, 3, 3), "w2": array(16, 16, 3, 3)}
    assert "then_add(b, t_a, false)" in source(check("dnnl", nodes, {"x": array(1, 3, 7, 7)}, weights, tolerance=1e-4))


def test_results_that_are_read_inside_and_outside() -> None:
    nodes = [conv("x", "w", "a"), conv("a", "w2", "b"), node("Relu", ["b"], ["c"]), node("MatMul", ["c", "m"], ["d"])]
    weights = {"w": array(17, 3, 3, 3), "w2": array(17, 17, 3, 3), "m": array(7, 5)}
    check("dnnl", nodes, {"x": array(2, 3, 7, 7)}, weights, outputs=["a", "b", "c", "d"], tolerance=1e-4)


def test_blocked_value_under_another_shape() -> None:
    nodes = [
        conv("x", "w", "a"),
        conv("z", "w", "b"),
        node("MatMul", ["a", "m"], ["c"]),
        node("Add", ["b", "c"], ["y"]),
    ]
    inputs = {"x": array(1, 3, 7, 7), "z": array(1, 3, 7, 7, seed=4)}
    check("dnnl", nodes, inputs, {"w": array(17, 3, 3, 3), "m": array(7, 7)}, tolerance=1e-4)


def test_concat_and_pools_between_convolutions() -> None:
    nodes = [
        conv("x", "w", "a"),
        node("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("AveragePool", ["a"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Concat", ["b", "c", "a"], ["d"], axis=1),
        conv("d", "w2", "e"),
        node("GlobalAveragePool", ["e"], ["y"]),
    ]
    for channels in (5, 16):
        weights = {"w": array(channels, 3, 3, 3), "w2": array(7, 3 * channels, 3, 3)}
        check("dnnl", nodes, {"x": array(1, 3, 9, 8)}, weights, tolerance=1e-4)


def test_weights_shared_by_regions_are_one_entry() -> None:
    """A host operator between two convolutions of the same weights: two regions, one entry of the table."""
    nodes = [conv("x", "w", "a"), node("Sin", ["a"], ["b"]), conv("b", "w", "y")]
    inputs = {"x": array(1, 16, 5, 5)}
    proto = model(nodes, inputs, {"w": array(16, 16, 3, 3) / 10})
    module = compile_for("dnnl", proto)
    assert [backend for _, backend, _ in decisions(module)] == ["dnnl", "cpu", "dnnl"]
    assert [len(region.constants) for region in module.program.regions if region.backend == "dnnl"] == [1, 1]
    assert len(module.params) == 1
    compare(module, proto, inputs, 1e-4)


def test_names_from_models_are_harmless() -> None:
    name = 'x*/"\\\n??/%s int'
    nodes = [node("Relu", [name], ["y"], name=name), node("Tanh", ["y"], ["int"], name="%n" * 500)]
    check("dnnl", nodes, {name: array(3)}, outputs=["int"])


def test_instances_at_once() -> None:
    nodes, weights = residual_network(2, 16)
    proto = model(nodes, {"x": array(1, 3, 12, 10)}, weights)
    module = compile_for("dnnl", proto)
    images = [array(1, 3, 12, 10, seed=n) for n in range(4)]
    wanted = [expected(proto, {"x": image})[0] for image in images]
    instances = [module.open_instance() for _ in images]

    def work(n: int) -> None:
        for _ in range(10):
            found = instances[n].run({"x": images[n]})["y"]
            np.testing.assert_allclose(found, wanted[n], rtol=1e-4, atol=1e-4)

    with ThreadPoolExecutor(len(images)) as pool:
        list(pool.map(work, range(len(images))))
    for instance in instances:
        instance.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_runs_repeat_bit_for_bit(threads: int) -> None:
    nodes, weights = residual_network(1, 16)
    module = compile_for("dnnl", model(nodes, {"x": array(1, 3, 12, 10)}, weights))
    instance = module.open_instance(threads)
    results = {instance.run({"x": array(1, 3, 12, 10)})["y"].tobytes() for _ in range(20)}
    assert len(results) == 1


def test_export_and_load(tmp_path: Path) -> None:
    nodes, weights = residual_network(1, 16)
    proto = model(nodes, {"x": array(1, 3, 12, 10)}, weights)
    path = compile_for("dnnl", proto).export_library(tmp_path / "model.so")
    found = partita.load_module(path).run({"x": array(1, 3, 12, 10)})["y"]
    np.testing.assert_allclose(found, expected(proto, {"x": array(1, 3, 12, 10)})[0], rtol=1e-4, atol=1e-4)


def test_memory_is_given_back() -> None:
    """A hundred instances opened, run and closed leave the process about as large as ten do."""
    nodes, weights = residual_network(2, 64)
    proto = model(nodes, {"x": array(1, 3, 64, 64)}, weights)
    module = compile_for("dnnl", proto)

    def resident() -> int:
        text = Path(f"/proc/{os.getpid()}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    sizes = []
    for _ in range(40):
        instance = module.open_instance()
        instance.run({"x": array(1, 3, 64, 64)})
        instance.close()
        sizes.append(resident())
    assert sizes[-1] - sizes[9] < 4 << 20


def test_a_failing_primitive_names_its_node() -> None:
    """A convolution whose result has the wrong size, which oneDNN refuses: an error, not a crash, each time."""
    nodes = [conv("x", "w", "y", "the_conv")]
    module = compile_for("dnnl", model(nodes, {"x": array(1, 3, 5, 5)}, {"w": array(4, 3, 3, 3)}))
    (dnnl,) = [m for m in module.imported_modules if m.backend == "dnnl"]
    broken = re.sub(r"before\[\] = \{1, 1\}", "before[] = {1, 7}", dnnl.units[0].text)
    assert broken != dnnl.units[0].text
    unit = partita.runtime.Unit(dnnl.units[0].name, broken)
    modules = [replace(m, units=(unit,)) if m is dnnl else m for m in module.imported_modules]
    other = partita.runtime.MetadataModule(module.program, modules, module.params, build=BUILD)
    for _ in range(2):
        with pytest.raises(ExecutionError, match=r"region g_dnnl_0.*node 'the_conv'.*oneDNN says invalid_arguments"):
            other.run({"x": array(1, 3, 5, 5)})
