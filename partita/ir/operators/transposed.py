"""ConvTranspose, as a convolution.

Along one axis, input `i` adds to output `i * stride + k` for each place `k` of the kernel. Of the places
`k = q * stride + r`, those of one `r` give every stride-th output, by an ordinary convolution of stride 1: so the
result is one convolution, with `stride` times the channels and a `stride`-th of the kernel, whose channels are then
interleaved. No product with 0 is computed, but for a kernel that the stride does not divide.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import required_ints
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call
from partita.ir.formula import cast, indices_over, load, put, reduce, select, size, tensor, wide
from partita.ir.graph import Node, Value
from partita.ir.operators.contraction import kernel_of
from partita.ir.operators.internal import DOMAIN, repeated, vector_of, with_trailing_axes
from partita.ir.operators.movement import linear_index
from partita.ir.operators.recurrent import backward
from partita.ir.registry import computes, decomposes, infers
from partita.ir.types import TensorType, Type
from partita.ir.window import Window, geometry


def window_onto(node: Node, places: Sequence[Dim], kernel: Sequence[Dim]) -> Window:
    """The window that stands at `places`: what it slides over is the result of a ConvTranspose, or what was pooled."""
    rank, attributes = len(places), node.attributes
    strides, dilations, pads = geometry(node, rank, kernel)
    extra, wanted = attributes.get("output_padding", (0,) * rank), attributes.get("output_shape")
    automatic, begin, spatial = attributes.get("auto_pad", "NOTSET"), list(pads[:rank]), []
    if len(extra) != rank:
        raise ModelError(f"{node.describe()}: output_padding must fit {rank} spatial axes")
    for n, dim in enumerate(places):
        full = dims.simplified(strides[n] * (dim - 1) + extra[n] + dilations[n] * (kernel[n] - 1) + 1)
        length = dims.simplified(full - pads[n] - pads[n + rank])
        if wanted is not None or automatic.startswith("SAME"):
            length = dim * strides[n] if wanted is None else wanted[n - rank]
            total = dims.maximum(dims.simplified(full - length), 0)
            half = dims.floor_div(total, 2)
            begin[n] = half if automatic == "SAME_UPPER" else dims.simplified(total - half)
        elif automatic == "VALID":
            begin[n], length = 0, full
        if dims.is_static(length) and length < 0:
            raise ShapeError(f"{node.describe()}: more than all of axis {n + 2} is cut by its pads")
        spatial.append(length)
    return Window(tuple(spatial), tuple(kernel), strides, dilations, tuple(begin), pads[rank:], tuple(places))


def from_windows(view: Window, out: Sequence[Expr], inner: Sequence[Expr], element: Callable[..., Expr]) -> Expr:
    """`element` of the window of which the place `inner` sees the position `out`; 0 where there is none."""
    moved = [o + size(view.begin[n]) - k * view.dilations[n] for n, (o, k) in enumerate(zip(out, inner, strict=True))]
    places = list(map(operator.floordiv, moved, view.strides))
    there = [(i >= 0) & (i < size(dim)) for i, dim in zip(places, view.output, strict=True)]
    there += [call("eq", i * step, at) for i, step, at in zip(places, view.strides, moved, strict=True) if step > 1]
    return select(functools.reduce(operator.and_, there), element(*places), 0)


def _spread(node: Node) -> Window:
    x, w = node.operands[:2]
    return window_onto(node, x.shape[2:], kernel_of(node, x, w, w.shape[0]))


@infers("ConvTranspose")
def transposed_type(node: Node, x: Value, w: Value, *, group: int = 1) -> Type:
    return TensorType(x.tensor.dtype, (x.shape[0], w.shape[1] * group, *_spread(node).spatial))


@decomposes("ConvTranspose")
def transposed_convolution(
    build: Builder, node: Node, x: Value, w: Value, bias: Value | None, *, group: int = 1
) -> Value:
    view = _spread(node)
    strides, begin, rank = view.strides, view.begin, len(view.strides)
    if not dims.all_static([*w.shape, *begin]):
        y = build("TransposedSums", x, w, domain=DOMAIN, **node.attributes)
        return y if bias is None else build("Add", y, with_trailing_axes(build, bias, rank))
    dilations = list(view.dilations)
    for n, stride in enumerate(strides):
        if stride > 1 and dilations[n] > 1:
            w, dilations[n] = _dilated(build, w, n + 2, dilations[n]), 1
    taps = [-(-kernel // stride) for kernel, stride in zip(w.shape[2:], strides, strict=True)]
    reaches = [dilation * (tap - 1) for dilation, tap in zip(dilations, taps, strict=True)]
    skipped = list(map(min, map(operator.floordiv, begin, strides), reaches))  # cut whole
    start = tuple(first - skip * stride for first, skip, stride in zip(begin, skipped, strides, strict=True))
    end = []
    for n, dim in enumerate(view.output):
        missing = int(dims.simplified(dims.ceil_div(view.spatial[n] + start[n], strides[n]) - dim))
        end.append(max(missing, 1 - dim if dims.is_static(dim) else missing, -skipped[n]) + skipped[n])
    phases = math.prod(strides)
    y = build(
        "Conv", x, _by_phase(build, w, group, strides, taps),
        bias if bias is None or phases == 1 else repeated(build, bias, phases),
        group=group, pads=(*map(operator.sub, reaches, skipped), *end), dilations=tuple(dilations),
    )  # fmt: skip
    if phases == 1 and not any(start) and dims.same_shape(y.shape[2:], view.spatial):
        return y
    return build("Interleave", y, vector_of(build, view.spatial), domain=DOMAIN, strides=strides, start=start)


@computes("TransposedSums", domain=DOMAIN)
def transposed_sums(node: Node, x: Value, w: Value, *, group: int = 1) -> Computation:
    """What each output is the sum of, looked for among all places of the kernel: where only a run knows the sizes."""
    view, inputs, outputs = _spread(node), dims.floor_div(w.shape[0], group), w.shape[1]
    n, o, *out = i = indices_over((x.shape[0], outputs * group, *view.spatial))
    c, *kernel = k = indices_over([inputs, *view.kernel], "k")
    channel = o // size(outputs) * size(inputs) + c
    weight = wide(load(w, channel, o % size(outputs), *kernel))
    term = from_windows(view, out, kernel, lambda *places: wide(load(x, n, channel, *places)) * weight)
    return tensor(i, cast(reduce("sum", k, term), x.tensor.dtype))


def _dilated(build: Builder, w: Value, place: int, dilation: int) -> Value:
    """The weights with zeros between them along one axis."""
    apart = build("Unsqueeze", w, [place + 1])
    zeros = build("Pad", apart, [0, dilation - 1], None, [place + 1])
    joined = build("Reshape", zeros, put(w.shape, place, -1))
    return build("Slice", joined, [0], [1 - dilation], [place])


def _by_phase(build: Builder, w: Value, group: int, strides: Sequence[int], taps: Sequence[int]) -> Value:
    """Weights `[C, O / group, *kernel]` as those of a convolution, `[O * phases, C / group, *taps]`, backwards."""
    rank, (channels, outputs) = len(strides), w.shape[:2]
    room = [tap * stride - size for tap, stride, size in zip(taps, strides, w.shape[2:], strict=True)]
    if any(room):
        w = build("Pad", w, [0] * (rank + 4) + room)
    split = [size for pair in zip(taps, strides, strict=True) for size in pair]
    parts = build("Reshape", w, [group, channels // group, outputs, *split])
    turned = build("Transpose", parts, perm=(0, 2, *range(4, 4 + 2 * rank, 2), 1, *range(3, 3 + 2 * rank, 2)))
    for axis, tap in enumerate(taps, start=3 + rank):
        turned = backward(build, turned, axis) if tap > 1 else turned
    return build("Reshape", turned, [group * outputs * math.prod(strides), channels // group, *taps])


@computes("Interleave", domain=DOMAIN)
def interleave(node: Node, x: Value, _: Value, *, strides: Sequence[int], start: Sequence[int]) -> Computation:
    """Channels `[N, C * phases, *spatial]` beside each other: `[N, C, *sizes]`, from `start` on. The phases are those
    of the strides, row-major."""
    phases = math.prod(strides)
    n, c, *out = i = indices_over((x.shape[0], dims.floor_div(x.shape[1], phases), *required_ints(node, 1)))
    places = list(map(operator.add, out, start))
    phase = linear_index(list(map(operator.mod, places, strides)), strides)
    return tensor(i, load(x, n, c * phases + phase, *map(operator.floordiv, places, strides)))
