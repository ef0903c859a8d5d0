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
from collections.abc import Sequence
from dataclasses import dataclass, replace

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call
from partita.ir.formula import cast, compute, load, put, reduction, select, size, wide
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import required_ints
from partita.ir.operators.contraction import geometry
from partita.ir.operators.internal import DOMAIN, repeated, vector_of
from partita.ir.operators.movement import linear_index
from partita.ir.operators.recurrent import backward
from partita.ir.operators.registry import computes, decomposes, infers
from partita.ir.types import TensorType, Type


@dataclass(frozen=True, slots=True)
class Spread:
    """The geometry of one axis (elements): output `i * stride + k * dilation - begin`, for `output` places."""

    kernel: Dim
    stride: int
    dilation: int
    begin: Dim
    output: Dim


def _spread(node: Node) -> list[Spread]:
    x, w = node.operand(0), node.operand(1)
    rank = len(x.shape) - 2
    attributes = node.attributes
    kernel = tuple(attributes.get("kernel_shape", w.shape[2:]))
    strides, dilations, pads = geometry(node, rank, kernel)
    extra, group = attributes.get("output_padding", (0,) * rank), attributes.get("group", 1)
    if rank < 1 or len(w.shape) != rank + 2 or len(extra) != rank or group < 1:
        raise ModelError(f"{node.describe()}: weights, output_padding and group must fit {rank} spatial axes")
    if not all(map(dims.may_equal, kernel, w.shape[2:])):
        raise ShapeError(f"{node.describe()}: weights of shape {w.shape} where the kernel is {kernel}")
    if not dims.may_be_multiple(w.shape[0], group) or not dims.may_equal(x.shape[1], w.shape[0]):
        raise ShapeError(f"{node.describe()}: {x.shape[1]} channels in {group} groups for weights of {w.shape[0]}")
    automatic, wanted = attributes.get("auto_pad", "NOTSET"), attributes.get("output_shape")
    result = []
    for n, (dim, taps, stride, dilation) in enumerate(zip(x.shape[2:], kernel, strides, dilations, strict=True)):
        full = dims.simplified(stride * (dim - 1) + extra[n] + dilation * (taps - 1) + 1)
        begin, output = pads[n], dims.simplified(full - pads[n] - pads[n + rank])
        if wanted is not None or automatic.startswith("SAME"):
            output = dim * stride if wanted is None else wanted[n - rank]
            total = dims.maximum(dims.simplified(full - output), 0)
            half = dims.floor_div(total, 2)
            begin = half if automatic == "SAME_UPPER" else dims.simplified(total - half)
        elif automatic == "VALID":
            begin, output = 0, full
        if dims.is_static(output) and output < 0:
            raise ShapeError(f"{node.describe()}: more than all of axis {n + 2} is cut by its pads")
        result.append(Spread(taps, stride, dilation, begin, output))
    return result


@infers("ConvTranspose")
def transposed_type(node: Node, x: Value, w: Value, *, group: int = 1) -> Type:
    return TensorType(x.tensor.dtype, (x.shape[0], w.shape[1] * group, *(axis.output for axis in _spread(node))))


@decomposes("ConvTranspose")
def transposed_convolution(
    build: Builder, node: Node, x: Value, w: Value, bias: Value | None, *, group: int = 1
) -> Value:
    axes = _spread(node)
    if not dims.all_static([*w.shape, *(axis.begin for axis in axes)]):
        y = build("TransposedSums", x, w, domain=DOMAIN, **node.attributes)
        rest = build.ints(range(1, len(axes) + 1))
        return y if bias is None else build("Add", y, build("Unsqueeze", bias, rest))
    for n, axis in enumerate(axes):
        if axis.stride > 1 and axis.dilation > 1:
            w = _dilated(build, w, n + 2, axis)
            axes[n] = replace(axis, kernel=axis.dilation * (axis.kernel - 1) + 1, dilation=1)
    taps = [-(-axis.kernel // axis.stride) for axis in axes]
    reaches = [axis.dilation * (tap - 1) for axis, tap in zip(axes, taps, strict=True)]
    skipped = [min(axis.begin // axis.stride, reach) for axis, reach in zip(axes, reaches, strict=True)]  # cut whole
    start = [axis.begin - skip * axis.stride for axis, skip in zip(axes, skipped, strict=True)]
    end = []
    for axis, dim, first, skip in zip(axes, x.shape[2:], start, skipped, strict=True):
        missing = dims.simplified(dims.ceil_div(axis.output + first, axis.stride) - dim)
        end.append(max(int(missing), 1 - dim if dims.is_static(dim) else int(missing), -skip) + skip)
    strides, output = tuple(axis.stride for axis in axes), tuple(axis.output for axis in axes)
    phases = math.prod(strides)
    y = build(
        "Conv", x, _by_phase(build, w, group, strides, taps),
        bias if bias is None or phases == 1 else repeated(build, bias, phases),
        group=group,
        pads=(*map(operator.sub, reaches, skipped), *end),
        dilations=tuple(axis.dilation for axis in axes),
    )  # fmt: skip
    if phases == 1 and not any(start) and dims.same_shape(y.shape[2:], output):
        return y
    return build("Interleave", y, vector_of(build, output), domain=DOMAIN, strides=strides, start=tuple(start))


@computes("TransposedSums", domain=DOMAIN)
def transposed_sums(node: Node, x: Value, w: Value, *, group: int = 1) -> Computation:
    """What each output is the sum of, looked for among all places of the kernel: where only a run knows the sizes."""
    axes = _spread(node)
    inputs, outputs = dims.floor_div(w.shape[0], group), w.shape[1]

    def body(n: Expr, o: Expr, *out: Expr) -> Expr:
        def term(c: Expr, *kernel: Expr) -> Expr:
            shifted = [i + size(axis.begin) - k * axis.dilation for i, k, axis in zip(out, kernel, axes, strict=True)]
            places = [place // axis.stride for place, axis in zip(shifted, axes, strict=True)]
            channel = o // size(outputs) * size(inputs) + c
            inside = [(i >= 0) & (i < size(dim)) for i, dim in zip(places, x.shape[2:], strict=True)]
            both = zip(places, shifted, axes, strict=True)
            inside += [call("eq", i * axis.stride, at) for i, at, axis in both if axis.stride > 1]
            product = wide(load(x, n, channel, *places)) * wide(load(w, channel, o % size(outputs), *kernel))
            return select(functools.reduce(operator.and_, inside), product, 0)

        return cast(reduction("sum", [inputs, *(axis.kernel for axis in axes)], term), x.tensor.dtype)

    return compute((x.shape[0], outputs * group, *(axis.output for axis in axes)), body)


def _dilated(build: Builder, w: Value, place: int, axis: Spread) -> Value:
    """The weights with zeros between them along one axis."""
    apart = build("Unsqueeze", w, [place + 1])
    zeros = build("Pad", apart, [0, axis.dilation - 1], None, [place + 1])
    joined = build("Reshape", zeros, put(w.shape, place, -1))
    return build("Slice", joined, [0], [1 - axis.dilation], [place])


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

    def body(n: Expr, c: Expr, *out: Expr) -> Expr:
        places = list(map(operator.add, out, start))
        phase = linear_index(list(map(operator.mod, places, strides)), strides)
        return load(x, n, c * phases + phase, *map(operator.floordiv, places, strides))

    return compute((x.shape[0], dims.floor_div(x.shape[1], phases), *required_ints(node, 1)), body)
