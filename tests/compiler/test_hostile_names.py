"""Nothing a model says reaches C, a shell or a path unescaped, and no name changes what is computed."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import assert_computes, compiled

import partita
from partita.runtime.toolchain import Toolchain

NAMES = [
    'quote" backslash\\ end\\',
    "*/ int x; /*",
    "line\nbreak \\\n#error",
    "// \\",
    "??/??=??'",
    "%s%n%d",
    "nul\0inside",
    "emoji 🎼 ünï \u202e",
    "int",
    "main",
    "errno",
    "partita_open",
    "state",
    "x0",
    "a.b",
    "a_b",
    "a__b",
    "../../x",
    "x" * 100_000,
    '"); system("touch partita-trap"); ("',
    "$(touch partita-trap)`touch partita-trap`",
    "\\052/",
    " ",
]
IDS = [ascii(name[:12]) for name in NAMES]
X = np.random.default_rng(5).standard_normal((2, 3)).astype(np.float32)


def hostile_model(names: Sequence[str], graph_name: str) -> onnx.ModelProto:
    """A chain of a MatMul, an Add and a Softmax for each name, which all of it bears, and a doc string with all."""
    random = np.random.default_rng(0)
    nodes, weights, previous = [], [], "in " + graph_name
    for name in names:
        values = [f"{name}.product", f"{name}_sum", name]
        weights += [numpy_helper.from_array(random.standard_normal(s).astype(np.float32), f"{name}{suffix}")
                    for suffix, s in ((".w", (3, 3)), ("_w", (3,)))]  # fmt: skip
        nodes += [
            helper.make_node("MatMul", [previous, f"{name}.w"], [values[0]], name=name, doc_string=name),
            helper.make_node("Add", [values[0], f"{name}_w"], [values[1]], name=name, doc_string=name),
            helper.make_node("Softmax", [values[1]], [values[2]], name=name, doc_string=name),
        ]
        previous = name
    described = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [names[0], 3]) for name in ("in " + graph_name, previous)
    ]
    graph = helper.make_graph(nodes, graph_name, described[:1], described[1:], weights, doc_string=names[0])
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, doc_string=names[0], producer_name=names[0])
    for name in names:
        model.metadata_props.add(key=name, value=name)
    return model


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory; nothing but what the test writes may turn up in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def chain():
    """One model in which everything has one of the names."""
    return hostile_model(NAMES, "chain")


def test_a_model_of_hostile_names_computes(chain, folder):
    module = compiled(chain)
    loaded = partita.load_module(module.export_library("m.so"))
    module.export_library("m.tar")
    for runnable in (module, loaded):
        assert_computes(runnable, chain, {"in chain": X})
    assert sorted(path.name for path in folder.iterdir()) == ["m.so", "m.tar"]


def test_its_weights_keep_their_names(chain):
    module = compiled(chain)
    given = {item.name: numpy_helper.to_array(item) for item in chain.graph.initializer}
    assert_computes(module.bind(given), chain, {"in chain": X})
    changed = hostile_model(NAMES, "chain")
    for item in changed.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(given[item.name] + 1, item.name))
    assert_computes(module.bind({name: array + 1 for name, array in given.items()}), changed, {"in chain": X})


def test_clang_has_nothing_to_say_about_its_sources(chain):
    module = compiled(chain)
    flags = ("-Wall", "-Wextra", "-Wtrigraphs", "-Wcomment", "-Werror")
    toolchain = Toolchain(partita.BuildOptions(f"{sys.executable} -m ziglang cc", "native", "-O0", flags))
    assert all(toolchain.compile_source(source)[:4] == b"\x7fELF" for source in module.sources())


@pytest.mark.parametrize("name", NAMES, ids=IDS)
def test_any_model_name_is_harmless(name, folder):
    model = hostile_model([name], name)
    module = compiled(model)
    tar = module.export_library("m.tar")
    loaded = partita.load_module(module.export_library("m.so"))
    assert_computes(loaded, model, {"in " + name: X})
    assert loaded.program.symbol.isascii() and loaded.program.symbol.isidentifier() and len(loaded.program.symbol) < 70
    with tarfile.open(tar) as archive:
        for member in archive.getnames():
            assert member.startswith(loaded.program.symbol + "/") and ".." not in member
    assert sorted(path.name for path in folder.iterdir()) == ["m.so", "m.tar"]


def test_a_model_without_a_name_compiles(folder):
    model = hostile_model(["n"], "")
    assert_computes(compiled(model), model, {"in ": X})


def test_a_file_name_becomes_a_symbol(chain, folder):
    path = folder / '1 "quoted" $(touch trap).onnx'
    onnx.save(hostile_model(["n"], "g"), path)
    assert compiled(path).program.symbol == "v_1_quoted_touch_trap"
