"""Sums of products: MatMul, Gemm and convolutions. The expressions say what is computed; kernels say how fast."""

from __future__ import annotations

import functools
import operator
import string
from collections.abc import Callable, Sequence

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call
from partita.ir.formula import (
    aligned,
    broadcast_load,
    cast,
    indices_over,
    load,
    over,
    reduce,
    select,
    size,
    tensor,
    wide,
)
from partita.ir.graph import Node, Value
from partita.ir.procedure import Procedure, current, each, fill, once, procedure, store, temporary
from partita.ir.registry import computes, infers, performs
from partita.ir.types import DType, TensorType, Type
from partita.ir.window import window

Element = Callable[..., Expr]  # the element at indices


@computes("MatMul")
def matmul(node: Node, a: Value, b: Value) -> Computation:
    return matmul_of(node, a.shape, b.shape, lambda *i: load(a, *i), lambda *i: load(b, *i))


def matmul_of(node: Node, a: Sequence[Dim], b: Sequence[Dim], left: Element, right: Element) -> Computation:
    """`[..., M, K] @ [..., K, N]` with NumPy's rules for rank 1 and for the leading dimensions, of elements that `left`
    and `right` give."""
    depth, other = a[-1], b[-2:][0]
    if not dims.may_equal(depth, other):
        raise ShapeError(f"{node.describe()}: {depth} columns on the left meet {other} rows on the right")
    batch = dims.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2]))
    lead, row, column = indices_over(batch), indices_over(a[-2:-1], "row"), indices_over(b[1:][-1:], "column")
    k = over("k", depth)
    first, second = left(*aligned(lead, a[:-2]), *row, k), right(*aligned(lead, b[:-2]), k, *column)
    total = reduce("sum", [k], wide(first) * wide(second))
    return tensor([*lead, *row, *column], cast(total, first.dtype))


@computes("Gemm")
def gemm(node: Node, a: Value, b: Value, c: Value | None, *, alpha: float = 1.0, beta: float = 1.0) -> Computation:
    """`alpha * A' @ B' + beta * C` on matrices `[M, K]`, `[K, N]`; C broadcasts to `[M, N]`."""
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ShapeError(f"{node.describe()}: Gemm takes matrices")
    turn_a, turn_b = (-1 if node.attributes.get(name, 0) else 1 for name in ("transA", "transB"))
    product = matmul_of(
        node, a.shape[::turn_a], b.shape[::turn_b], lambda *i: load(a, *i[::turn_a]), lambda *i: load(b, *i[::turn_b])
    )
    total = product.body * alpha if alpha != 1.0 else product.body
    if c is not None:
        addend = broadcast_load(c, product.indices)
        total = total + (addend * beta if beta != 1.0 else addend)
    return Computation(product.axes, total)


@computes("Conv")
def convolution(node: Node, x: Value, w: Value, bias: Value | None) -> Computation:
    """`[N, C, *spatial]` with weights `[O, C / group, *kernel]` and an optional bias `[O]`."""
    return convolution_of(node, x, w, bias, lambda *i: load(x, *i), lambda *i: load(w, *i))


def kernel_of(node: Node, x: Value, w: Value, channels: Dim) -> tuple[Dim, ...]:
    """The sizes of the kernel of weights that take so many `channels` in all groups; `ShapeError` where input, weights
    and attributes do not fit."""
    group, kernel = node.attributes.get("group", 1), tuple(node.attributes.get("kernel_shape", w.shape[2:]))
    if len(x.shape) != len(w.shape) or len(x.shape) < 3:
        raise ShapeError(f"{node.describe()}: input and weights must have one rank, 3 or more")
    if group < 1 or not dims.may_equal(x.shape[1], channels) or not dims.may_be_multiple(w.shape[0], group):
        wanted = f"weights of {channels}, of shape {w.shape}"
        raise ShapeError(f"{node.describe()}: {x.shape[1]} channels in {group} groups for {wanted}")
    if not all(map(dims.may_equal, kernel, w.shape[2:])):
        raise ShapeError(f"{node.describe()}: kernel_shape {kernel} differs from the weights', of shape {w.shape}")
    return kernel


def convolution_of(node: Node, x: Value, w: Value, bias: Value | None, left: Element, right: Element) -> Computation:
    """A convolution of `x` with `w`, of elements that `left` and `right` give."""
    group, (outputs, per_group) = node.attributes.get("group", 1), w.shape[:2]
    view = window(node, x.shape[2:], kernel_of(node, x, w, per_group * group))
    n, o, *out = i = indices_over((x.shape[0], outputs, *view.output))
    c, *inner = k = indices_over([per_group, *view.kernel], "k")
    channel = c if group == 1 else (o // size(dims.floor_div(outputs, group))) * size(per_group) + c
    value = view.seen(out, inner, lambda *place: left(n, channel, *place))
    total = cast(reduce("sum", k, wide(value) * wide(right(o, c, *inner))), value.dtype)
    return tensor(i, total if bias is None else total + load(bias, o))


# ---------------------------------------------------------------------- Einsum: sums of products over named axes


def terms(node: Node, equation: str) -> tuple[list[str], str]:
    """The axes' letters of each operand and of the result; those that an ellipsis stands for get capitals or digits of
    their own."""
    left, arrow, right = equation.partition("->")
    names = left.split(",")
    if len(names) != len(node.operands):
        raise ModelError(f"{node.describe()}: {len(names)} terms for {len(node.operands)} operands")
    spare = [c for c in string.ascii_letters + string.digits if c not in equation]
    counts = [len(v.shape) - len(name.replace("...", "")) for v, name in zip(node.operands, names, strict=True)]
    batch = "".join(spare[: max(0, *counts)])
    result = [name.replace("...", batch[len(batch) - count :]) for name, count in zip(names, counts, strict=True)]
    for value, name, letters in zip(node.operands, names, result, strict=True):
        if len(letters) != len(value.shape):
            raise ModelError(f"{node.describe()}: the term {name!r} does not fit {value.type}")
    if not arrow:
        every = "".join(result)
        right = "..." + "".join(sorted(c for c in set(every) - set(batch) if every.count(c) == 1))
    return result, right.replace("...", batch)


@computes("Einsum")
def einsum(node: Node, first: Value, *, equation: str) -> Computation:
    names, right = terms(node, equation.replace(" ", ""))
    sizes: dict[str, Dim] = {}
    for value, letters in zip(node.operands, names, strict=True):
        for letter, dim in zip(letters, value.shape, strict=True):
            joined = dims.broadcast(sizes.get(letter, 1), dim)
            if joined is None:
                raise ModelError(f"{node.describe()}: the axis {letter!r} has sizes {sizes[letter]} and {dim}")
            sizes[letter] = joined
    i = dict(zip(sizes, indices_over(list(sizes.values())), strict=True))
    pairs = zip(node.operands, names, strict=True)
    factors = (wide(broadcast_load(value, [i[letter] for letter in letters])) for value, letters in pairs)
    product = functools.reduce(operator.mul, factors)
    summed = [index for letter, index in i.items() if letter not in right]
    total = reduce("sum", summed, product) if summed else product
    return tensor([i[letter] for letter in right], cast(total, first.tensor.dtype))


@infers("Det")
def determinant_type(node: Node, x: Value) -> Type:
    rows, columns = x.shape[-2:]
    if dims.all_static([rows, columns]) and rows != columns:
        raise ShapeError(f"{node.describe()}: matrices of {rows} by {columns} have no determinant")
    return TensorType(x.tensor.dtype, x.shape[:-2])


@performs("Det")
def determinant(node: Node, x: Value) -> Procedure:
    """Elimination in float64, below the largest element of each column."""
    n, lead = x.shape[-1], indices_over(x.shape[:-2])
    a, result = temporary("a", DType.FLOAT64, [n, n]), temporary("result", DType.FLOAT64, [])
    pivot, held = temporary("pivot", DType.INT64, []), temporary("held", DType.FLOAT64, [])
    k, i, j = (over(name, n) for name in "kij")
    row, diagonal = current(pivot), current(a, [k, k])
    size_below = select(i >= k, call("abs", current(a, [i, k])), -1.0)
    swap = each(
        [j],
        store(held, [], current(a, [k, j])),
        store(a, [k, j], current(a, [row, j])),
        store(a, [row, j], current(held)),
    )
    clear = each([j], store(a, [i, j], current(a, [i, j]) - current(held) * current(a, [k, j]), j > k))
    share = store(held, [], current(a, [i, k]) / diagonal)
    clear_below = each([i], once(share, clear, when=i > k), when=call("ne", diagonal, 0.0))
    column = each(
        [k],
        store(pivot, [], reduce("argmax", [i], size_below)),
        once(swap, store(result, [], -current(result)), when=call("ne", row, k)),
        store(result, [], current(result) * diagonal),
        clear_below,
    )
    copy = fill(a, lambda *place: cast(load(x, *lead, *place), DType.FLOAT64))
    begin = once(copy, store(result, [], 1.0))
    end = once(store(node.output, lead, cast(current(result), x.tensor.dtype)))
    return procedure(begin, column, end, rows=lead)
