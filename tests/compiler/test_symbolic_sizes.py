"""One artifact for every size: symbolic dimensions, some of them fixed, and sizes that contradict."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from small_models import assert_computes, compiled, images, network, parsed

import partita
from partita.errors import ExecutionError, InputError, ModelError, PartitaError, ShapeError, UnsupportedOperatorError

PAIR = """
<ir_version: 10, opset_import: ["" : 21]>
pair (float[batch, time, 4] x, float[batch, time, 4] mask) => (float[batch, time, 3] y, float[batch, wide] flat) {
    m = Mul (x, mask)
    y = MatMul (m, w)
    flat = Flatten (y)
}
"""


def pair():
    return parsed(PAIR, {"w": np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)})


def tensors(batch: int, time: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(batch * 100 + time)
    return {name: random.standard_normal((batch, time, 4)).astype(np.float32) for name in ("x", "mask")}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return partita.load_module(compiled(pair()).export_library(tmp_path_factory.mktemp("sizes") / "pair.so"))


def test_one_artifact_runs_at_every_size(loaded):
    for batch, time in ((1, 1), (3, 7), (2, 64), (1, 1), (33, 5), (3, 7)):
        assert_computes(loaded, pair(), tensors(batch, time))


def test_no_element_is_a_size_too(loaded):
    results = loaded.run(tensors(0, 3))
    assert (results["y"].shape, results["flat"].shape) == ((0, 3, 3), (0, 9))


def test_a_network_runs_at_every_batch():
    module = compiled(network())
    for batch in (1, 2, 17, 3):
        assert_computes(module, network(), {"x": images(batch)})


def test_sizes_that_contradict_are_refused_with_the_axis_and_both(loaded):
    inputs = {"x": tensors(2, 3)["x"], "mask": tensors(5, 3)["mask"]}
    with pytest.raises(InputError, match=r"input 'mask': axis 0 has size 5, but 'batch' is 2 by axis 0 of input 'x'"):
        loaded.run(inputs)
    with pytest.raises(InputError) as error:
        loaded.run({"x": tensors(2, 3)["x"], "mask": tensors(5, 4)["mask"][..., :3]})
    for part in ("axis 0 has size 5", "axis 1 has size 4, but 'time' is 3", "axis 2 has size 3, expected 4"):
        assert part in str(error.value)
    assert_computes(loaded, pair(), tensors(2, 3))


def test_some_sizes_can_be_fixed():
    module = compiled(pair(), shapes={"x": ("batch", 7, 4), "mask": ("batch", 7, 4)})
    assert_computes(module, pair(), tensors(3, 7))
    with pytest.raises(InputError, match=r"axis 1 has size 6, expected 7"):
        module.run(tensors(3, 6))


def test_all_sizes_can_be_fixed():
    module = compiled(pair(), shapes={"x": (2, 7, None), "mask": (2, 7, 4)})
    assert not module.program.symbols
    assert_computes(module, pair(), tensors(2, 7))


def test_sizes_can_be_renamed_and_made_equal():
    module = compiled(pair(), shapes={"x": ("n", "n", 4), "mask": ("n", "n", 4)})
    assert [symbol.name for symbol in module.program.symbols] == ["n"]
    assert_computes(module, pair(), tensors(4, 4))
    with pytest.raises(InputError, match="'n' is 4"):
        module.run(tensors(4, 5))


@pytest.mark.parametrize(
    ("shapes", "error", "message"),
    [
        ({"x": ("batch", 7, 5)}, ModelError, "axis 2 of input 'x' at 5, but the model has 4"),
        ({"x": ("batch", 7)}, ModelError, "input 'x' rank 2"),
        ({"nothing": (1,)}, ModelError, "names 'nothing', but the inputs are 'x', 'mask'"),
        ({"x": (-1, 7, 4)}, ModelError, "axis 0 of input 'x' at -1"),
        ({"x": (2, 7, 4), "mask": (3, 7, 4)}, ShapeError, "do not broadcast at axis 0"),
    ],
)
def test_shapes_that_do_not_fit_the_model_are_refused(shapes, error, message):
    with pytest.raises(error, match=message):
        compiled(pair(), shapes=shapes)


def test_the_arena_grows_with_the_size():
    module = compiled(network())
    module.run({"x": images(1)})
    small = module.arena_bytes
    module.run({"x": images(16)})
    assert module.arena_bytes > small > 0


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


ADD = "g (float[a, 4] x, float[b, 4] z) => (float[n, 4] y) { y = Add (x, z) }"
SUM = """
g (float[p, 4] x, float[s, 4] z, float[t, 4] w) => (float[n, 4] y) { c = Concat <axis = 0> (x, z)  y = Mul (c, w) }
"""
DOUBLED = "g (float[p, 4] x, float[6, 4] z) => (float[n, 4] y) { c = Concat <axis = 0> (x, x)  y = Mul (c, z) }"
PRODUCT = "g (float[2, k] x, float[l, 3] z) => (float[2, 3] y) { y = MatMul (x, z) }"
JOINED = "g (float[a, 2] x, float[b, 3] z) => (float[n, 5] y) { y = Concat <axis = 1> (x, z) }"
MEETING = {
    "two names": (ADD, ((3, 4), (3, 4)), ((2, 4), (9, 4))),
    "one of them 1": (ADD, ((1, 4), (1, 4)), ((1, 4), (3, 4))),
    "a sum": (SUM, ((2, 4), (3, 4), (5, 4)), ((2, 4), (3, 4), (6, 4))),
    "a doubled one": (DOUBLED, ((3, 4), (6, 4)), ((2, 4), (6, 4))),
    "a product": (PRODUCT, ((2, 5), (5, 3)), ((2, 5), (4, 3))),
    "joined": (JOINED, ((4, 2), (4, 3)), ((4, 2), (3, 3))),
}
"""Models with the shapes of inputs that fit, and of inputs that do not: text, shapes, shapes."""


@pytest.mark.parametrize("name", MEETING)
def test_sizes_that_operators_take_to_be_equal_have_to_be(name):
    text, fitting, differing = MEETING[name]
    model = parsed('<ir_version: 10, opset_import: ["" : 21]>' + text)
    names = [value.name for value in model.graph.input]
    module = compiled(model)
    assert_computes(module, model, dict(zip(names, (floats(*shape) for shape in fitting), strict=True)))
    with pytest.raises((InputError, ExecutionError), match=r"input '\w'.* size \d"):
        module.run(dict(zip(names, (floats(*shape) for shape in differing), strict=True)))


def test_fixing_a_size_fixes_what_it_meets():
    module = compiled(pair(), shapes={"x": ("batch", 7, 4)})
    assert_computes(module, pair(), tensors(3, 7))
    for time in (1, 5, 9):
        with pytest.raises(InputError, match=f"input 'mask': axis 1 has size {time}, expected 7"):
            module.run({"x": tensors(3, 7)["x"], "mask": tensors(3, time)["mask"]})


def test_sizes_that_would_have_to_be_two_are_refused():
    text = "g (float[n] x, float[3] a, float[4] b) => (float[3] y, float[4] z) { y = Add (x, a)  z = Add (x, b) }"
    with pytest.raises(ShapeError, match="have to be equal"):
        compiled(parsed('<ir_version: 10, opset_import: ["" : 21]>' + text))


CONTRADICTIONS = {
    "LayerNormalization": (
        "y = LayerNormalization (x, s, b)",
        {"x": (2, 3), "s": (3,), "b": (2,)},
        "input 'b': axis 0",
    ),
    "GroupNormalization": (
        "y = GroupNormalization <num_groups = 2> (x, s, b)",
        {"x": (2, 4, 3), "s": (2,), "b": (4,)},
        "input 's': axis 0",
    ),
    "BatchNormalization": (
        "y = BatchNormalization (x, s, s, s, v)",
        {"x": (2, 4, 3), "s": (4,), "v": (2,)},
        "input 'v': axis 0",
    ),
    "Conv": ("y = Conv (x, w)", {"x": (1, 3, 5), "w": (2, 4, 3)}, "input 'w': axis 1"),
    "the bias of Conv": ("y = Conv (x, w, b)", {"x": (1, 4, 5), "w": (2, 4, 3), "b": (1,)}, "axis 0 of b has size 1"),
    "Gemm": ("y = Gemm (a, b, c)", {"a": (2, 3), "b": (3, 4), "c": (3,)}, "axis 0 of c has size 3"),
    "keys": (
        "y = Attention (q, k, v)",
        {"q": (1, 2, 3, 4), "k": (1, 2, 5, 3), "v": (1, 2, 5, 6)},
        r"sizes k3 \(3\) and .* \(4\) have to be equal",
    ),
    "values": (
        "y = Attention (q, k, v)",
        {"q": (1, 2, 3, 4), "k": (1, 2, 5, 4), "v": (1, 2, 4, 6)},
        r"sizes v2 \(4\) and .* \(5\) have to be equal",
    ),
    "scales": ("y = QuantizeLinear (x, s)", {"x": (2, 3), "s": (2,)}, "axis 0 of s has size 2, but element 2"),
    "rotations": (
        "y = RotaryEmbedding (x, c, s)",
        {"x": (1, 2, 3, 4), "c": (1, 2, 2), "s": (1, 3, 2)},
        "input 'c': axis 1",
    ),
    "weights of a layer": (
        "y, h, c = LSTM <hidden_size = 3> (x, w, r)",
        {"x": (2, 1, 4), "w": (1, 12, 4), "r": (1, 11, 3)},
        "input 'r': axis 1",
    ),
    "a procedure": (
        'y, p = LinearAttention <q_num_heads = 1, kv_num_heads = 1, update_rule = "linear"> (q, k, v)',
        {"q": (1, 2, 4), "k": (1, 1, 4), "v": (1, 2, 4)},
        "axis 1 of k has size 1, but element 1",
    ),
    "DepthToSpace": (
        "y = DepthToSpace <blocksize = 2> (x)",
        {"x": (1, 7, 2, 2)},
        r"y: sizes x1 \(7\) and 4\*floor\(x1/4\) \(4\) have to be equal",
    ),
    "SpaceToDepth": ("y = SpaceToDepth <blocksize = 2> (x)", {"x": (1, 1, 2, 3)}, r"sizes x3 \(3\) and .* \(2\)"),
    "Reshape": (
        "s = Constant <value_ints = [-1, 4]> () y = Reshape (x, s)",
        {"x": (3, 3)},
        r"sizes x0\*x1 \(9\) and .* \(8\)",
    ),
    "Squeeze": (
        "s = Constant <value_ints = [0]> () y = Squeeze (x, s)",
        {"x": (2, 3)},
        "axis 0 has size 2",
    ),
    "groups": (
        "y = GroupNormalization <num_groups = 2> (x, s, b)",
        {"x": (2, 5, 3), "s": (5,), "b": (5,)},
        r"\(30\) and .* \(24\)",
    ),
    "groups of Conv": ("y = Conv <group = 2> (x, w)", {"x": (1, 4, 5), "w": (3, 2, 3)}, r"sizes w0 \(3\) and .* \(2\)"),
    "ConvTranspose": ("y = ConvTranspose (x, w)", {"x": (1, 3, 5), "w": (4, 2, 3)}, "input 'w': axis 0"),
    "ScatterND": (
        "i = Cast <to = 7> (f) y = ScatterND (x, i, u)",
        {"x": (4, 3), "f": (2, 2), "u": (2, 3)},
        r"sizes f1 \(2\) and 1 have to be equal",
    ),
    "boxes": (
        "y = NonMaxSuppression (b, s)",
        {"b": (1, 2, 3), "s": (1, 1, 2)},
        "axis 2 of b has size 3, but element 3",
    ),
}
"""Nodes with shapes of inputs, whose sizes the model leaves open, that contradict each other; and what is told."""


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_no_operator_reads_beyond_what_there_is(name):
    node, shapes, problem = CONTRADICTIONS[name]
    kinds = [f"float[{', '.join(f'{x}{axis}' for axis in range(len(shape)))}] {x}" for x, shape in shapes.items()]
    module = compiled(parsed(f'<ir_version: 10, opset_import: ["" : 28]> g ({", ".join(kinds)}) => (y) {{ {node} }}'))
    with pytest.raises(InputError, match=problem):
        module.run({x: floats(*shape) for x, shape in shapes.items()})


UNTOLD = {
    "GatherND": ("y = GatherND (x, i)", "float[a, b] x, int64[n, k] i", "decides the result's rank"),
    "SequenceAt": ("e = SequenceAt (s, i) y = Exp (e)", "seq(float[]) s, int64 i", "the rank of 'e' is unknown"),
    "Col2Im": ("y = Col2Im (x, i, k)", "float[1, c, n] x, int64[r] i, int64[r] k", "how many sizes 'i'"),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_what_must_be_known_is_told(name):
    node, inputs, problem = UNTOLD[name]
    text = f'<ir_version: 10, opset_import: ["" : 28]> g ({inputs}) => (y) {{ {node} }}'
    with pytest.raises(PartitaError, match=problem):
        compiled(parsed(text))


def test_a_convolution_of_any_sizes():
    text = """g (float[n, c, h, w] x, float[o, c, p, q] k, float[n, s, a, b] f) => (y, z) {
        y = Conv <kernel_shape = [2, 2]> (x, k) z = DeformConv <kernel_shape = [2, 2]> (x, k, f) }"""
    model = parsed('<ir_version: 10, opset_import: ["" : 22]>' + text)
    inputs = {"x": floats(2, 3, 4, 4), "k": floats(4, 3, 2, 2), "f": np.zeros((2, 8, 3, 3), np.float32)}
    found = compiled(model).run(inputs)
    np.testing.assert_allclose(found["y"], found["z"], rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="input 'k': axis 2"):
        compiled(model).run({**inputs, "k": floats(4, 3, 3, 2)})


ANY_WEIGHTS = {
    "a GRU": ("y, h = GRU (x, w, r, b)", {"x": (5, 2, 3), "w": (1, 12, 3), "r": (1, 12, 4), "b": (1, 24)}),
    "its other form": (
        "y, h = GRU <linear_before_reset = 1, layout = 1> (x, w, r, b)",
        {"x": (2, 5, 3), "w": (1, 12, 3), "r": (1, 12, 4), "b": (1, 24)},
    ),
    "an LSTM": (
        'y, h, c = LSTM <direction = "bidirectional"> (x, w, r)',
        {"x": (5, 2, 3), "w": (2, 16, 3), "r": (2, 16, 4)},
    ),
    "ConvTranspose": ("y = ConvTranspose (x, w, b)", {"x": (2, 3, 4, 5), "w": (3, 2, 3, 2), "b": (2,)}),
    "with strides": (
        "y = ConvTranspose <group = 2, strides = [2, 3], pads = [1, 0, 0, 2], dilations = [2, 1]> (x, w, b)",
        {"x": (1, 4, 4, 5), "w": (4, 3, 3, 2), "b": (6,)},
    ),
    "with pads of its own": (
        'y = ConvTranspose <auto_pad = "SAME_UPPER", strides = [2]> (x, w)',
        {"x": (1, 2, 5), "w": (2, 3, 3)},
    ),
    "Conv in groups": ("y = Conv <group = 2> (x, w)", {"x": (1, 4, 5), "w": (6, 2, 3)}),
    "ScatterND": ("i = Cast <to = 7> (f) y = ScatterND (x, i, u)", {"x": (4, 3), "f": (2, 1), "u": (2, 3)}),
}


@pytest.mark.parametrize("name", ANY_WEIGHTS)
def test_weights_of_any_sizes(name):
    node, shapes = ANY_WEIGHTS[name]
    inputs = {x: np.zeros(shape, np.float32) if x == "f" else floats(*shape) for x, shape in shapes.items()}
    found = []
    for known in (True, False):
        sizes = {x: ", ".join(str(n) if known else f"{x}{k}" for k, n in enumerate(s)) for x, s in shapes.items()}
        kinds = ", ".join(f"float[{text}] {x}" for x, text in sizes.items())
        found.append(compiled(parsed(f'<ir_version: 10, opset_import: ["" : 22]> g ({kinds}) => (y) {{ {node} }}')))
    first, second = (module.run(inputs)["y"] for module in found)
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)


def test_what_no_loop_reaches_need_not_be_there():
    text = "g (float[n, c, h] x, float[o, c, 3] w) => (y) { y = Conv (x, w) }"
    module = compiled(parsed('<ir_version: 10, opset_import: ["" : 28]>' + text))
    assert module.run({"x": floats(0, 2, 3), "w": floats(4, 2, 3)})["y"].shape == (0, 4, 1)
    assert module.run({"x": floats(1, 2, 3), "w": floats(0, 2, 3)})["y"].shape == (1, 0, 1)


@pytest.mark.parametrize("written", [-1, "?", None])
def test_sizes_without_a_name_are_sizes_of_their_own(written):
    """Exporters write -1 or a question mark for each of them."""
    proto = parsed('<ir_version: 10, opset_import: ["" : 22]> g (float[a, b] x) => (float[c, d] y) { y = Neg (x) }')
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")
            if written is not None:
                setattr(dim, "dim_value" if written == -1 else "dim_param", written)
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(compiled(proto).run({"x": x})["y"], -x)
    np.testing.assert_array_equal(compiled(proto, shapes={"x": (2, 3)}).run({"x": x})["y"], -x)


def test_what_follows_an_operator_that_nobody_knows_is_refused_with_it():
    """Its result has no type: a reshape of it can neither be simplified nor claimed."""
    text = "g (float[2, 3] x, int64[1] s) => (float[6] y) { a = com.acme.Secret (x) y = Reshape (a, s) }"
    text = '<ir_version: 10, opset_import: ["" : 22, "com.acme" : 1]> ' + text
    with pytest.raises(UnsupportedOperatorError, match=r"(?s)com\.acme::Secret.*Reshape"):
        compiled(parsed(text))


def test_names_of_sizes_are_none_of_the_variables_in_c():
    """A kernel has variables called so; also what dimensions are computed from is named once, not repeated in loops."""
    random = np.random.default_rng(3)
    w, d = (random.standard_normal(shape).astype(np.float32) for shape in ((6, 5, 3, 3), (6, 1, 3, 3)))
    for height, width in (("height", "width"), ("rows", "columns"), ("size", "begin"), ("first", "int"), ("c", "sums")):
        text = f"""<ir_version: 10, opset_import: ["" : 22]>
        g (float[r, 5, {height}, {width}] x) => (float[a, b, c, d] y) {{
            p = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)
            q = Conv <pads = [0, 1, 0, 1], group = 6> (p, d)
            m = MaxPool <kernel_shape = [2, 2], pads = [1, 0, 1, 0], strides = [2, 2]> (q)
            y = Concat <axis = 1> (m, m)
        }}"""
        model = parsed(text, {"w": w, "d": d})
        module = compiled(model)
        for shape in ((1, 5, 17, 40), (2, 5, 9, 8), (3, 5, 64, 33)):
            assert_computes(module, model, {"x": random.standard_normal(shape).astype(np.float32)})


BATCH = """<ir_version: 10, opset_import: ["" : 22]>
g (float[{0}, 3, {1}, {1}] x) => (float[a, b, c, d] y, float[e, f] z) {{
    p = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, planar)
    q = Relu (p)
    w = Conv <pads = [1, 1, 1, 1]> (q, square)
    d = Conv <pads = [1, 1, 1, 1], group = 32> (w, depthwise)
    s = Add (d, q)
    g = Conv <pads = [2, 2, 2, 2], group = 2> (s, groups)
    m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (g)
    l = LRN <size = 5> (m)
    t = ConvTranspose <strides = [2, 2]> (l, transposed)
    u = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (t)
    y = Concat <axis = 1> (u, s)
    v = GlobalAveragePool (y)
    z = Flatten (v)
}}"""


@pytest.mark.parametrize("size", [9, 24, 61])
def test_images_of_known_size_have_the_same_kernels_in_any_number(size):
    """Padded, by register tiles, by Winograd with few tiles and many, in groups, by windows, interleaved."""
    random = np.random.default_rng(size)
    shapes = {"planar": (32, 3, 3, 3), "square": (32, 32, 3, 3), "depthwise": (32, 1, 3, 3), "groups": (32, 16, 5, 5)}
    shapes["transposed"] = (32, 16, 2, 2)
    weights = {name: (random.standard_normal(shape) / 9).astype(np.float32) for name, shape in shapes.items()}
    module = compiled(parsed(BATCH.format("batch", size), weights))
    for count in (1, 3, 0, 2):
        x = random.standard_normal((count, 3, size, size)).astype(np.float32)
        found = module.run({"x": x})
        if not count:
            assert found["z"].shape == (0, 48)
            continue
        model = parsed(BATCH.format(count, size), weights)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        fixed = compiled(model).run({"x": x})
        for name, wanted in zip(found, session.run(list(found), {"x": x}), strict=True):
            np.testing.assert_allclose(found[name], wanted, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(found[name], fixed[name], rtol=1e-6, atol=1e-6)
