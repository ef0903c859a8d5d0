"""Old meanings become new ones: each upgrade, against ONNX's reference for the old opset or against NumPy."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from pass_harness import assert_same, graph_of, random_inputs

from partita.errors import ModelError
from partita.ir.evaluate import evaluate
from partita.ir.read_onnx import read_onnx
from partita.ir.schema import NEWEST_OPSET
from partita.ir.verify import verify
from partita.passes.canonicalize import canonicalize

X = "float[2, 3, 4] x"


def upgraded(text, opset):
    """The canonical graph of a model of an older opset."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    graph = read_onnx(model.SerializeToString())
    names = [value.name for value in graph.outputs]
    assert canonicalize(graph) is True
    verify(graph)
    assert all(node.version == NEWEST_OPSET for node in graph.nodes if not node.domain)
    assert graph.opsets[""] == NEWEST_OPSET
    assert [value.name for value in graph.outputs] == names
    assert canonicalize(graph) is False
    return graph


def operators(graph):
    return [node.op_type for node in graph.nodes]


# (opset, inputs, node): ONNX's reference knows the old meaning
AS_THE_REFERENCE = [
    (11, X, "y = Unsqueeze <axes = [0, -1]> (x)"),
    (11, "float[1, 3, 1] x", "y = Squeeze <axes = [0]> (x)"),
    (11, "float[1, 3, 1] x", "y = Squeeze (x)"),
    (11, X, "y = ReduceSum <axes = [1], keepdims = 0> (x)"),
    (11, X, "y = ReduceSum (x)"),
    (13, X, "y = ReduceMean <axes = [0, -1]> (x)"),
    (17, X, "y = ReduceMax <axes = [2], keepdims = 0> (x)"),
    (11, X, "y = ReduceLogSumExp <axes = [2]> (x)"),
    (9, X, "y = Slice <starts = [0, 1], ends = [1, 99], axes = [0, 2]> (x)"),
    (9, X, "y = Slice <starts = [1], ends = [-1]> (x)"),
    (11, X, "y, z = Split <axis = 2, split = [1, 3]> (x)"),
    (11, X, "y, z = Split <axis = 2> (x)"),
    (13, X, "y, z = Split <axis = 2> (x)"),
    (6, X, "y = Clip <min = -0.5, max = 0.5> (x)"),
    (6, X, "y = Clip <max = 0.5> (x)"),
    (6, X, "y = Clip (x)"),
    (10, X, 'y = Pad <pads = [0, 1, 0, 0, 0, 2], value = 1.5> (x)'),
    (2, X, 'y = Pad <pads = [0, 1, 0, 0, 1, 0], mode = "edge"> (x)'),
    (1, X, "y, z = TopK <k = 2> (x)"),
    (10, X, "y = Dropout <ratio = 0.9> (x)"),
    (19, "float[2, 10, 1] x", "y = DFT <axis = 1> (x)"),
]  # fmt: skip


@pytest.mark.parametrize(("opset", "inputs", "node"), AS_THE_REFERENCE, ids=lambda value: str(value)[:60])
def test_the_numbers_of_the_old_opset(opset, inputs, node):
    results = node.split(" =")[0]
    kinds = {"z": "int64 z" if "TopK" in node else "float z"}
    outputs = ", ".join(kinds.get(name, f"float {name}") for name in results.split(", "))
    text = f"g ({inputs}) => ({outputs}) {{ {node} }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = read_onnx(model.SerializeToString())
    canonicalize(graph)
    verify(graph)
    values = random_inputs(graph)
    if opset >= 5:
        wanted = dict(zip(results.split(", "), ReferenceEvaluator(model).run(None, values), strict=True))
    else:
        wanted = evaluate(graph, values)  # the reference starts at opset 5 or later; the shape is what is checked
    assert_same(evaluate(graph, values), wanted, 1e-6)


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 5, 1, 1)])
def test_softmax_over_all_later_axes(op_type, axis, shape):
    attribute = "" if axis is None else f"<axis = {axis}> "
    kind = f"float[{', '.join(map(str, shape))}]"
    graph = upgraded(f"g ({kind} x) => ({kind} y) {{ y = {op_type} {attribute}(x) }}", 11)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    matrix = x.reshape(int(np.prod(shape[: 1 if axis is None else axis % len(shape)])), -1)
    shares = np.exp(matrix) / np.exp(matrix).sum(1, keepdims=True)
    wanted = {
        "Softmax": shares,
        "LogSoftmax": np.log(shares),
        "Hardmax": (matrix == matrix.max(1, keepdims=True)).astype(np.float32),
    }[op_type]
    np.testing.assert_allclose(evaluate(graph, {"x": x})["y"], wanted.reshape(shape), rtol=1e-5, atol=1e-6)


def test_pads_of_opset_2_are_operands():
    graph = upgraded("g (float[2] x) => (float[4] y) { y = Pad <pads = [1, 1], value = 3.0> (x) }", 2)
    np.testing.assert_array_equal(evaluate(graph, {"x": np.ones(2, np.float32)})["y"], [3, 1, 1, 3])
    graph = upgraded("g (float[2] x) => (float[4] y) { y = Pad <paddings = [1, 1]> (x) }", 1)
    np.testing.assert_array_equal(evaluate(graph, {"x": np.ones(2, np.float32)})["y"], [0, 1, 1, 0])


def test_top_k_of_opset_1():
    graph = upgraded("g (float[4] x) => (float[2] y, int64[2] i) { y, i = TopK <k = 2> (x) }", 1)
    result = evaluate(graph, {"x": np.asarray([1, 4, 2, 3], np.float32)})
    np.testing.assert_array_equal(result["i"], [1, 3])


def test_reshape_and_attributes_without_meaning_of_opset_1():
    graph = upgraded(
        "g (float[2, 3] x) => (float[6] y) { a = Relu <consumed_inputs = [0]> (x) y = Reshape <shape = [-1]> (a) }", 1
    )
    assert operators(graph) == ["Relu", "Reshape"]
    assert not graph.nodes[0].attributes
    assert graph.outputs[0].shape == (6,)


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Pow"])
def test_broadcasting_from_an_axis(op_type):
    text = (
        f"g (float[2, 3, 4] x, float[3] b) => (float[2, 3, 4] y) {{ y = {op_type} <broadcast = 1, axis = 1> (x, b) }}"
    )
    graph = upgraded(text, 6)
    values = {"x": np.full((2, 3, 4), 2, np.float32), "b": np.asarray([1, 2, 3], np.float32)}
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}[op_type]
    np.testing.assert_allclose(evaluate(graph, values)["y"], function(values["x"], values["b"][None, :, None]))


def test_broadcasting_comparisons_and_from_the_end():
    graph = upgraded(
        "g (float[2, 3, 4] x, float[2, 3] b) => (bool[2, 3, 4] y) { y = Less <broadcast = 1, axis = 0> (x, b) }", 6
    )
    values = random_inputs(graph)
    np.testing.assert_array_equal(evaluate(graph, values)["y"], values["x"] < values["b"][:, :, None])
    graph = upgraded("g (float[2, 3] x, float[3] b) => (float[2, 3] y) { y = Add <broadcast = 1> (x, b) }", 6)
    assert operators(graph) == ["Add"]


def test_gemm_of_opset_6():
    graph = upgraded(
        "g (float[2, 3] a, float[3, 4] b, float[4] c) => (float[2, 4] y) { y = Gemm <broadcast = 1> (a, b, c) }", 6
    )
    values = random_inputs(graph)
    np.testing.assert_allclose(evaluate(graph, values)["y"], values["a"] @ values["b"] + values["c"], rtol=1e-5)


def test_cast_by_name():
    graph = upgraded('g (float[2] x) => (int64[2] y) { y = Cast <to = "INT64"> (x) }', 5)
    assert graph.nodes[0].attributes["to"] == onnx.TensorProto.INT64


def test_slopes_per_channel():
    graph = upgraded("g (float[1, 2, 3] x, float[2] s) => (float[1, 2, 3] y) { y = PRelu (x, s) }", 6)
    result = evaluate(graph, {"x": -np.ones((1, 2, 3), np.float32), "s": np.asarray([2, 3], np.float32)})["y"]
    np.testing.assert_array_equal(result[0], [[-2] * 3, [-3] * 3])


def test_defaults_that_changed():
    graph = upgraded("g (float[2] x) => (float[2] y) { y = Selu (x) }", 1)
    assert graph.nodes[0].attributes == {"alpha": 1.673200011253357, "gamma": 1.0506999492645264}
    graph = upgraded("g (float[1, 2] x, float[2, 2] z) => (float[3, 2] y) { y = Concat <axis = 0> (x, z) }", 1)
    assert graph.nodes[0].attributes["axis"] == 0
    graph = upgraded("g (float[2, 1] x, float[2, 2] z) => (float[2, 3] y) { y = Concat (x, z) }", 1)
    assert graph.nodes[0].attributes["axis"] == 1


BATCH_NORMALIZATION = (
    "g (float[2, 3, 4] x, float[{0}] s, float[{0}] b, float[{0}] m, float[{0}] v) => (float[2, 3, 4] y) {{ {1} }}"
)


def normalized(values, channels):
    s, b, m, v = (values[name].reshape(channels) for name in "sbmv")
    return (values["x"] - m) / np.sqrt(v + 1e-5) * s + b


@pytest.mark.parametrize(
    ("opset", "node"),
    [
        (6, "y = BatchNormalization <is_test = 1> (x, s, b, m, v)"),
        (7, "y = BatchNormalization <spatial = 1, momentum = 0.5> (x, s, b, m, v)"),
        (9, "y, p, q, r, t = BatchNormalization (x, s, b, m, v)"),
        (14, "y = BatchNormalization (x, s, b, m, v)"),
    ],
)
def test_batch_normalization(opset, node):
    graph = upgraded(BATCH_NORMALIZATION.format(3, node), opset)
    assert operators(graph) == ["BatchNormalization"]
    values = {name: abs(array) for name, array in random_inputs(graph).items()}
    values["x"] = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(graph, values)["y"], normalized(values, (1, 3, 1)), rtol=1e-4, atol=1e-5)


def test_batch_normalization_per_element():
    node = "y = BatchNormalization <spatial = 0> (x, s, b, m, v)"
    graph = upgraded(BATCH_NORMALIZATION.format("3, 4", node), 7)
    values = {name: abs(array) for name, array in random_inputs(graph, seed=1).items()}
    values["x"] = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(evaluate(graph, values)["y"], normalized(values, (1, 3, 4)), rtol=1e-4, atol=1e-5)


def test_batch_normalization_that_trains_is_refused():
    node = "y, p, q = BatchNormalization (x, s, b, m, v)"
    text = BATCH_NORMALIZATION.format(3, node).replace("y) {", "y, float[3] p) {")
    with pytest.raises(ModelError, match="training step"):
        upgraded(text, 9)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(("opset", "kind"), [(6, "float"), (9, "float"), (10, "bool"), (13, "bool")])
def test_masks_of_dropout(opset, kind, used):
    outputs = f"float[2] y, {kind}[2] m" if used else "float[2] y"
    graph = upgraded(f"g (float[2] x) => ({outputs}) {{ a, m = Dropout (x) y = Neg (a) }}", opset)
    result = evaluate(graph, {"x": np.ones(2, np.float32)})
    np.testing.assert_array_equal(result["y"], [-1, -1])
    if used:
        np.testing.assert_array_equal(result["m"], np.ones(2, bool if kind == "bool" else np.float32))


@pytest.mark.parametrize(
    ("opset", "node"),
    [
        (1, 'y = Upsample <height_scale = 2.0, width_scale = 3.0, mode = "{}"> (x)'),
        (7, 'y = Upsample <scales = [1.0, 1.0, 2.0, 3.0], mode = "{}"> (x)'),
        (9, 'y = Upsample <mode = "{}"> (x, s)'),
        (10, 'y = Resize <mode = "{}"> (x, s)'),
    ],
)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsampling(opset, node, mode):
    mode_then = "bilinear" if opset == 1 and mode == "linear" else mode
    scales = "<float[4] s = {1, 1, 2, 3}>"
    graph = upgraded(f"g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 6] y) {scales} {{ {node.format(mode_then)} }}", opset)
    assert operators(graph) == ["Resize"]
    x = np.asarray([[[[1, 2], [3, 4]]]], np.float32)
    result = evaluate(graph, {"x": x})["y"]
    if mode == "nearest":
        np.testing.assert_array_equal(result, x.repeat(2, axis=2).repeat(3, axis=3))
    else:
        np.testing.assert_allclose(result[0, 0, 0], [1, 4 / 3, 5 / 3, 2, 2, 2], rtol=1e-6)


def test_resize_with_empty_operands():
    text = (
        "g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) "
        "<float[0] r = {}, float[0] s = {}, int64[4] z = {1, 1, 4, 4}> { y = Resize (x, r, s, z) }"
    )
    graph = upgraded(text, 11)
    assert [value is None for value in graph.nodes[0].inputs] == [False, True, True, False]


def test_scatter():
    text = "g (float[3] x, float[1] u) => (float[3] y) <int64[1] i = {1}> { y = Scatter <axis = 0> (x, i, u) }"
    graph = upgraded(text, 9)
    assert operators(graph) == ["ScatterElements"]


def test_group_normalization_per_group():
    text = (
        "g (float[1, 4, 3] x, float[2] s, float[2] b) => (float[1, 4, 3] y) "
        "{ y = GroupNormalization <num_groups = 2> (x, s, b) }"
    )
    graph = upgraded(text, 18)
    values = {name: np.nan_to_num(array, posinf=1, neginf=1) for name, array in random_inputs(graph).items()}
    x = values["x"].reshape(1, 2, 6)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    wanted = (normal * values["s"][:, None] + values["b"][:, None]).reshape(1, 4, 3)
    np.testing.assert_allclose(evaluate(graph, values)["y"], wanted, rtol=1e-4, atol=1e-5)


def test_tile_of_one_axis():
    text = "g (float[2, 3] x) => (float[2, 6] y) <int64 t = {2}, int64 a = {1}> { y = Tile (x, t, a) }"
    graph = upgraded(text, 1)
    assert graph.outputs[0].shape == (2, 6)


@pytest.mark.parametrize(("opset", "kind"), [(1, "LpPool"), (1, "GlobalLpPool")])
def test_powers_of_pools(opset, kind):
    attributes = "kernel_shape = [2, 2], " if kind == "LpPool" else ""
    text = "g (float[1, 1, 2, 2] x) => (float[1, 1, 1, 1] y) {{ y = {} <{}p = {}> (x) }}"
    graph = upgraded(text.format(kind, attributes, "2.0"), opset)
    assert graph.nodes[0].attributes["p"] == 2
    with pytest.raises(ModelError, match=r"p is 2\.5"):
        upgraded(text.format(kind, attributes, "2.5"), opset)


def test_recurrent_layers():
    text = (
        "g (float[4, 1, 2] x, float[1, 9, 2] w, float[1, 9, 3] r) => (float[4, 1, 1, 3] y, float[1, 1, 3] h) "
        '{ y, h = GRU <hidden_size = 3, output_sequence = 1, direction = "foward"> (x, w, r) }'
    )
    graph = upgraded(text, 1)
    assert graph.nodes[0].attributes == {"hidden_size": 3, "direction": "forward"}


def test_names_of_modes():
    text = (
        "g (float[1, 1, 2, 2] x, float[1, 1, 1, 2] p) => (float[1, 1, 1, 1] y) "
        '{ y = GridSample <mode = "bilinear"> (x, p) }'
    )
    assert upgraded(text, 16).nodes[0].attributes["mode"] == "linear"
    text = "g (float[1, 1, 2, 2] x, float[1, 4] r, int64[1] b) => (float[1, 1, 1, 1] y) { y = RoiAlign (x, r, b) }"
    (node,) = (node for node in upgraded(text, 10).nodes if node.op_type == "RoiAlign")
    assert node.attributes["coordinate_transformation_mode"] == "output_half_pixel"


SCAN = """g (float[2, 2] s, float[2, 3, 2] x) => (float[2, 2] y, float[2, 3, 2] z) {
    y, z = Scan <num_scan_inputs = 1, directions = [%s],
        body = b (float[2] state, float[2] v) => (float[2] next, float[2] out) {
            next = Add (state, v) out = Identity (next) }> (%s, s, x)
}"""


def test_batches_of_scan():
    graph = upgraded(SCAN % ("1", '""'), 8)
    inner = graph.nodes[0].attributes["body"].nodes[0]
    assert inner.attributes["scan_input_directions"] == (1,)
    graph = upgraded(SCAN % ("0", '""'), 8)
    values = random_inputs(graph)
    result = evaluate(graph, values)
    np.testing.assert_allclose(result["y"], values["s"] + values["x"].sum(1), rtol=1e-5)
    sums = values["s"][:, None] + values["x"].cumsum(1)
    np.testing.assert_allclose(result["z"], sums, rtol=1e-5)


def test_every_known_operator_of_every_opset_has_a_way_up():
    """Whatever attribute or operand an older schema of an operator has and the newest has not must be dealt with."""
    from partita.ir.opsets import SILENT
    from partita.ir.registry import operator

    newest = {schema.name: schema for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    missing = set()
    for schema in onnx.defs.get_all_schemas_with_history():
        new = newest.get(schema.name)
        if schema.domain or new is None or schema.since_version == new.since_version:
            continue
        operands = {operand.name.lower() for operand in new.inputs}  # which attributes of these names become
        silent = SILENT if schema.name == "Gemm" else SILENT - {"broadcast"}
        gone = {name for name in schema.attributes if name.lower() not in operands} - set(new.attributes) - silent
        changed = {
            name
            for name in set(schema.attributes) & set(new.attributes)
            if schema.attributes[name].type != new.attributes[name].type
        }
        steps = [before for before, _ in operator(schema.name).upgrades if before > schema.since_version]
        if (gone or changed) and not steps and schema.name not in ("Constant",):
            missing.add((schema.name, schema.since_version, *sorted(gone | changed)))
    assert not missing


def test_all_types_are_known_afterwards():
    graph = graph_of("model (float[N, 3] x) => (float[N, 3] y) { a = Neg (x) y = Softmax (a) }")
    assert [str(value.type) for value in graph.values()] == ["float32[N, 3]"] * 3


def test_all_bad_nodes_are_told_at_once():
    model = "g (float[2] x) => (float[2] y) { a = Neg <p = 1> (x) y = Exp <q = 1> (a) }"
    with pytest.raises(ModelError) as caught:
        upgraded(model, 13)
    assert "'p'" in str(caught.value)
    assert "'q'" in str(caught.value)
