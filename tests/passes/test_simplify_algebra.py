"""Each rule where it applies, and where it must not: numbers are the same to the last bit, NaN and -0 included."""

import pytest
from pass_harness import check, check_example, graph_of, signature

from partita.passes.dead_code import dead_code
from partita.passes.simplify_algebra import simplify_algebra

X = "float[4, 8] x"
SAME = "model (float[4, 8] x) => (float[4, 8] y) { y = Exp (x) }"


def constant(name, kind, content):
    return f"{name} = Constant <value = {kind} {{{content}}}> ()"


# before Exp, so that the output has a producer: what x becomes and comes back from
GONE = {
    "Identity": "a = Identity (x)",
    "Cast to the same type": "a = Cast <to = 1> (x)",
    "Reshape to the same shape": f"{constant('s', 'int64[2]', '4, 8')} a = Reshape (x, s)",
    "Reshape and back": f"{constant('s', 'int64[1]', '32')} {constant('t', 'int64[2]', '4, -1')} "
    "b = Reshape (x, s) a = Reshape (b, t)",
    "Flatten of a matrix": "a = Flatten (x)",
    "Unsqueeze and Squeeze": f"{constant('s', 'int64[1]', '1')} b = Unsqueeze (x, s) a = Squeeze (b, s)",
    "Expand to the same shape": f"{constant('s', 'int64[2]', '1, 8')} a = Expand (x, s)",
    "Tile by one": f"{constant('s', 'int64[2]', '1, 1')} a = Tile (x, s)",
    "Transpose that keeps the order": "a = Transpose <perm = [0, 1]> (x)",
    "Transpose twice": "b = Transpose (x) a = Transpose (b)",
    "Slice of everything": f"{constant('s', 'int64[1]', '0')} {constant('e', 'int64[1]', '99')} a = Slice (x, s, e)",
    "Pad by nothing": f"{constant('s', 'int64[4]', '0, 0, 0, 0')} a = Pad (x, s)",
    "Clip without bounds": "a = Clip (x)",
    "Concat of one": "a = Concat <axis = 0> (x)",
    "Sum of one": "a = Sum (x)",
    "Max of one": "a = Max (x)",
    "Mean of one": "a = Mean (x)",
    "Split into one": "a = Split <axis = 0, num_outputs = 1> (x)",
    "Dropout": "a = Dropout (x)",
    "Dropout with unused mask": "a, m = Dropout (x)",
    "Reduce over no axis": "a = ReduceSum <noop_with_empty_axes = 1> (x)",
    "minus 0": f"{constant('z', 'float', '0')} a = Sub (x, z)",
    "plus -0": f"{constant('z', 'float', '-0.0')} a = Add (z, x)",
    "times 1": f"{constant('z', 'float[8]', '1, 1, 1, 1, 1, 1, 1, 1')} a = Mul (z, x)",
    "divided by 1": f"{constant('z', 'float', '1')} a = Div (x, z)",
    "to the power 1": f"{constant('z', 'float', '1')} a = Pow (x, z)",
    "Neg twice": "b = Neg (x) a = Neg (b)",
    "float64 and back": "b = Cast <to = 11> (x) a = Cast <to = 1> (b)",
    "Where the same": "c = IsNaN (x) a = Where (c, x, x)",
    "CastLike of the same type": "b = Neg (x) a = CastLike (x, b)",
}


@pytest.mark.parametrize("name", GONE)
def test_what_does_nothing_goes(name):
    check_example(simplify_algebra, f"model ({X}) => (float[4, 8] y) {{ {GONE[name]} y = Exp (a) }}", SAME)


KEPT = {
    "x + 0 turns -0 into 0": f"{constant('z', 'float', '0')} y = Add (x, z)",
    "x - -0 turns -0 into 0": f"{constant('z', 'float', '-0.0')} y = Sub (x, z)",
    "x * 0 is NaN for infinities": f"{constant('z', 'float', '0')} y = Mul (x, z)",
    "0 - x is not x": f"{constant('z', 'float', '0')} y = Sub (z, x)",
    "1 / x is not x": f"{constant('z', 'float', '1')} y = Div (z, x)",
    "x - x is NaN for NaN": "y = Sub (x, x)",
    "x / x": "y = Div (x, x)",
    "half precision loses digits": "b = Cast <to = 10> (x) y = Cast <to = 1> (b)",
    "integers lose digits": "b = Cast <to = 7> (x) y = Cast <to = 1> (b)",
    "a transposition": "y = Transpose <perm = [1, 0]> (x)",
    "a slice": f"{constant('s', 'int64[1]', '1')} {constant('e', 'int64[1]', '99')} y = Slice (x, s, e)",
    "a reversal": f"{constant('s', 'int64[1]', '-1')} {constant('e', 'int64[1]', '-99')} "
    f"{constant('a', 'int64[1]', '0')} y = Slice (x, s, e, a, s)",
    "a broadcast": f"{constant('z', 'float[2, 1, 1]', '1, 1')} y = Mul (x, z)",
    "bounds": f"{constant('z', 'float', '0')} y = Clip (x, z)",
    "Round of Floor": "b = Floor (x) y = Round (b)",
}


@pytest.mark.parametrize("name", KEPT)
def test_what_does_something_stays(name):
    graph = graph_of(
        f"model ({X}) => (float y) {{ {KEPT[name]} }}".replace(
            "float y", "float[A, B] y" if "broadcast" not in name else "float[A, B, C] y"
        )
    )
    check(simplify_algebra, graph, changes=False)


def test_weights_are_not_looked_at():
    weights = "<float[4] w = {1, 1, 1, 1}, float z = {0}>"
    text = f"model (float[4] x) => (float[4] y) {weights} {{ a = Mul (x, w) y = Sub (a, z) }}"
    graph = check(simplify_algebra, graph_of(text), changes=False)
    assert not any(parameter.baked for parameter in graph.parameters.values())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "model (int64[4] x) => (int64[4] y) { "
            "z = Constant <value = int64 {0}> () o = Constant <value = int64 {1}> () "
            "a = Add (z, x) b = Mul (a, o) c = Div (b, o) d = BitwiseOr (c, z) y = Neg (d) }",
            "model (int64[4] x) => (int64[4] y) { y = Neg (x) }",
        ),
        (
            "model (bool[4] x) => (bool[4] y) { t = Constant <value = bool {1}> () f = Constant <value = bool {0}> () "
            "a = And (x, t) b = Or (f, a) c = Xor (b, f) d = Not (c) e = Not (d) g = Not (e) y = Identity (g) }",
            "model (bool[4] x) => (bool[4] y) { y = Not (x) }",
        ),
        (
            "model (float[2, 3, 4] x) => (float[4, 2, 3] y) { a = Transpose <perm = [1, 0, 2]> (x) "
            "y = Transpose <perm = [2, 1, 0]> (a) }",
            "model (float[2, 3, 4] x) => (float[4, 2, 3] y) { y = Transpose <perm = [2, 0, 1]> (x) }",
        ),
        (
            "model (float[1, 3, 1, 4] x) => (float[3, 1, 1, 4] y) { y = Transpose <perm = [1, 0, 2, 3]> (x) }",
            "model (float[1, 3, 1, 4] x) => (float[3, 1, 1, 4] y) <int64[4] s = {3, 1, 1, 4}> { y = Reshape (x, s) }",
        ),
        (
            "model (float[0, 1, 4] x) => (float[1, 0, 4] y) { y = Transpose <perm = [1, 0, 2]> (x) }",
            "model (float[0, 1, 4] x) => (float[1, 0, 4] y) <int64[3] s = {1, 0, 4}> "
            "{ y = Reshape <allowzero = 1> (x, s) }",
        ),
        (
            "model (float[N, 6] x) => (float[N, 2, 3] y) <int64[1] s = {-1}, int64[3] t = {-1, 2, 3}> "
            "{ a = Reshape (x, s) y = Reshape (a, t) }",
            "model (float[N, 6] x) => (float[N, 2, 3] y) <int64[3] t = {-1, 2, 3}> { y = Reshape (x, t) }",
        ),
        (
            "model (float[2, 3] x, float[0, 3] z) => (float[4, 3] y) { y = Concat <axis = 0> (x, z, x) }",
            "model (float[2, 3] x, float[0, 3] z) => (float[4, 3] y) { y = Concat <axis = 0> (x, x) }",
        ),
        (
            "model (float[3] x, int64[3] z) => (int64[3] y) { y = CastLike (x, z) }",
            "model (float[3] x, int64[3] z) => (int64[3] y) { y = Cast <to = 7> (x) }",
        ),
        (
            "model (int32[3] x) => (float16[3] y) { a = Cast <to = 7> (x) y = Cast <to = 10> (a) }",
            "model (int32[3] x) => (float16[3] y) { y = Cast <to = 10> (x) }",
        ),
        (
            "model (float[3, 1] x, float[3, 4] z) => (float[3, 4] y) <int64[2] s = {3, 4}> "
            "{ a = Expand (x, s) y = Add (a, z) }",
            "model (float[3, 1] x, float[3, 4] z) => (float[3, 4] y) { y = Add (x, z) }",
        ),
        (
            "model (float[4] x, float[4] z) => (float[4] y) { t = Constant <value = bool[4] {0, 0, 0, 0}> () "
            "a = Where (t, x, z) y = Exp (a) }",
            "model (float[4] x, float[4] z) => (float[4] y) { y = Exp (z) }",
        ),
        (
            "model (float[4] x) => (float[4] y) { a = Abs (x) b = Abs (a) c = Relu (b) d = Relu (c) y = Neg (d) }",
            "model (float[4] x) => (float[4] y) { a = Abs (x) b = Relu (a) y = Neg (b) }",
        ),
    ],
)
def test_rewrites(before, after):
    check_example(simplify_algebra, before, after)


def test_a_zero_in_a_target_keeps_the_view_in_between():
    """0 means the dimension of the view, not of what it views."""
    text = (
        "model (float[N, 6] x) => (float[A, B] y) <int64[2] s = {-1, 2}, int64[2] t = {0, 2}> "
        "{ a = Reshape (x, s) b = Neg (a) c = Reshape (b, s) y = Reshape (c, t) }"
    )
    check(simplify_algebra, graph_of(text))


def test_an_expand_that_is_needed():
    heading = "model (float[3, 1] x, float[1] z) => (float[3, 4] y) <int64[2] s = {3, 4}>"
    text = heading + "{ a = Expand (x, s) y = Add (a, z) }"
    check(simplify_algebra, graph_of(text), changes=False)


@pytest.mark.parametrize(
    "text",
    [
        "model (float[2] x) => (float[2] y) { y = Identity (x) }",
        "model (float[2] x) => (float[2] y, float[2] z) { y = Neg (x) z = Identity (y) }",
        "model (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { a = Neg (x) y = Identity (w) }",
    ],
)
def test_outputs_keep_their_names(text):
    """An output that is an input, a weight or another output goes through an Identity."""
    check(simplify_algebra, graph_of(text), changes=False)


def test_a_no_op_between_an_input_and_an_output_becomes_an_identity():
    before = "model (float[2, 3] x) => (float[2, 3] y) { y = Transpose <perm = [0, 1]> (x) }"
    check_example(simplify_algebra, before, "model (float[2, 3] x) => (float[2, 3] y) { y = Identity (x) }")


def test_inside_subgraphs():
    text = """model (bool c, float[2] x) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) { a = Neg (x) b = Neg (a) p = Exp (b) },
                    else_branch = e () => (float[2] q) { q = Neg (x) }>
    }"""
    graph = check(simplify_algebra, graph_of(text))
    dead_code(graph)
    assert [node.op_type for node in graph.nodes[0].attributes["then_branch"].nodes] == ["Exp"]


def test_masks_that_are_read_stay():
    graph = check(
        simplify_algebra,
        graph_of("model (float[2] x) => (float[2] y, bool[2] m) { y, m = Dropout (x) }"),
        changes=False,
    )
    assert signature(graph)
