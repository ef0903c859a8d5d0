"""Strassen's product in Winograd's form: seven products of quarters instead of eight (S. Winograd, "On multiplication
of 2 x 2 matrices", 1971), once, for products of which the right matrix is known when weights are bound.

    S1 = A21 + A22   S2 = S1 - A11    S3 = A11 - A21   S4 = A12 - S2
    T1 = B12 - B11   T2 = B22 - T1    T3 = B22 - B12   T4 = T2 - B21

Its error is some times that of the plain sum, so it takes an option: `fast_math=("strassen",)`.
"""

from __future__ import annotations

from dataclasses import dataclass

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Value

LEAST_DEPTH = 128  # of half the sum: below, what is saved does not pay for the sums of quarters
LEAST_ROWS = 16  # of half the matrix


@dataclass(frozen=True, slots=True)
class Quarter:
    """Where the left factor of a product lies: a quarter of the matrix itself, or one of the four sums."""

    row: int = 0
    column: int = 0
    sum: int = -1


# The left factors of the seven products; the right ones are what `weights` gives.
LEFT = (Quarter(0, 0), Quarter(0, 1), Quarter(sum=3), Quarter(1, 1), Quarter(sum=0), Quarter(sum=1), Quarter(sum=2))

# In C: the sums S1 to S4 of an element's four quarters, and the quarters of the result from the products p0 to p6.
SUMS = ("a21 + a22", "a21 + a22 - a11", "a11 - a21", "a12 - (a21 + a22 - a11)")
RESULTS = ("p0 + p1", "p0 + p5 + p4 + p2", "p0 + p5 + p6 - p3", "p0 + p5 + p6 + p4")


def is_worth_it(a: Value, b: Value, width: int) -> bool:
    """Whether `a [..., M, K]` by `b [K, N]` is large enough, and its sizes are even; columns come `width` at a time."""
    depth, columns = (int(dim) for dim in b.shape)
    rows = dims.product(a.shape[:-1])
    is_even = dims.is_static(rows) and rows % 2 == depth % 2 == columns % (2 * width) == 0
    return is_even and int(rows) >= 2 * LEAST_ROWS and depth >= 2 * LEAST_DEPTH


def weights(build: Builder, b: Value) -> list[Value]:
    """The right factors `[K / 2, N / 2]` of the seven products: B11, B21, B22, T4, T1, T2, T3."""
    depth, columns = (int(dim) // 2 for dim in b.shape)

    def quarter(row: int, column: int) -> Value:
        starts, ends = [row * depth, column * columns], [(row + 1) * depth, (column + 1) * columns]
        return build("Slice", b, build.ints(starts), build.ints(ends))

    b11, b12, b21, b22 = quarter(0, 0), quarter(0, 1), quarter(1, 0), quarter(1, 1)
    t1 = build("Sub", b12, b11)
    t2 = build("Sub", b22, t1)
    return [b11, b21, b22, build("Sub", t2, b21), t1, t2, build("Sub", b22, b12)]
