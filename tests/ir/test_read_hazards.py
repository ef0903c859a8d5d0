"""Bad models, each refused with an error that says what and where; odd but legal ones, accepted."""

import contextlib
import random
import time
import warnings

import numpy as np
import onnx
import pytest
from models import data, model
from onnx import TensorProto, helper, numpy_helper

from partita.errors import ModelError, PartitaError, ShapeError
from partita.ir import wire
from partita.ir.evaluate import evaluate
from partita.ir.read_onnx import read_onnx
from partita.passes.canonicalize import canonicalize
from partita.passes.pipeline import prepare

SMALL = "g (float[2, 3] x) => (float[2, 3] y) <float[3] w = {1, 2, 3}> { h = Add (x, w) y = Relu (h) }"


def prepared(source):
    graph = read_onnx(source.SerializeToString() if isinstance(source, onnx.ModelProto) else source)
    prepare(graph, verify=True)
    return graph


def refused(source, *parts, error=PartitaError):
    """The message of the refusal, which must hold all `parts`."""
    with pytest.raises(error) as caught:
        prepared(source)
    message = str(caught.value)
    for part in parts:
        assert part in message, message
    return message


# ---------------------------------------------------------------------- the file


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"PK\x03\x04zip", b"\x89PNG\r\n", b"hello, world", bytes(range(256))]
)
def test_another_format(content):
    with pytest.raises(ModelError):
        read_onnx(content)


def test_random_bytes():
    source = random.Random(0)
    for _ in range(500):
        with pytest.raises(ModelError):
            read_onnx(source.randbytes(source.randrange(1, 200)))


def test_truncated_at_every_byte():
    whole = data(SMALL)
    for length in range(len(whole)):
        try:
            prepared(whole[:length])
        except PartitaError:
            continue
        assert whole[length:].strip(b"\0") == b"" or length > len(whole) - 8  # what is cut off said nothing


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bytes(seed):
    whole = data(SMALL)
    source = random.Random(seed)
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(source.randrange(1, 4)):
            damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        with contextlib.suppress(PartitaError):
            prepared(bytes(damaged))


def test_missing_file(tmp_path):
    with pytest.raises(ModelError, match="not a file"):
        read_onnx(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="not a file"):
        read_onnx(tmp_path)


@pytest.mark.parametrize("version", [0, -1, 99])
def test_ir_version(version):
    proto = model(SMALL)
    proto.ir_version = version
    refused(proto, "IR version")


def test_opset_imports():
    proto = model(SMALL)
    del proto.opset_import[:]
    refused(proto, "imports no operator set")
    refused(data(SMALL, imports=', "" : 12'), "ai.onnx is imported in two versions")
    twice = model(SMALL)
    twice.opset_import.append(twice.opset_import[0])
    assert read_onnx(twice).opsets == read_onnx(model(SMALL)).opsets
    refused(data(SMALL, opset=99), "opset 99 is outside the supported 1 to")


def nested(depth):
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["r0"])], "b", [], [helper.make_tensor_value_info("r0", 1, [2])]
    )
    for n in range(1, depth + 1):
        other = helper.make_graph(
            [helper.make_node("Neg", ["x"], [f"e{n}"])], "e", [], [helper.make_tensor_value_info(f"e{n}", 1, [2])]
        )
        node = helper.make_node("If", ["c"], [f"r{n}"], then_branch=body, else_branch=other)
        body = helper.make_graph([node], f"b{n}", [], [helper.make_tensor_value_info(f"r{n}", 1, [2])])
    body.input.append(helper.make_tensor_value_info("x", 1, [2]))
    body.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def field(number, content):
    return wire._encode(number << 3 | 2) + wire._encode(len(content)) + content


@pytest.mark.parametrize("depth", [33, 10_000])
def test_deep_nesting(depth):
    assert len(prepared(nested(20)).nodes) == 1
    graph = b""
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + wire._encode(20 << 3) + b"\x05"
        graph = field(1, field(2, b"y") + field(4, b"If") + field(5, attribute)) + field(12, field(1, b"y"))
    refused(b"\x08\x0a" + field(7, graph) + field(8, b"\x10\x15"), error=ModelError)


def recursive_model(*calls):
    functions = [
        helper.make_function("f", name, ["a"], ["b"], [helper.make_node(callee, ["a"], ["b"], domain="f")], imports())
        for name, callee in calls
    ]
    graph = helper.make_graph(
        [helper.make_node(calls[0][0], ["x"], ["y"], domain="f")],
        "g",
        [helper.make_tensor_value_info("x", 1, [2])],
        [helper.make_tensor_value_info("y", 1, [2])],
    )
    return helper.make_model(graph, functions=functions, opset_imports=imports(), ir_version=10)


def imports():
    return [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]


def test_recursive_functions():
    refused(recursive_model(("A", "A")), "f::A -> f::A")
    refused(recursive_model(("A", "B"), ("B", "C"), ("C", "B")), "f::B -> f::C -> f::B")


def test_functions_that_double():
    """A small file that would be 2^30 nodes."""

    def nodes(callee):
        return [
            helper.make_node(callee, ["a"], ["t"], domain="f"),
            helper.make_node(callee, ["t"], ["b"], domain="f"),
        ]

    functions = [helper.make_function("f", f"F{n}", ["a"], ["b"], nodes(f"F{n - 1}"), imports()) for n in range(1, 31)]
    functions.append(helper.make_function("f", "F0", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], imports()))
    proto = recursive_model(("A", "F30"))
    proto.functions.extend(functions)
    start = time.monotonic()
    refused(proto, "nodes once functions are written out")
    assert time.monotonic() - start < 5


def test_long_chain():
    nodes = [helper.make_node("Neg", [f"v{n}"], [f"v{n + 1}"]) for n in range(20_000)]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("v0", 1, [2])],
        [helper.make_tensor_value_info("v20000", 1, [2])],
    )
    start = time.monotonic()
    graph = read_onnx(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    canonicalize(graph)
    assert len(graph.nodes) == 20_000
    assert time.monotonic() - start < 20


# ---------------------------------------------------------------------- the graph


def test_cycle():
    refused(
        data("g (float[2] x) => (float[2] y) { a = Add (x, b) b = Neg (a) y = Neg (b) }"), "cycle", "'Add'", "'Neg'"
    )


def test_unsorted_nodes_are_sorted_with_a_warning():
    with pytest.warns(UserWarning, match="not sorted"):
        graph = prepared(data("g (float[2] x) => (float[2] y) { y = Exp (a) a = Neg (x) }"))
    assert [node.op_type for node in graph.nodes] == ["Neg", "Exp"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("g (float[2] x) => (float[2] y) { y = Neg (x) y = Exp (x) }", ["'y' is produced twice"]),
        ("g (float[2] x) => (float[2] y) { y = Neg (z) }", ["'z'", "input of node"]),
        ("g (float[2] x) => (float[2] y, float[2] q) { y = Neg (x) }", ["'q'", "output of the graph"]),
        ("g (float[2] x) => (float[2] y) { x = Neg (x) y = Neg (x) }", ["'x' is produced twice"]),
        ("g (float[2] x) => () { y = Neg (x) }", ["no outputs"]),
        ("g (float[2] x, float[2] x) => (float[2] y) { y = Neg (x) }", ["'x' is produced twice"]),
        (
            "g (float[2] x, bool c) => (float[2] y) { y = If (c) <then_branch = t () => (float[2] r) { x = Neg (c) "
            "r = Neg (x) }, else_branch = e () => (float[2] s) { s = Neg (x) }> }",
            ["'x'", "shadows"],
        ),
    ],
)
def test_broken_graphs(text, parts):
    refused(data(text), *parts, error=ModelError)


def test_several_problems_at_once():
    message = refused(data("g (float[2] x) => (float[2] y) { a = Neg (p) b = Neg (q) y = Add (a, b) }"), "'p'", "'q'")
    assert len(message.splitlines()) == 2


def test_duplicate_initializer():
    proto = model(SMALL)
    proto.graph.initializer.append(proto.graph.initializer[0])
    refused(proto, "'w' is produced twice")


def test_duplicate_and_empty_node_names_are_fine():
    proto = model("g (float[2] x) => (float[2] y) { a = Neg (x) b = Exp (a) y = Neg (b) }")
    for node in proto.graph.node:
        node.name = "same"
    assert len(prepared(proto).nodes) == 3
    for node in proto.graph.node:
        node.name = ""
    assert len(prepared(proto).nodes) == 3


def test_outputs_that_are_inputs_initializers_or_repeated():
    proto = model(
        "g (float[3] x) => (float[3] x, float[3] w, float[3] y, float[3] y) <float[3] w = {1, 2, 3}> { y = Neg (x) }"
    )
    graph = prepared(proto)
    assert [value.name for value in graph.outputs] == ["x", "w", "y", "y"]
    result = evaluate(graph, {"x": np.ones(3, np.float32)})
    np.testing.assert_array_equal(result["w"], [1, 2, 3])


def test_initializer_that_is_an_input_becomes_a_parameter_with_a_warning():
    proto = model("g (float[3] x) => (float[3] y) { y = Add (x, w) }")
    proto.graph.input.append(helper.make_tensor_value_info("w", 1, [3]))
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "w"))
    with pytest.warns(UserWarning, match="'w'"):
        graph = prepared(proto)
    assert [value.name for value in graph.inputs] == ["x"]
    assert [value.name for value in graph.parameters] == ["w"]
    proto.ir_version = 3  # there every initializer had to be an input
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared(proto)


def test_absent_optional_input():
    graph = prepared(data('g (float[3] x, float m) => (float[3] y) { y = Clip (x, "", m) }'))
    assert graph.nodes[0].inputs[1] is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("g (float[2] x) => (float[2] y) { y = Relu <alpha = 1.0> (x) }", ["Relu", "'alpha' is unknown"]),
        ("g (float[2] x) => (float[2] y) { y = Concat (x) }", ["Concat", "'axis' is missing"]),
        ("g (float[2] x) => (float[2] y) { y = Concat <axis = 0.5> (x) }", ["'axis' is 0.5", "INT"]),
        ("g (float[2] x) => (float[2] y) { y = Add (x) }", ["Add", "1 operands; 2 are needed"]),
        ("g (float[2] x) => (float[2] y) { y = Add (x, x, x) }", ["3 operands"]),
        ("g (float[2] x) => (float[2] y, float[2] z) { y, z = Relu (x) }", ["2 outputs"]),
        ("g (float[2] x) => (float[2] y) { y = Nonsense (x) }", ["Nonsense", "no such operator", "opset 28"]),
        ("g (float[2] x) => (float[2] y) { y = Upsample (x, x) }", ["Upsample", "deprecated"]),
        ("g (float[2] x, int64[2] i) => (float[2] y) { y = Add (x, i) }", ["tensor(float)", "tensor(int64)"]),
        ("g (string[2] x) => (string[2] y) { y = Relu (x) }", ["Relu", "may not be of type tensor(string)"]),
    ],
)
def test_nodes_of_the_wrong_form(text, parts):
    refused(data(text), *parts, error=ModelError)


def test_attribute_given_twice():
    proto = model("g (float[2] x) => (float[2] y) { y = Concat <axis = 0> (x) }")
    proto.graph.node[0].attribute.append(proto.graph.node[0].attribute[0])
    refused(proto, "'axis' is given twice")


# ---------------------------------------------------------------------- types and shapes


def with_initializer(tensor):
    proto = model("g (float[2, 3] x) => (float[2, 3] y) { y = Add (x, w) }")
    proto.graph.initializer.append(tensor)
    return proto


def tensor(**fields):
    return TensorProto(**{"name": "w", "data_type": 1, "dims": [3], **fields})


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"raw_data": b"1234567"}, ["'w'", "7 bytes", "12"]),
        ({"raw_data": b"x" * 1000}, ["'w'", "1000 bytes"]),
        ({"raw_data": b"x" * 1000, "dims": [3, 0]}, ["'w'"]),
        ({"data_type": 3, "int32_data": [1, 2]}, ["'w'"]),
        ({"data_type": 22, "int32_data": []}, ["'w'"]),
        ({"data_type": 10, "int32_data": [1]}, ["'w'"]),
        ({"raw_data": b"1" * 12, "float_data": [1, 2, 3]}, ["'w'", "both set"]),
        ({"float_data": [1, 2, 3], "int64_data": [1, 2, 3]}, ["'w'", "both set"]),
        ({"data_type": 0}, ["'w'", "element type 0"]),
        ({"data_type": 999}, ["'w'", "element type 999"]),
        ({"dims": [-3]}, ["'w'", "negative"]),
        ({"dims": [4194305, 4194305, 211106198978564], "raw_data": b"1234" * 4}, ["'w'", "elements"]),
        ({"dims": [1] * 64, "float_data": [1.0]}, ["'w'", "rank 64"]),
        ({"dims": [10**15]}, ["'w'", "elements"]),
    ],
)
def test_tensors(fields, parts):
    refused(with_initializer(tensor(**fields)), *parts, error=ModelError)


def test_several_bad_tensors_at_once():
    proto = with_initializer(tensor(raw_data=b"1"))
    proto.graph.initializer.append(tensor(name="v", raw_data=b"2"))
    refused(proto, "'w'", "'v'")


@pytest.mark.parametrize("where", ["attribute", "body"])
def test_bad_tensors_in_attributes_and_bodies(where):
    bad = tensor(raw_data=b"123")
    if where == "attribute":
        proto = model("g (int64[1] x) => (float[N] y) { y = ConstantOfShape (x) }")
        proto.graph.node[0].attribute.append(helper.make_attribute("value", bad))
        refused(proto, "'value'")
    else:
        proto = nested(1)
        proto.graph.node[0].attribute[0].g.initializer.append(bad)
        refused(proto, "'w'")


def test_rank_and_size_of_inputs():
    refused(data(f"g (float[{','.join(['1'] * 64)}] x) => (float y) {{ y = ReduceSum (x) }}"), "'x'", "rank 64")
    refused(data("g (float[4194305, 4194305, 211106198978564] x) => (float y) { y = Neg (x) }"), "'x'", "elements")
    proto = model(SMALL)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -7
    refused(proto, "'x'", "negative")


def test_empty_and_scalar_tensors():
    graph = prepared(data("g (float[0, 3] x, float s) => (float[0, 3] y) { y = Mul (x, s) }"))
    assert evaluate(graph, {"x": np.zeros((0, 3), np.float32), "s": np.float32(2)})["y"].shape == (0, 3)


def test_contradicting_value_info():
    proto = model("g (float[2] x) => (float[2] y) { a = Neg (x) y = Exp (a) }")
    proto.graph.value_info.append(helper.make_tensor_value_info("a", 1, [5]))
    refused(proto, "'a' is declared as float32[5], but computes as float32[2]", error=ShapeError)
    proto = model("g (float[2] x) => (int64[2] y) { y = Neg (x) }")
    refused(proto, "declared", error=ShapeError)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("g (float[2, 3] x) => (float[N, M] y) <int64[2] s = {-1, -1}> { y = Reshape (x, s) }", ["one -1"]),
        ("g (float[2, 3] x) => (float[N, M] y) <int64[2] s = {4, 2}> { y = Reshape (x, s) }", ["does not hold 6"]),
        ("g (float[0, 3] x) => (float[N, M] y) <int64[2] s = {0, -1}> { y = Reshape <allowzero = 1> (x, s) }", ["-1"]),
        ("g (float[2, 3] x) => (float[N, M] y) <int64[2] s = {2, -4}> { y = Reshape (x, s) }", ["negative"]),
        ("g (float[2] x, float[3] z) => (float[N] y) { y = Add (x, z) }", ["Add", "broadcast"]),
        ("g (float[2, 3] x, float[2, 3] z) => (float[N, M] y) { y = MatMul (x, z) }", ["3 columns", "2 rows"]),
        (
            "g (float[4] x) => (float[N] y) <int64[1] s = {0}, int64[1] e = {4}, int64[1] a = {0}, int64[1] t = {0}> "
            "{ y = Slice (x, s, e, a, t) }",
            ["step 0"],
        ),
        (
            "g (float[1, 1, 4, 4] x) => (float[N, C, H, W] y) "
            "{ y = MaxPool <kernel_shape = [2, 2], strides = [0, 1]> (x) }",
            ["strides"],
        ),
        ("g (float[1, 1, 4, 4] x) => (float[N, C, H, W] y) { y = MaxPool <kernel_shape = [0, 2]> (x) }", ["kernel"]),
        (
            "g (float[1, 2, 4, 4] x, float[2, 2, 1, 1] w) => (float[N, C, H, W] y) { y = Conv <group = 0> (x, w) }",
            ["group"],
        ),
        ("g (float[2] x) => (float[N] y) { y = Softmax <axis = 3> (x) }", ["axis 3"]),
        ("g (float[2, 3] x) => (float[N, M] y) { y = Transpose <perm = [0, 0]> (x) }", ["repeat"]),
        ("g () => (float[N] y) <int64[3] s = {100000, 100000, 100000}> { y = ConstantOfShape (s) }", ["elements"]),
        ("g (float[1] x) => (float[N] y) <int64[1] s = {1000000000000000}> { y = Expand (x, s) }", ["elements"]),
        ("g (float[1] x) => (float[N] y) <int64[1] s = {1000000000000000}> { y = Tile (x, s) }", ["elements"]),
        ("g (float[1] x) => (float[N] y) <int64[2] s = {0, 1000000000000000}> { y = Pad (x, s) }", ["elements"]),
        (
            "g () => (int64[N] y) <int64 a = {0}, int64 b = {1000000000000000}, int64 c = {1}> { y = Range (a, b, c) }",
            ["elements"],
        ),
        ("g () => (int64[N] y) <int64 a = {0}, int64 b = {5}, int64 c = {0}> { y = Range (a, b, c) }", ["Range"]),
        ("g (float[2, 3] x) => (float[N, M] y) <int64[1] a = {5}> { y = ReduceSum <keepdims = 1> (x, a) }", ["axis 5"]),
        ("g (float[5] x) => (float[N] y, float[M] z) <int64[2] s = {1, 1}> { y, z = Split (x, s) }", ["Split"]),
        ("g (float[2, 3] x, float[3] z) => (float[N] y) { y = Concat <axis = 0> (x, z) }", ["Concat"]),
    ],
)  # fmt: skip
def test_shapes(text, parts):
    start = time.monotonic()
    refused(data(text), *parts)
    assert time.monotonic() - start < 5


def test_reshape_with_zeros():
    text = "g (float[0, 3] x) => (float[N, M] y) <int64[2] s = {0, 3}> { y = Reshape <allowzero = %d> (x, s) }"
    for allowed in (0, 1):
        assert prepared(data(text % allowed)).outputs[0].shape == (0, 3)


def test_hostile_names_of_dimensions_are_only_names():
    proto = model("g (float[N, 3] x) => (int64[2] y) { y = Shape (x) }")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "__import__('os').abort()"
    graph = prepared(proto)
    np.testing.assert_array_equal(evaluate(graph, {"x": np.zeros((4, 3), np.float32)})["y"], [4, 3])


@pytest.mark.parametrize(
    "name", ["a'b\"c", "*/", "new\nline", "%s", "x" * 10_000, "😀", "int", "main", "../../x", "a.b", "a b"]
)
def test_hostile_names(name):
    proto = model(SMALL)
    proto.graph.name = name
    proto.graph.node[0].output[0] = proto.graph.node[1].input[0] = name
    proto.graph.input[0].name = proto.graph.node[0].input[0] = f"{name}.input"
    graph = prepared(proto)
    result = evaluate(graph, {f"{name}.input": np.zeros((2, 3), np.float32)})
    np.testing.assert_array_equal(result["y"], [[1, 2, 3]] * 2)
