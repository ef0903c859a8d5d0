"""Signal processing: DFT and what is built on it, windows, filter banks."""

from __future__ import annotations

import functools
import math
import operator

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import known, normalized_axis, required, required_ints
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call
from partita.ir.formula import cast, indices_over, load, only, over, put, reduce, select, size, tensor
from partita.ir.graph import Node, Value
from partita.ir.operators.dynamic import around, by_observed_sizes, flat, from_front, observed
from partita.ir.operators.internal import DOMAIN, observe, vector_of, with_trailing_axes
from partita.ir.registry import becomes, computes, decomposes, infers, sized_by_data
from partita.ir.types import DType, TensorType

INT64, DOUBLE = DType.INT64, DType.FLOAT64

# ---------------------------------------------------------------------- Fourier transforms


def _transformed(node: Node) -> tuple[int, Dim]:
    """The axis of a transform, and its points."""
    x = node.operand(0)
    if not dims.is_static(x.shape[-1]):
        raise ShapeError(f"{node.describe()}: whether there are imaginary parts must be known; fix it with `shapes`")
    axis = normalized_axis(node, -2 if node.input(2) is None else required(node, 2).item(), len(x.shape))
    if axis == len(x.shape) - 1 or x.shape[-1] not in (1, 2):
        raise ModelError(f"{node.describe()}: the last axis holds real and imaginary parts, and is none to transform")
    if node.input(1) is not None:
        return axis, required(node, 1).item()
    is_half = node.attributes.get("onesided", 0) and node.attributes.get("inverse", 0)
    return axis, dims.simplified(2 * (x.shape[axis] - 1)) if is_half else x.shape[axis]


@infers("DFT")
def dft_type(node: Node, x: Value, *, inverse: int = 0, onesided: int = 0) -> TensorType:
    axis, points = _transformed(node)
    kept = dims.floor_div(points, 2) + 1 if onesided and not inverse else points
    parts = 1 if onesided and inverse else 2
    return TensorType(x.tensor.dtype, (*put(x.shape[:-1], axis, kept), parts))


@decomposes("DFT")
def dft(build: Builder, node: Node, x: Value, *, inverse: int = 0, onesided: int = 0) -> Value:
    """Transforms of the length's factors, one after the other, in float64. Of a real signal, half of its transform says
    all."""
    axis, points = _transformed(node)
    count, table, done = vector_of(build, [points]), _roots(build, points, 1.0 if inverse else -1.0), 1
    state = build("Spectrum", x, count, domain=DOMAIN, axis=axis, mirrored=int(inverse and onesided))
    for factor in _factors(points):
        state = build("Transform", state, table, domain=DOMAIN, axis=axis, factor=factor, done=done)
        done *= factor
    if inverse:
        state = build("Div", state, build.cast(count, DOUBLE))
    if onesided:
        ends = vector_of(build, [node.output.shape[axis], node.output.shape[-1]])
        state = build("Slice", state, [0, 0], ends, [axis, len(x.shape) - 1])
    return build.cast(state, x.tensor.dtype)


@sized_by_data("DFT", operands=[1, 2])
def dft_of_data(build: Builder, node: Node, x: Value, length: Value | None, axis: Value | None) -> Value:
    """An axis from data: the signal is seen as [before, axis, after, parts]."""
    length, rank = observed(build, length), len(x.shape)
    if axis is None or known(axis) is not None:
        return build("DFT", x, length, axis, **node.attributes)
    signal, place = build("Shape", x, end=rank - 1), from_front(build, axis, rank)
    lines = _seen_as(build, x, around(build, signal, place))
    result = build("DFT", lines, length, build.constant(1, INT64), **node.attributes)
    points = build("Shape", result, start=1, end=2)
    is_changed = build("Equal", range(rank - 1), place)
    return _seen_as(build, result, build("Where", is_changed, points, signal))


def _seen_as(build: Builder, signal: Value, sizes: Value) -> Value:
    """A signal under another shape, but for the axis of its parts."""
    shape = build("Concat", observe(build, sizes), [signal.shape[-1]], axis=0)
    return build("Reshape", signal, shape, allowzero=1)


def _factors(length: Dim) -> list[int]:
    """What the transform is taken apart into; 0 stands for a length that is not known."""
    if not dims.is_static(length):
        return [0]
    result, rest, factor = [], int(length), 4
    while rest > 1:
        while rest % factor == 0:
            result.append(factor)
            rest //= factor
        factor = {4: 2, 2: 3}.get(factor, factor + 2) if factor * factor <= rest or factor == 4 else rest
    return result


def _roots(build: Builder, length: Dim, sign: float) -> Value:
    """`exp(sign * 2 pi i k / length)` for every k: [2, length]."""
    limit = build("Reshape", vector_of(build, [length]), [])
    turn = build("Div", build.cast(build("Range", 0, limit, 1), DOUBLE), build.cast(limit, DOUBLE))
    angle = build("Unsqueeze", build("Mul", turn, sign * 2 * math.pi), [0])
    return build("Concat", build("Cos", angle), build("Sin", angle), axis=0)


@computes("Spectrum", domain=DOMAIN)
def spectrum(node: Node, x: Value, _: Value, *, axis: int, mirrored: int) -> Computation:
    """A signal as complex numbers of float64, cut or filled up with 0 to a number of points; or `mirrored`, where it is
    the first half of what is real when transformed back."""
    (length,), is_complex = required_ints(node, 1), x.shape[-1] == 2
    *lead, part = i = indices_over([*put(x.shape[:-1], axis, length), 2])
    place, is_real = i[axis], call("eq", part, 0)
    is_far = place * 2 > size(length)
    source = select(is_far, size(length) - place, place) if mirrored else place
    value = cast(load(x, *put(lead, axis, source), part if is_complex else 0), DOUBLE)
    if mirrored:
        is_end = call("eq", place, 0) | call("eq", place * 2, size(length))
        value = select(is_real, value, select(is_end, 0.0, select(is_far, -value, value)))
    present = source < size(x.shape[axis])
    return tensor(i, select(present if is_complex else present & is_real, value, 0.0))


@computes("Transform", domain=DOMAIN)
def transform(node: Node, x: Value, table: Value, *, axis: int, factor: int, done: int) -> Computation:
    """One step of a transform of `n` points. Before it, place `r * done + k` holds frequency k of the points r,
    r + n / done ...; after it, the same is true with `done * factor` for `done`."""
    n = x.shape[axis]
    radix = factor or n
    left, together = dims.floor_div(n, done * radix), size(done * radix)
    *lead, part = i = indices_over(x.shape)
    row, frequency, t = i[axis] // together, i[axis] % together, over("t", radix)
    source = (row + t * size(left)) * done + frequency % size(done)
    root = t * frequency * size(left) % size(n)
    (cosine, sine), is_real = (load(table, k, root) for k in (0, 1)), call("eq", part, 0)
    real, imaginary = (load(x, *put(lead, axis, source), k) for k in (0, 1))
    term = real * select(is_real, cosine, sine) + imaginary * select(is_real, -sine, cosine)
    return tensor(i, reduce("sum", [t], term))


# ---------------------------------------------------------------------- frames


@becomes("STFT")
def stft(
    build: Builder, node: Node, x: Value, step: Value, window: Value | None, length: Value | None, *, onesided: int = 1
) -> Value:
    """Frames of the signal, weighted by the window, and the transform of each."""
    x = with_trailing_axes(build, x, 3 - len(x.shape))
    length = observed(build, length)
    if length is None:
        length = build("Shape", x, start=1, end=2) if window is None else build("Shape", window)
    frames = build("Frames", x, observed(build, step), flat(build, length), domain=DOMAIN)
    frames = frames if window is None else build("Mul", frames, with_trailing_axes(build, window, 1))
    return build("DFT", frames, None, None, onesided=onesided)


@computes("Frames", domain=DOMAIN)
def frames(node: Node, x: Value) -> Computation:
    """Windows of a signal `[N, points, parts]`: `[N, windows, length, parts]`."""
    step, (length,) = required(node, 1).item(), required_ints(node, 2)
    count = dims.floor_div(x.shape[1] - length, step) + 1
    n, frame, place, part = i = indices_over([x.shape[0], count, length, x.shape[2]])
    return tensor(i, load(x, n, frame * size(step) + place, part))


# ---------------------------------------------------------------------- windows and filter banks


WINDOWS = {"HannWindow": (0.5, -0.5), "HammingWindow": (25 / 46, -21 / 46), "BlackmanWindow": (0.42, -0.5, 0.08)}

by_observed_sizes(*WINDOWS, operands=[0])
by_observed_sizes("MelWeightMatrix", operands=[0, 1])


@computes(*WINDOWS)
def window(node: Node, *, output_datatype: int = 1, periodic: int = 1) -> Computation:
    """The sum of `weights[k] * cos(2 pi k n / N)`; N is one less where the window is to be symmetric."""
    extent, kind, weights = required(node, 0).item(), DType.from_onnx(output_datatype), WINDOWS[node.op_type]
    n, period = over("n", extent), cast(size(extent if periodic else dims.simplified(extent - 1)), DOUBLE)
    angle = cast(n, DOUBLE) * (2 * math.pi) / period
    terms = [call("cos", angle * float(k)) * weight for k, weight in enumerate(weights)]
    return tensor([n], cast(functools.reduce(operator.add, terms), kind))


@computes("MelWeightMatrix")
def mel_weights(node: Node, *, output_datatype: int = 1) -> Computation:
    """Triangles over the bins of a spectrum, `[bins, mel bins]`, whose centres lie evenly on the mel scale."""
    count, points, kind = required(node, 0).item(), required(node, 1).item(), DType.from_onnx(output_datatype)
    rate, lowest, highest = (cast(only(value), DOUBLE) for value in node.operands[2:])
    low, high = (call("log1p", edge / 700.0) * (2595 / math.log(10)) for edge in (lowest, highest))
    step = (high - low) / cast(size(count + 2), DOUBLE)

    def corner(place: Expr) -> Expr:
        hertz = call("expm1", (low + cast(place, DOUBLE) * step) * (math.log(10) / 2595)) * 700.0
        return cast(call("floor", cast(size(points + 1), DOUBLE) * hertz / rate), INT64)

    j, i = indices_over([dims.floor_div(points, 2) + 1, count])
    left, centre, right = (corner(i + n) for n in range(3))
    rise = cast(j - left, DOUBLE) / cast(call("max", centre - left, 1), DOUBLE)
    fall = cast(right - j, DOUBLE) / cast(call("max", right - centre, 1), DOUBLE)
    rises = select((j >= left) & (j < centre), rise, select(call("eq", j, centre), 1.0, 0.0 * rise))
    return tensor([j, i], cast(select((j > centre) & (j < right), fall, rises), kind))


# ---------------------------------------------------------------------- older opsets
