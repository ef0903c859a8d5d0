"""The matrices of Winograd's minimal filtering F(m, 3), for any points (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016; the Toom-Cook construction transposed).

    y = A^T [ (G g) * (B^T d) ]     d: m + 2 inputs, g: 3 weights, y: m outputs, one axis at a time

The points decide the error: 0, +-2/3, +-3/2 and infinity for F(4, 3) keep it within a few roundings of the direct sum,
where the textbook's 0, +-1, +-2 lose a digit more.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

Matrix = list[list[Fraction]]

POINTS = {
    2: [Fraction(0), Fraction(1), Fraction(-1)],
    4: [Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2)],
}
TAPS = 3


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Coefficients, lowest first, of the product of (x - root)."""
    result = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *result]
        result = [high - root * low for high, low in zip(shifted, [*result, Fraction(0)], strict=True)]
    return result


def output_matrix(tile: int) -> Matrix:
    """A^T, `[tile, tile + 2]`: powers of the points; infinity contributes to the last output alone."""
    points = POINTS[tile]
    last = [Fraction(int(row == tile - 1)) for row in range(tile)]
    return [[point**row for point in points] + [last[row]] for row in range(tile)]


def weight_matrix(tile: int) -> Matrix:
    """G, `[tile + 2, 3]`: the filter at the points, divided by the Lagrange denominators."""
    points = POINTS[tile]
    rows = []
    for place, point in enumerate(points):
        scale = Fraction(1)
        for other in points[:place] + points[place + 1 :]:
            scale *= point - other
        rows.append([point**power / scale for power in range(TAPS)])
    return [*rows, [Fraction(0), Fraction(0), Fraction(1)]]


def input_matrix(tile: int) -> Matrix:
    """B^T, `[tile + 2, tile + 2]`: coefficients of the Lagrange numerators."""
    points = POINTS[tile]
    rows = [[*_product(points[:place] + points[place + 1 :]), Fraction(0)] for place in range(len(points))]
    return [*rows, _product(points)]


def as_array(matrix: Matrix) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return np.array([[float(entry) for entry in row] for row in matrix])
