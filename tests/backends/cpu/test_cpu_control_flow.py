"""If, Loop and Scan in generated C: what branches and steps give, and sizes that change on the way."""

import re

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import partita
from partita.errors import ExecutionError, InputError, ParameterError, ShapeError, UnsupportedOperatorError

QUICK = partita.BuildOptions(optimization="-O0")
CHECKED = partita.BuildOptions(optimization="-O0", flags=("-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"))
HEADER = '<ir_version: 10, opset_import: ["" : 22]>\n'
V = np.asarray([1.0, 2.0], np.float32)
W = np.asarray([3.0, 5.0], np.float32)
ROWS = np.arange(10, dtype=np.float32).reshape(5, 2)


def compiled(text, build=QUICK):
    return partita.compile(onnx.parser.parse_model(HEADER + text), build=build)


def check(text, *given, wanted=None):
    """Runs on each of `given` in turn, twice: outputs are as ONNX's evaluator has them, or `wanted`."""
    module = compiled(text)
    for inputs in [*given, *given]:
        expected = wanted or ReferenceEvaluator(onnx.parser.parse_model(HEADER + text)).run(None, inputs)
        outputs = list(module.run(inputs).values())
        assert [np.shape(array) for array in expected] == [array.shape for array in outputs]
        for want, array in zip(expected, outputs, strict=True):
            np.testing.assert_allclose(array, want, rtol=1e-5, atol=1e-6)


def branching(then, other, results="float[M] y", after="", outputs=None):
    names = ", ".join(part.split()[1] for part in results.split(", "))
    return f"""g (bool c, float[2] x, float[N] z) => ({outputs or results}) {{
        {names} = If (c) <
            then_branch = t () => ({_renamed(results, "p")}) {{ {then} }},
            else_branch = e () => ({_renamed(results, "q")}) {{ {other} }}>
        {after}
    }}"""


def _renamed(results, stem):
    return ", ".join(part.replace(" ", f" {stem}") for part in results.split(", "))


BOTH = [{"c": np.bool_(c), "x": V, "z": ROWS[:, 0]} for c in (True, False)]


def test_a_branch_is_taken():
    check(branching("py = Neg (x)", "qy = Exp (x)"), *BOTH)


def test_branches_of_different_shapes():
    check(branching("py = Neg (x)", "qy = Sqrt (z)"), *BOTH)


def test_what_follows_knows_the_shape_of_the_branch_taken():
    after = "r = Concat <axis = 0> (y, x, y)"
    check(branching("py = Neg (x)", "qy = Sqrt (z)", after=after, outputs="float[K] r"), *BOTH)


@pytest.mark.parametrize(
    "after",
    [
        "r = Mul (y, z) w = Add (z, y)",
        "a = Neg (y) b = Mul (a, z) r = Sum (b, z, b) w = Sub (r, z)",
        "s = Shape (x) b = Exp (y) a = Expand (b, s) r = Concat <axis = 0> (a, x) w = Neg (a)",
        "a = Size (y) b = Cast <to = 1> (a) r = Mul (b, x) w = Add (r, x)",
    ],
)
def test_branches_of_different_ranks(after):
    """What follows them goes into the branches, until ranks agree again."""
    text = branching("py = ReduceSum <keepdims = 0> (x)", "qy = Neg (x)", "float y", after, "float[R] r, float[S] w")
    given = [{**inputs, "z": W} for inputs in BOTH]
    check(re.sub(r"float ([pq]?y)", r"\1", text), *given)


def test_a_result_of_no_one_rank_is_refused():
    text = branching("py = ReduceSum <keepdims = 0> (x)", "qy = Neg (x)", "float y")
    with pytest.raises(UnsupportedOperatorError, match=r"the rank of .* is unknown"):
        compiled(re.sub(r"float ([pq]?y)", r"\1", text))


def test_sizes_need_fit_only_in_the_branch_taken():
    text = branching("py = Add (x, z)", "qy = Neg (x)").replace("float[2] x", "float[L] x")
    module = compiled(text)
    given = {"c": np.bool_(False), "x": V, "z": ROWS[:, 0]}
    np.testing.assert_array_equal(module.run(given)["y"], -V)
    np.testing.assert_array_equal(module.run({**given, "c": np.bool_(True), "z": W})["y"], V + W)
    with pytest.raises(InputError, match=r"sizes L \(2\) and N \(5\) have to be equal"):
        module.run({**given, "c": np.bool_(True)})


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize(
    ("nodes", "wanted"),
    [
        ("{0}y = Neg (x)", -V),
        ("{0}y = Exp (z)", np.exp(ROWS[:, 0])),
        ("w = Neg (z) n = NonZero (w) {0}y = Cast <to = 1> (n)", [[1, 2, 3, 4]]),
        ("n = Size (z) {0}y = Cast <to = 1> (n)", 5),
    ],
    ids=["known sizes", "an input's sizes", "sizes of its own", "none"],
)
def test_a_branch_that_cannot_run_fails_when_it_is_taken(nodes, wanted, taken):
    """Exporters write branches for sizes that a model need not have."""
    wrong = "a = MatMul (x, m) {0}y = Exp (a)"
    then, other = (nodes, wrong) if taken else (wrong, nodes)
    text = branching(then.format("p"), other.format("q"), "float y")
    module = compiled(re.sub(r"float ([pq]?y)", r"\1", text).replace("bool c", "float[3, 2] m, bool c"))
    given = {"x": V, "z": ROWS[:, 0], "m": np.ones((3, 2), np.float32)}
    np.testing.assert_allclose(module.run({**given, "c": np.bool_(taken)})["y"], wanted, rtol=1e-6)
    refused = r"its (then|else)_branch cannot run: .*2 columns on the left meet 3 rows"
    with pytest.raises(InputError, match=refused):
        module.run({**given, "c": np.bool_(not taken)})
    np.testing.assert_allclose(module.run({**given, "c": np.bool_(taken)})["y"], wanted, rtol=1e-6)


def test_branches_that_cannot_run_are_told_when_none_can():
    with pytest.raises(ShapeError, match=r"(?s)MatMul.*MatMul"):
        compiled(branching("py = MatMul (x, t)", "qy = MatMul (t, x)").replace("bool c", "float[3] t, bool c"))


def test_what_exporters_make_of_squeeze():
    """The axis goes where its size is 1: what follows fits the rank of one branch alone, and holds an If itself."""
    after = """k = Constant <value = float[1, 2, 1] {1.0, 2.0}> ()
        s = Relu (y)
        r = If (d) <then_branch = t2 () => (float[A, B, C] pr) { pr = Conv (s, k) },
                    else_branch = e2 () => (float[A, B, C] qr) { n = Neg (s) qr = Conv (n, k) }>"""
    text = branching(
        "axes = Constant <value_ints = [2]> () py = Squeeze (x, axes)", "qy = Identity (x)", "float y", after
    )
    text = re.sub(r"float ([pq]?y)", r"\1", text).replace("float[2] x", "float[1, 2, L] x, bool d")
    module = compiled(text.replace("=> (y)", "=> (float[A, B, C] r)", 1))
    x = ROWS[:4].reshape(1, 2, 4)
    given = {"c": np.bool_(False), "x": x, "z": W}
    np.testing.assert_array_equal(module.run({**given, "d": np.bool_(True)})["r"], x[:, :1] + 2 * x[:, 1:])
    np.testing.assert_array_equal(module.run({**given, "d": np.bool_(False)})["r"], -(x[:, :1] + 2 * x[:, 1:]))
    with pytest.raises(InputError, match=r"its then_branch cannot run: .*must have one rank"):
        module.run({**given, "c": np.bool_(True), "x": x[:, :, :1], "d": np.bool_(True)})


def test_branches_that_hand_through_what_they_capture():
    passing = "py = Identity (x) pw = Identity (py)", "qy = Neg (x) qw = Identity (x)"
    check(branching(*passing, results="float[2] y, float[2] w"), *BOTH)


def test_an_if_in_a_branch():
    text = """g (bool c, bool d, float[2] x, float[N] z) => (float[M] y) {
        y = If (c) <
            then_branch = t () => (float[M] p) {
                p = If (d) <then_branch = tt () => (float[2] pp) { pp = Exp (x) },
                            else_branch = te () => (float[M] pq) { pq = Neg (z) }>
            },
            else_branch = e () => (float[M] q) { q = Concat <axis = 0> (x, z) }>
    }"""
    cases = [{"c": np.bool_(c), "d": np.bool_(d), "x": V, "z": ROWS[:, 0]} for c in (0, 1) for d in (0, 1)]
    check(text, *cases)


LOOP = """g (int64 n, bool go, float[2] x, float[2] z) => (float[2] last, float[T, 2] all) {
    a = Neg (z)
    last, all = Loop (n, go, x) <body = b (int64 i, bool on, float[2] state)
            => (bool again, float[2] next, float[2] out) {
        again = Identity (on)
        next = Add (state, a)
        out = Mul (next, next)
    }>
}"""


def trips(count, go=True):
    return {"n": np.int64(count), "go": np.bool_(go), "x": V, "z": W}


def test_a_loop_runs_as_often_as_data_says():
    check(LOOP, trips(3), trips(1), trips(100))


@pytest.mark.parametrize("inputs", [trips(0), trips(-2), trips(3, go=False)], ids=["0 trips", "-2 trips", "no"])
def test_a_loop_that_never_runs(inputs):
    check(LOOP, inputs, wanted=[V, np.zeros((0, 2), np.float32)])


def test_a_run_forgets_what_the_last_one_stacked():
    module = compiled(LOOP)
    assert [module.run(trips(n))["all"].shape for n in (5, 0, 2)] == [(5, 2), (0, 2), (2, 2)]


def test_a_condition_ends_a_loop_without_limit():
    text = """g (float[2] x, float[2] y) => (float[2] a, float[2] b, int64[T] steps) {
        a, b, steps = Loop (, , x, y) <body = body (int64 i, bool on, float[2] u, float[2] v)
                => (bool again, float[2] nu, float[2] nv, int64 step) {
            ten = Constant <value = float {10}> ()
            most = ReduceMax <keepdims = 0> (v)
            again = Less (most, ten)
            nu = Identity (v)
            nv = Add (u, v)
            step = Identity (i)
        }>
    }"""  # what is carried changes places
    a, b = V, V
    for _ in range(4):
        a, b = b, a + b
    check(text, {"x": V, "y": V}, wanted=[a, b, np.arange(4)])


GROWING = """g (int64 n, float[N] x) => (float[M] last, float[K] twice) {
    go = Constant <value = bool {1}> ()
    last = Loop (n, go, x) <body = b (int64 i, bool on, float[L] state) => (bool again, float[K] next) {
        again = Identity (on)
        next = Concat <axis = 0> (state, x)
    }>
    twice = Add (last, last)
}"""


def test_what_is_carried_may_grow():
    check(GROWING, *({"n": np.int64(n), "x": ROWS[:size, 0]} for n, size in ((3, 2), (0, 5), (20, 1), (2, 0))))


def test_loops_in_loops():
    text = """g (int64 n, int64 m, float[2] x) => (float[2] last, float[T, S, 2] all) {
        last, all = Loop (n, , x) <body = b (int64 i, bool on, float[2] outer)
                => (bool again, float[2] o2, float[S, 2] rows) {
            again = Identity (on)
            o2, rows = Loop (m, , outer) <body = c (int64 j, bool on2, float[2] inner)
                    => (bool again2, float[2] i2, float[2] row) {
                again2 = Identity (on2)
                k = Add (i, j)
                f = Cast <to = 1> (k)
                i2 = Add (inner, f)
                row = Sub (i2, x)
            }>
        }>
    }"""

    def expected(n, m):
        state, rows = V, np.zeros((n, m, 2), np.float32)
        for i in range(n):
            for j in range(m):
                state = state + np.float32(i + j)
                rows[i, j] = state - V
        return [state, rows]

    for n, m in ((3, 2), (2, 5), (1, 1)):
        check(text, {"n": np.int64(n), "m": np.int64(m), "x": V}, wanted=expected(n, m))


def test_two_loops_whose_bodies_use_the_same_names():
    body = "body = b (int64 i, bool on, float[L] s) => (bool again, float[K] t) "
    text = f"""g (int64 n, int64 m, float[N] x, float[2] z) => (float[A] first, float[B] second, float[C] both) {{
        go = Constant <value = bool {{1}}> ()
        first = Loop (n, go, x) <{body} {{ again = Identity (on) t = Concat <axis = 0> (s, x) }}>
        second = Loop (m, go, x) <{body} {{ again = Identity (on) t = Concat <axis = 0> (s, z) }}>
        both = Concat <axis = 0> (first, second)
    }}"""
    check(text, {"n": np.int64(3), "m": np.int64(4), "x": ROWS[:, 0], "z": V})


STACKS_WHAT_GROWS = """g (int64 n, float[N] x) => (float[M] last, float[T, K] all) {
        last, all = Loop (n, , x) <body = b (int64 i, bool on, float[L] state)
                => (bool again, float[K] next, float[K] out) {
            again = Identity (on)
            next = Concat <axis = 0> (state, x)
            out = Neg (next)
        }>
    }"""


def test_what_is_stacked_must_not_change_its_shape():
    module = compiled(STACKS_WHAT_GROWS)
    assert module.run({"n": np.int64(1), "x": V})["all"].shape == (1, 4)
    with pytest.raises((ExecutionError, InputError), match="changes its shape"):
        module.run({"n": np.int64(2), "x": V})


def test_sizes_that_steps_decide_are_compared_with_what_kernels_take_them_for():
    text = """g (int64 n, float[2] x, float[8] y) => (float[8] z) {
        grown = Loop (n, , x) <body = b (int64 i, bool on, float[L] state) => (bool again, float[K] next) {
            again = Identity (on)
            next = Concat <axis = 0> (state, state)
        }>
        z = Add (grown, y)
    }"""
    module = compiled(text)
    y = np.arange(8, dtype=np.float32)
    np.testing.assert_array_equal(module.run({"n": np.int64(2), "x": V, "y": y})["z"], np.tile(V, 4) + y)
    with pytest.raises(InputError, match=r"z: sizes .* \(4\) and 8 have to be equal"):
        module.run({"n": np.int64(1), "x": V, "y": y})


def test_names_in_messages_are_no_formats():
    proto = onnx.parser.parse_model(HEADER + STACKS_WHAT_GROWS)
    proto.graph.node[0].name = "100%n%s"
    with pytest.raises(InputError, match="100%n%s: what is stacked"):
        partita.compile(proto, build=QUICK).run({"n": np.int64(2), "x": V})


def test_weights_in_a_body_are_bound_anew():
    text = """g (int64 n, float[2] x) => (float[2] y) <float[2] w = {1, 2}, float[2] v = {3, 4}> {
        y = Loop (n, , x) <body = b (int64 i, bool on, float[2] s) => (bool again, float[2] t) <float[2] u = {5, 6}> {
            again = Identity (on)
            wv = Mul (w, v)
            wu = Add (wv, u)
            t = Add (s, wu)
        }>
    }"""
    module = compiled(text)
    inputs = {"n": np.int64(3), "x": V}
    np.testing.assert_array_equal(module.run(inputs)["y"], V + 3 * np.float32([8, 14]))
    bound = module.bind({"w": V, "v": np.float32([3, 4]), "u": np.float32([0, 0])})
    np.testing.assert_array_equal(bound.run(inputs)["y"], V + 3 * np.float32([3, 8]))
    assert len(module.params) == 1  # the body computes with what binding left of three


def scan(attributes="", shape="5, 2"):
    return f"""g (float[2] s, float[{shape}] x, float[2] k) => (float[2] last, float[{shape}] all) {{
        last, all = Scan <num_scan_inputs = 1, {attributes} body = b (float[2] state, float[2] v)
                => (float[2] next, float[2] out) {{
            t = Mul (v, k)
            next = Add (state, t)
            out = Identity (next)
        }}> (s, x)
    }}"""


SUMS = V + (ROWS * W).cumsum(0)


@pytest.mark.parametrize("shape", ["5, 2", "T, 2"])
def test_scan(shape):
    check(scan(shape=shape), {"s": V, "x": ROWS, "k": W}, wanted=[SUMS[-1], SUMS])


def test_scan_backward():
    text = scan("scan_input_directions = [1], scan_output_directions = [1],")
    sums = V + (ROWS * W)[::-1].cumsum(0)
    check(text, {"s": V, "x": ROWS, "k": W}, wanted=[sums[-1], sums[::-1]])


def test_scan_over_other_axes():
    text = scan("scan_input_axes = [1], scan_output_axes = [-1],", "2, 5")
    check(text, {"s": V, "x": ROWS.T.copy(), "k": W}, wanted=[SUMS[-1], SUMS.T])


OLD_HEADER = '<ir_version: 3, opset_import: ["" : 8]>\n'
OLD_SCAN = """g (LENGTHS float[3, 2] s, float[3, 5, 2] x) => (float[3, 2] last, float[3, 5, 2] all) {
    last, all = Scan <num_scan_inputs = 1, ATTRIBUTES body = b (float[2] state, float[2] v)
            => (float[2] next, float[2] out) {
        next = Add (state, v)
        wide = Unsqueeze <axes = [0]> (next)
        out = Squeeze <axes = [0]> (wide)
    }> (NAME, s, x)
}"""


@pytest.mark.parametrize("lengths", [[5, 0, 3], [9, -1, 3]], ids=["lengths", "impossible lengths"])
def test_a_scan_over_batches(lengths):
    """Of opset 8, with sequences of different lengths, which are held in what there is."""
    states, x = ROWS[:3], np.stack([ROWS, -ROWS, ROWS * 2])
    sums = states[:, None] + x.cumsum(1)
    lengths = np.asarray(lengths)
    text = OLD_HEADER + OLD_SCAN.replace("ATTRIBUTES", "")
    plain = onnx.parser.parse_model(text.replace("LENGTHS", "").replace("NAME", ""))
    found = partita.compile(plain, build=QUICK).run({"s": states, "x": x})
    np.testing.assert_array_equal(found["last"], sums[:, -1])
    np.testing.assert_array_equal(found["all"], sums)
    short = onnx.parser.parse_model(text.replace("LENGTHS", "int64[3] n,").replace("NAME", "n"))
    found = partita.compile(short, build=QUICK).run({"s": states, "x": x, "n": lengths})
    np.testing.assert_array_equal(found["last"], [sums[0, 4], states[1], sums[2, 2]])
    np.testing.assert_array_equal(found["all"], np.where(np.arange(5)[:, None] < lengths[:, None, None], sums, 0))


def test_a_scan_over_batches_backward():
    """A sequence begins at its own end."""
    text = OLD_SCAN.replace("ATTRIBUTES", "directions = [1],").replace("LENGTHS", "int64[3] n,").replace("NAME", "n")
    states, x, lengths = ROWS[:3], np.stack([ROWS, -ROWS, ROWS * 2]), np.asarray([5, 0, 3])
    module = partita.compile(onnx.parser.parse_model(OLD_HEADER + text), build=QUICK)
    found = module.run({"s": states, "x": x, "n": lengths})
    for n, length in enumerate(lengths):
        sums = states[n] + np.cumsum(x[n, :length][::-1], axis=0)
        np.testing.assert_array_equal(found["all"][n], [*sums, *np.zeros((5 - length, 2))])
        np.testing.assert_array_equal(found["last"][n], [states[n], *sums][-1])


def test_captured_weights_decide_shapes_when_compiling():
    """And are fixed by that: an axis that a body captures is as good as one beside it."""
    text = """g (int64 n, float[2, 3] x) => (float[2, 3] y) <int64[1] axis = {1}, int64[2] shape = {3, 2}> {
        y = Loop (n, , x) <body = b (int64 i, bool on, float[2, 3] s) => (bool again, float[2, 3] t) {
            again = Identity (on)
            mean = ReduceMean (s, axis)
            turned = Reshape (x, shape)
            back = Transpose <perm = [1, 0]> (turned)
            t = Add (back, mean)
        }>
    }"""
    module = compiled(text)
    x = ROWS.reshape(-1)[:6].reshape(2, 3)
    turned = x.reshape(3, 2).T
    expected = turned + (turned + x.mean(1, keepdims=True)).mean(1, keepdims=True)
    np.testing.assert_allclose(module.run({"n": np.int64(2), "x": x})["y"], expected, rtol=1e-6)
    assert not any(symbol.data_dependent for symbol in module.program.symbols)
    with pytest.raises(ParameterError, match="axis"):
        module.bind({"axis": np.asarray([0]), "shape": np.asarray([3, 2])})


def test_random_numbers_of_outside_stay_the_same_in_every_step():
    text = """g (int64 n) => (float[4] last, float[T, 4] all) {
        zeros = Constant <value = float[4] {0, 0, 0, 0}> ()
        drawn = RandomUniform <shape = [4]> ()
        last, all = Loop (n, , zeros) <body = b (int64 i, bool on, float[4] state)
                => (bool again, float[4] t, float[4] u) {
            again = Identity (on)
            t = Identity (state)
            u = Add (drawn, state)
        }>
    }"""
    drawn = compiled(text).run({"n": np.int64(3)})["all"]
    assert drawn.shape == (3, 4)
    assert len(np.unique(drawn, axis=0)) == 1


def test_matrix_products_in_a_loop():
    weight = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32) / 8
    text = """g (int64 n, float[8, 16] x, float[16, 16] w) => (float[8, 16] y) {
        go = Constant <value = bool {1}> ()
        y = Loop (n, go, x) <body = b (int64 i, bool on, float[8, 16] s) => (bool again, float[8, 16] t) {
            again = Identity (on)
            p = MatMul (s, w)
            t = Tanh (p)
        }>
    }"""
    start = np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)
    check(text, {"n": np.int64(4), "x": start, "w": weight})


def test_control_flow_does_nothing_undefined():
    """A sanitizer that traps: no test after this one would run."""
    module = compiled(GROWING, CHECKED)
    assert module.run({"n": np.int64(9), "x": V})["twice"].shape == (20,)
