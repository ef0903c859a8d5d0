"""Sequences and optional values in generated C: what they hold, what is taken out of them, and what is refused."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import partita
from partita.errors import ExecutionError, InputError

QUICK = partita.BuildOptions(optimization="-O0")
HEADER = '<ir_version: 10, opset_import: ["" : 22]>\n'
A, B, C = (np.arange(size * 2, dtype=np.float32).reshape(size, 2) + size for size in (1, 3, 0))
V = np.asarray([1.0, 2.0], np.float32)


def compiled(text):
    return partita.compile(onnx.parser.parse_model(HEADER + text), build=QUICK)


def same(found, wanted):
    if isinstance(wanted, list):
        assert isinstance(found, list)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    elif wanted is None:
        assert found is None
    else:
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def check(text, *given, wanted=None):
    """Runs on each of `given` in turn, twice: outputs are as ONNX's evaluator has them, or `wanted`."""
    module = compiled(text)
    for inputs in [*given, *given]:
        expected = wanted or ReferenceEvaluator(onnx.parser.parse_model(HEADER + text)).run(None, inputs)
        for found, want in zip(module.run(inputs).values(), expected, strict=True):
            same(found, want if isinstance(want, list) or want is None else np.asarray(want))


def at(*places):
    return [{"s": [A, B, C, V.reshape(1, 2)], "i": np.int64(place)} for place in places]


# ---------------------------------------------------------------------- in and out


def test_a_sequence_is_handed_through():
    check("g (seq(float[N, 2]) s) => (seq(float[N, 2]) t) { t = Identity (s) }", {"s": [A, B, C]}, {"s": []})


def test_what_comes_out_is_the_callers():
    module = compiled("g (seq(float[N, 2]) s) => (seq(float[N, 2]) t) { t = Identity (s) }")
    given = A.copy()
    (first,) = module.run({"s": [given]})["t"]
    module.run({"s": [B]})
    given[:] = 0
    np.testing.assert_array_equal(first, A)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (A, "expected a list of float32 arrays"),
        (None, "is None"),
        ([A, A.astype(np.float64)], "element 1 of input 's' is float64"),
        ([A, "text"], "element 1"),
    ],
)
def test_what_is_no_such_sequence_is_refused(given, message):
    module = compiled("g (seq(float[N, 2]) s) => (int64 n) { n = SequenceLength (s) }")
    with pytest.raises(InputError, match=message):
        module.run({"s": given})
    with pytest.raises(InputError, match="is missing"):
        module.run({})


# ---------------------------------------------------------------------- elements


AT = "g (seq(float[N, 2]) s, int64 i) => (float[M, 2] y) { e = SequenceAt (s, i) y = Exp (e) }"


def test_elements_have_shapes_of_their_own():
    check(AT, *at(0, 1, 2, 3, -1, -4))


@pytest.mark.parametrize("place", [4, -5])
def test_a_position_outside(place):
    module = compiled(AT)
    with pytest.raises(ExecutionError, match=f"e: position {place} is outside a sequence of 4"):
        module.run(*at(place))
    same(module.run(*at(1))["y"], np.exp(B))


def test_an_element_of_another_shape_than_declared():
    module = compiled(AT)
    with pytest.raises(InputError, match="element 0 is of rank 1, expected 2"):
        module.run({"s": [V], "i": np.int64(0)})
    with pytest.raises(InputError, match="axis 1 of element 1 has size 3, expected 2"):
        module.run({"s": [A, np.zeros((2, 3), np.float32)], "i": np.int64(1)})


def test_two_elements_at_once():
    text = """g (seq(float[N, 2]) s, int64 i, int64 j) => (float[K, 2] y) {
        a = SequenceAt (s, i) b = SequenceAt (s, j) y = Concat <axis = 0> (a, b, a)
    }"""
    check(text, *({"s": [A, B, C], "i": np.int64(i), "j": np.int64(j)} for i in range(3) for j in range(3)))


EDITED = """g (seq(float[N, 2]) s, float[K, 2] x, int64 i, int64 j)
        => (seq(float[M, 2]) t, seq(float[M, 2]) u, int64 n) {
    t = SequenceInsert (s, x, i)
    u = SequenceErase (t, j)
    n = SequenceLength (u)
}"""


def edit(insert, erase):
    return {"s": [A, B], "x": V.reshape(1, 2), "i": np.int64(insert), "j": np.int64(erase)}


@pytest.mark.parametrize("insert", [0, 2, -1, -2])
def test_inserted_and_erased(insert):
    """A sequence that another is made from stays as it was."""
    whole = [A, B]
    whole.insert(insert, V.reshape(1, 2))
    for erase in (0, 2, -3):
        rest = list(whole)
        del rest[erase]
        check(EDITED, edit(insert, erase), wanted=[whole, rest, np.int64(2)])


@pytest.mark.parametrize(("insert", "erase", "name"), [(3, 0, "t"), (-3, 0, "t"), (0, 3, "u"), (0, -4, "u")])
def test_edits_outside(insert, erase, name):
    with pytest.raises(ExecutionError, match=f"{name}: position .* is outside a sequence"):
        compiled(EDITED).run(edit(insert, erase))


def test_ends_without_a_position():
    text = """g (seq(float[N, 2]) s, float[K, 2] x) => (seq(float[M, 2]) t, seq(float[M, 2]) u) {
        t = SequenceInsert (s, x) u = SequenceErase (s)
    }"""
    check(text, {"s": [A, B], "x": C})


def test_constructed_and_joined():
    text = """g (float[N, 2] x, float[M, 2] y) => (float[K, 2] z, seq(float[L, 2]) s) {
        s = SequenceConstruct (x, y, x) z = ConcatFromSequence <axis = 0> (s)
    }"""
    check(text, {"x": A, "y": B}, {"x": C, "y": A})


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_joined_along_a_new_axis(axis):
    text = (
        f"g (seq(float[3, 2]) s) => (float[I, J, K] y) {{ y = ConcatFromSequence <axis = {axis}, new_axis = 1> (s) }}"
    )
    check(text, {"s": [B, -B]}, {"s": [B, 2 * B, B]}, {"s": [B]})


def test_joined_along_the_last_axis():
    text = "g (seq(float[3, N]) s) => (float[3, M] y) { y = ConcatFromSequence <axis = 1> (s) }"
    check(text, {"s": [B, B[:, :1], -B]}, {"s": [B]})


@pytest.mark.parametrize(("given", "message"), [([], "nothing in the sequence"), ([B, A.T], "element 1 does not have")])
def test_what_cannot_be_joined(given, message):
    module = compiled("g (seq(float[N, M]) s) => (float[K, M] y) { y = ConcatFromSequence <axis = 0> (s) }")
    with pytest.raises((ExecutionError, InputError), match=message):
        module.run({"s": given})


WHOLE = np.arange(42, dtype=np.float32).reshape(2, 7, 3)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keeps", [0, 1])
def test_split_into_slices(axis, keeps):
    text = f"g (float[2, N, 3] x) => (seq(float[]) s) {{ s = SplitToSequence <axis = {axis}, keepdims = {keeps}> (x) }}"
    pieces = np.split(WHOLE, WHOLE.shape[axis], axis)
    check(text, {"x": WHOLE}, wanted=[pieces if keeps else [piece.squeeze(axis) for piece in pieces]])


@pytest.mark.parametrize("kind", ["int64", "int32"])
def test_split_into_parts(kind):
    text = f"""g (float[2, 7, 3] x, {kind}[3] parts, {kind} size) => (seq(float[2, N, 3]) s, seq(float[2, M, 3]) t) {{
        s = SplitToSequence <axis = 1> (x, parts) t = SplitToSequence <axis = 1> (x, size)
    }}"""
    inputs = {"x": WHOLE, "parts": np.asarray([2, 0, 5], kind), "size": np.asarray(3, kind)}
    even = [WHOLE[:, :3], WHOLE[:, 3:6], WHOLE[:, 6:]]
    check(text, inputs, wanted=[[WHOLE[:, :2], WHOLE[:, :0], WHOLE[:, 2:]], even])
    module = compiled(text)
    for changed in ({"parts": np.asarray([2, 0, 6], kind)}, {"parts": np.asarray([-2, 2, 7], kind)}):
        with pytest.raises(ExecutionError, match="an axis of 7 has no part"):
            module.run(inputs | changed)
    with pytest.raises(ExecutionError, match="the parts make 6 of an axis of 7"):
        module.run(inputs | {"parts": np.asarray([1, 2, 3], kind)})
    with pytest.raises(ExecutionError, match="has no part of 0"):
        module.run(inputs | {"size": np.asarray(0, kind)})


# ---------------------------------------------------------------------- sequences and control flow


def test_a_loop_fills_a_sequence():
    text = """g (int64 n, float[N, 2] x) => (seq(float[M, 2]) s, float[K, 2] all) {
        go = Constant <value = bool {1}> ()
        none = SequenceEmpty ()
        s, last = Loop (n, go, none, x) <body = b (int64 i, bool on, seq(float[A, 2]) t, float[L, 2] state)
                => (bool again, seq(float[B, 2]) u, float[P, 2] next) {
            again = Identity (on)
            next = Concat <axis = 0> (state, x)
            u = SequenceInsert (t, state)
        }>
        all = ConcatFromSequence <axis = 0> (s)
    }"""
    parts = [A, np.concatenate([A, A]), np.concatenate([A, A, A])]
    check(text, {"n": np.int64(3), "x": A}, wanted=[parts, np.concatenate(parts)])


def test_a_loop_that_carries_sequences_that_change_places():
    text = """g (int64 n, seq(float[N]) x, seq(float[N]) y) => (seq(float[N]) a, seq(float[N]) b) {
        go = Constant <value = bool {1}> ()
        a, b = Loop (n, go, x, y) <body = b (int64 i, bool on, seq(float[N]) p, seq(float[N]) q)
                => (bool again, seq(float[N]) r, seq(float[N]) s) {
            again = Identity (on) r = Identity (q) s = Identity (p)
        }>
    }"""
    x, y = [V], [V, -V]
    check(text, {"n": np.int64(3), "x": x, "y": y}, wanted=[y, x])
    check(text, {"n": np.int64(0), "x": x, "y": y}, wanted=[x, y])


def test_branches_give_sequences():
    text = """g (bool c, float[2] x, seq(float[N]) s) => (seq(float[M]) t) {
        t = If (c) <then_branch = a () => (seq(float[2]) p) { p = SequenceConstruct (x, x) },
                    else_branch = b () => (seq(float[N]) q) { q = Identity (s) }>
    }"""
    check(text, *({"c": np.bool_(c), "x": V, "s": [A[0], A[0][:1]]} for c in (True, False)))


def test_a_map_over_a_sequence():
    text = """g (seq(float[N, 2]) s, float[2] x) => (seq(float[M, 2]) t) {
        t = SequenceMap (s, x) <body = b (float[N, 2] e, float[2] k) => (float[M, 2] r) {
            d = Add (e, k)
            r = Concat <axis = 0> (d, e)
        }>
    }"""
    wanted = [np.concatenate([e + V, e]) for e in (A, B, C)]
    check(text, {"s": [A, B, C], "x": V}, wanted=[wanted])
    check(text, {"s": [], "x": V}, wanted=[[]])


# ---------------------------------------------------------------------- optional values


OPTIONAL = """g (optional(float[N]) o, float[2] x) => (bool there, float[M] y) {
    there = OptionalHasElement (o)
    y = If (there) <then_branch = a () => (float[N] p) { e = OptionalGetElement (o) p = Neg (e) },
                    else_branch = b () => (float[2] q) { q = Identity (x) }>
}"""


def test_an_optional_tensor():
    check(OPTIONAL, {"o": A[0], "x": V}, wanted=[np.bool_(True), -A[0]])
    check(OPTIONAL, {"o": None, "x": V}, wanted=[np.bool_(False), V])
    with pytest.raises(InputError, match="expected elements of float32"):
        compiled(OPTIONAL).run({"o": A[0].astype(np.int32), "x": V})


def test_getting_what_is_absent():
    for kind in ("float[N]", "seq(float[N])"):
        module = compiled(f"g (optional({kind}) o) => ({kind} y) {{ y = OptionalGetElement (o) }}")
        with pytest.raises(ExecutionError, match="y: the optional value is absent"):
            module.run({"o": None})


def test_optional_outputs():
    text = """g (bool c, seq(float[2]) s) => (optional(seq(float[2])) o) {
        o = If (c) <then_branch = a () => (optional(seq(float[2])) p) { p = Optional (s) },
                    else_branch = b () => (optional(seq(float[2])) q) { q = Optional <type = seq(float[2])> () }>
    }"""
    check(text, {"c": np.bool_(True), "s": [V]}, wanted=[[V]])
    check(text, {"c": np.bool_(True), "s": []}, wanted=[[]])
    module = compiled(text)
    assert module.run({"c": np.bool_(False), "s": [V]})["o"] is None


def test_an_optional_of_a_tensor():
    check("g (float[2] x) => (optional(float[2]) o) { y = Exp (x) o = Optional (y) }", {"x": V}, wanted=[np.exp(V)])


def test_exported_and_loaded(tmp_path):
    path = compiled(EDITED).export_library(tmp_path / "model.so")
    loaded = partita.load_module(path)
    assert [element.shape for element in loaded.run(edit(0, 1))["t"]] == [(1, 2), (1, 2), (3, 2)]


def test_a_region_alone():
    """Before any run of the model."""
    module = compiled(EDITED)
    given = {"s": [A, B], "x": V.reshape(1, 2), "i": np.int64(0), "j": np.int64(1)}
    (region,) = module.program.regions
    names = [module.program.values[index].name for index in (*region.inputs, *region.outputs)]
    found = dict(zip(names[4:], module.get_function(region.symbol)(*(given[n] for n in names[:4])), strict=True))
    assert [len(found["t"]), len(found["u"]), found["n"].item()] == [3, 2, 2]
    same(found["u"], [V.reshape(1, 2), B])


def test_a_region_alone_that_learns_sizes():
    module = compiled(AT)
    (region,) = module.program.regions
    places = {module.program.values[index].name for index in region.inputs}
    assert places == {"s", "i"}
    order = [module.program.values[index].name for index in region.inputs]
    given = {"s": [A, B], "i": np.int64(1)}
    (found,) = module.get_function(region.symbol)(*(given[name] for name in order))
    same(found, np.exp(B))
