"""Dimensions: integers where they are known, expressions where not."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partita.ir import dims

N, M = dims.symbol("N"), dims.symbol("M")


def test_static_dimensions_do_not_load_sympy():
    code = (
        "import sys; from partita.ir import dims\n"
        "dims.product([2, 3]); dims.floor_div(7, 2); dims.maximum(1, 2); dims.broadcast_shapes((1, 3), (2, 1))\n"
        "sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_equality_is_for_every_value():
    assert dims.same(N + N, 2 * N)
    assert dims.same((N + 1) * (N - 1), N * N - 1)
    assert not dims.same(N, M)
    assert not dims.same(N, 2)
    assert dims.same_shape((N, 3), (N, 3))
    assert not dims.same_shape((N, 3), (N,))


def test_division():
    assert dims.floor_div(12 * N, 4) == 3 * N
    assert dims.floor_div(N * M, N) == M
    assert dims.evaluate(dims.floor_div(N, 2), {"N": 7}) == 3
    assert dims.evaluate(dims.ceil_div(N, 2), {"N": 7}) == 4
    assert dims.floor_div(7, 2) == 3


def test_substitution():
    assert dims.substitute(2 * N + M, {"N": 3}) == 6 + M
    assert dims.substitute(2 * N, {"N": 3}) == 6
    with pytest.raises(KeyError):
        dims.evaluate(N + M, {"N": 1})


def test_broadcasting():
    assert dims.broadcast_shapes((N, 1), (3,)) == (N, 3)
    assert dims.broadcast_shapes((N, 4), (N, 1)) == (N, 4)
    assert dims.broadcast_shapes((N,), (5,)) == (5,)  # at run time N must be 5
    with pytest.raises(ValueError, match="axis 1"):
        dims.broadcast_shapes((2, 3), (2, 4))


@pytest.mark.parametrize(
    "dim",
    [
        0,
        -3,
        N,
        2 * N + 1,
        N * M - 4,
        dims.floor_div(N, 2),
        dims.floor_div(N + 3, M + 1),
        dims.maximum(N, 2),
        dims.minimum(N, M) + 1,
        N % 3,
        N**2,
        dims.symbol("a b"),
        dims.symbol("a.b") + dims.symbol("a_b"),
        dims.symbol("x'); abort()"),
        dims.symbol("_x_41"),
        dims.symbol("I") * 2 + dims.symbol("S"),
        dims.symbol("größe"),
    ],
    ids=str,
)
def test_text_and_back(dim):
    assert dims.same(dims.parse(dims.text(dim)), dim)


@pytest.mark.parametrize("text", ["", "N +", "f(N)", "__import__('os')", "N.x", "[1]", "'a'", "1.5", "lambda: 1"])
def test_other_texts_are_refused_and_not_run(text):
    with pytest.raises(ValueError, match="not a dimension"):
        dims.parse(text)


EXPRESSIONS = st.recursive(
    st.sampled_from([N, M]) | st.integers(0, 9),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(dims.maximum, inner, inner),
        st.builds(dims.minimum, inner, inner),
        st.builds(lambda a, b: dims.floor_div(a, b), inner, st.integers(1, 5)),
    ),
    max_leaves=6,
)


@given(EXPRESSIONS, st.integers(0, 20), st.integers(0, 20))
def test_simplification_and_text_keep_the_value(dim, n, m):
    values = {"N": n, "M": m}
    assert dims.evaluate(dims.simplified(dim), values) == dims.evaluate(dim, values)
    assert dims.evaluate(dims.parse(dims.text(dim)), values) == dims.evaluate(dim, values)
