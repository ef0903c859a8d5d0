"""Types of sequences and optional values: what elements have in common, and what is taken out of them."""

import onnx
import pytest

from partita.errors import PartitaError
from partita.ir import dims
from partita.ir.read_onnx import read_onnx
from partita.ir.types import DType, OptionalType, SequenceType, TensorType
from partita.ir.verify import verify
from partita.passes.pipeline import prepare

HEADER = '<ir_version: 10, opset_import: ["" : 22]>\n'


def typed(text):
    """The types of the outputs, with "?" for sizes that are no number."""
    graph = read_onnx(onnx.parser.parse_model(HEADER + text).SerializeToString())
    prepare(graph)
    verify(graph)
    return [plain(output.type) for output in graph.outputs]


def plain(kind):
    if isinstance(kind, SequenceType):
        return SequenceType(plain(kind.element), kind.is_empty)
    if isinstance(kind, OptionalType):
        return OptionalType(plain(kind.element))
    if kind.shape is None:
        return kind
    return TensorType(kind.dtype, tuple(dim if dims.is_static(dim) else "?" for dim in kind.shape))


def floats(*shape):
    return TensorType(DType.FLOAT32, shape)


ANY_RANK = TensorType(DType.FLOAT32, None)


@pytest.mark.parametrize(
    ("operands", "element"),
    [
        ("x, x", floats(2, 3)),
        ("x, y", floats(2, "?")),
        ("x, n", floats("?", 3)),
        ("n, n", floats("?", 3)),
        ("x, v", ANY_RANK),
    ],
)
def test_elements_have_in_common_what_all_have(operands, element):
    text = f"""g (float[2, 3] x, float[2, 4] y, float[N, 3] n, float[3] v) => (seq(float[]) s) {{
        s = SequenceConstruct ({operands})
    }}"""
    assert typed(text) == [SequenceType(element)]


def test_an_empty_sequence_takes_any_rank():
    text = """g (float[2, 3] x) => (seq(float[]) s, seq(float[]) t) {
        s = SequenceEmpty () t = SequenceInsert (s, x)
    }"""
    assert typed(text) == [SequenceType(ANY_RANK, is_empty=True), SequenceType(floats(2, 3))]


def test_what_a_loop_fills_is_known_although_it_began_empty():
    text = """g (int64 n, float[N, 3] x) => (seq(float[]) s, float[] e) {
        none = SequenceEmpty ()
        s = Loop (n, , none) <body = b (int64 i, bool on, seq(float[]) t) => (bool again, seq(float[]) u) {
            again = Identity (on) u = SequenceInsert (t, x)
        }>
        zero = Constant <value = int64 {0}> ()
        e = SequenceAt (s, zero)
    }"""
    assert typed(text) == [SequenceType(floats("?", 3)), floats("?", 3)]


def test_sizes_that_are_taken_out_are_of_that_value_alone():
    text = """g (seq(float[N, 3]) s, int64 i, int64 j, float[N, 3] x) => (float[A, 3] a, float[B, 3] b, float[N, 3] c) {
        a = SequenceAt (s, i) b = SequenceAt (s, j) c = Neg (x)
    }"""
    graph = read_onnx(onnx.parser.parse_model(HEADER + text).SerializeToString())
    prepare(graph)
    assert len({str(output.shape[0]) for output in graph.outputs}) == 3


@pytest.mark.parametrize(
    ("parts", "element"),
    [
        ("", floats(1, 3)),
        (", two", floats(2, 3)),
        (", five", floats("?", 3)),
        (", pair", floats(3, 3)),
        (", uneven", floats("?", 3)),
        (", given", floats("?", 3)),
    ],
)
def test_parts(parts, element):
    text = f"""g (float[6, 3] x, int64 given) => (seq(float[]) s)
        <int64 two = {{2}}, int64 five = {{5}}, int64[2] pair = {{3, 3}}, int64[2] uneven = {{2, 4}}> {{
        s = SplitToSequence (x{parts})
    }}"""
    assert typed(text) == [SequenceType(element)]


@pytest.mark.parametrize(("axis", "is_new", "shape"), [(0, 0, ("?", 3)), (1, 0, (2, "?")), (-1, 1, (2, 3, "?"))])
def test_joined(axis, is_new, shape):
    text = f"""g (seq(float[2, 3]) s) => (float[] y) {{
        y = ConcatFromSequence <axis = {axis}, new_axis = {is_new}> (s)
    }}"""
    assert typed(text) == [floats(*shape)]


def test_optional_values():
    text = """g (optional(float[N, 3]) o, optional(seq(float[2])) p, float[2] x)
            => (float[] y, seq(float[2]) s, optional(float[2]) z, bool there) {
        y = OptionalGetElement (o) s = OptionalGetElement (p) z = Optional (x) there = OptionalHasElement (p)
    }"""
    two = floats(2)
    found = typed(text)
    assert found == [floats("?", 3), SequenceType(two), OptionalType(two), TensorType(DType.BOOL, ())]


def test_elements_of_two_types():
    with pytest.raises(PartitaError, match="elements of float32 and int64 in one sequence"):
        typed("g (float[2] x, int64[2] y) => (seq(float[]) s) { s = SequenceConstruct (x, y) }")
