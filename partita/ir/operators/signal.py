"""Signal processing: DFT and what is built on it, windows, filter banks."""

from __future__ import annotations

import math
from collections.abc import Callable

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Computation, Expr, call
from partita.ir.formula import cast, compute, load, only, reduction, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import known, normalized_axis, required, required_ints
from partita.ir.operators.dynamic import around, by_observed_sizes, flat, from_front, observed, wide
from partita.ir.operators.internal import DOMAIN, observe, vector_of
from partita.ir.operators.older import attributes_to_inputs, default_was
from partita.ir.operators.registry import computes, decomposes, infers, sized_by_data
from partita.ir.types import DType, TensorType

INT64, DOUBLE = DType.INT64, DType.FLOAT64

# ---------------------------------------------------------------------- Fourier transforms


def _axis(node: Node) -> int:
    axis = -2 if node.input(2) is None else required(node, 2).item()
    return normalized_axis(node, axis, len(node.operand(0).shape))


def _length(node: Node) -> Dim:
    """Points of the transform."""
    if node.input(1) is not None:
        return required(node, 1).item()
    given = node.operand(0).shape[_axis(node)]
    return dims.simplified(2 * (given - 1)) if _is_real_inverse(node) else given


def _is_real_inverse(node: Node) -> bool:
    return bool(node.attributes.get("onesided", 0) and node.attributes.get("inverse", 0))


@infers("DFT")
def dft_type(node: Node) -> TensorType:
    x, axis, length = node.operand(0), _axis(node), _length(node)
    _check_parts(node)
    if axis == len(x.shape) - 1 or x.shape[-1] not in (1, 2):
        raise ModelError(f"{node.describe()}: the last axis holds real and imaginary parts, and is none to transform")
    shape = list(x.shape)
    shape[axis], shape[-1] = length, 2
    if _is_real_inverse(node):
        shape[-1] = 1
    elif node.attributes.get("onesided", 0):
        shape[axis] = dims.floor_div(length, 2) + 1
    return TensorType(x.tensor.dtype, tuple(shape))


def _check_parts(node: Node) -> None:
    if not dims.is_static(node.operand(0).shape[-1]):
        raise ShapeError(f"{node.describe()}: whether there are imaginary parts must be known; fix it with `shapes`")


@decomposes("DFT")
def dft(build: Builder, node: Node) -> Value:
    """Transforms of the length's factors, one after the other, in float64."""
    x, axis, length = node.operand(0), _axis(node), _length(node)
    is_inverse = bool(node.attributes.get("inverse", 0))
    points = vector_of(build, [length])
    state = build("Spectrum", x, points, domain=DOMAIN, axis=axis, mirrored=int(_is_real_inverse(node)))
    table = _roots(build, length, 1.0 if is_inverse else -1.0)
    done = 1
    for factor in _factors(length):
        state = build("Transform", state, table, domain=DOMAIN, axis=axis, factor=factor, done=done)
        done *= factor
    if is_inverse:
        state = build("Div", state, build("Cast", points, to=DOUBLE.onnx))
    shape = list(dft_type(node).dims)
    if not dims.same_shape(shape, state.shape):
        ends = vector_of(build, [shape[axis], shape[-1]])
        state = build("Slice", state, build.ints([0, 0]), ends, build.ints([axis, len(shape) - 1]))
    return build("Cast", state, to=x.tensor.dtype.onnx)


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
    limit = build("Reshape", vector_of(build, [length]), build.ints([]))
    places = build("Range", build.constant(0, INT64), limit, build.constant(1, INT64))
    whole = build("Cast", limit, to=DOUBLE.onnx)
    turn = build("Div", build("Cast", places, to=DOUBLE.onnx), whole)
    angle = build("Unsqueeze", build("Mul", turn, build.scalar(sign * 2 * math.pi, turn)), build.ints([0]))
    return build("Concat", build("Cos", angle), build("Sin", angle), axis=0)


@computes("Spectrum", domain=DOMAIN)
def spectrum(node: Node) -> Computation:
    """A signal as complex numbers of float64, cut or filled up with 0 to a number of points; or `mirrored`, where it is
    the first half of what is real when transformed back."""
    x, (length,), axis = node.operand(0), required_ints(node, 1), node.attributes["axis"]
    is_complex, mirrored = x.shape[-1] == 2, node.attributes["mirrored"]
    shape = [length if n == axis else dim for n, dim in enumerate(x.shape[:-1])]

    def body(*i: Expr) -> Expr:
        part, place = i[-1], i[axis]
        is_far = place * 2 > size(length)
        source = select(is_far, size(length) - place, place) if mirrored else place
        at = [source if n == axis else index for n, index in enumerate(i[:-1])]
        value = cast(load(x, *at, part if is_complex else 0), DOUBLE)
        if mirrored:
            is_end = call("eq", place, 0) | call("eq", place * 2, size(length))
            imaginary = select(is_end, 0.0, select(is_far, -value, value))
            value = select(call("eq", part, 0), value, imaginary)
        present = source < size(x.shape[axis])
        return select(present if is_complex else present & call("eq", part, 0), value, 0.0)

    return compute([*shape, 2], body)


@computes("Transform", domain=DOMAIN)
def transform(node: Node) -> Computation:
    """One step of a transform of `n` points. Before it, place `r * done + k` holds frequency k of the points r,
    r + n / done ...; after it, the same is true with `done * factor` for `done`."""
    x, table = node.operand(0), node.operand(1)
    axis, done = node.attributes["axis"], node.attributes["done"]
    n = x.shape[axis]
    factor = node.attributes["factor"] or n
    left = dims.floor_div(n, done * factor)

    def body(*i: Expr) -> Expr:
        part, row, frequency = i[-1], i[axis] // size(done * factor), i[axis] % size(done * factor)

        def term(t: Expr) -> Expr:
            source = (row + t * size(left)) * done + frequency % size(done)
            at = [source if a == axis else index for a, index in enumerate(i[:-1])]
            root = t * frequency * size(left) % size(n)
            cosine, sine = load(table, 0, root), load(table, 1, root)
            real, imaginary = load(x, *at, 0), load(x, *at, 1)
            is_real = call("eq", part, 0)
            return real * select(is_real, cosine, sine) + imaginary * select(is_real, -sine, cosine)

        return reduction("sum", [factor], term)

    return compute(x.shape, body)


@sized_by_data("DFT", operands=[1, 2])
def dft_of_data(build: Builder, node: Node) -> Value:
    """An axis from data: the signal is seen as [before, axis, after, parts]."""
    x, length, axis = node.operand(0), node.input(1), node.input(2)
    if length is not None and known(length) is None:
        length = observe(build, wide(build, length))
    if axis is None or known(axis) is not None:
        return build("DFT", x, length, axis, **node.attributes)
    _check_parts(node)
    rank = len(x.shape) - 1
    signal, place = build("Shape", x, end=rank), from_front(build, axis, rank + 1)
    lines = _seen_as(build, x, around(build, signal, place))
    result = build("DFT", lines, length, build.constant(1, INT64), **node.attributes)
    points = build("Shape", result, start=1, end=2)
    shape = build("Where", build("Equal", build.ints(range(rank)), place), points, signal)
    return _seen_as(build, result, shape)


def _seen_as(build: Builder, signal: Value, sizes: Value) -> Value:
    """A signal under another shape, but for the axis of its parts."""
    shape = build("Concat", observe(build, sizes), build.ints([signal.shape[-1]]), axis=0)
    return build("Reshape", signal, shape, allowzero=1)


# ---------------------------------------------------------------------- frames


@sized_by_data("STFT", operands=[])
def stft(build: Builder, node: Node) -> Value:
    """Frames of the signal, weighted by the window, and the transform of each."""
    x, step, window = node.operand(0), observed(build, node.operand(1)), node.input(2)
    if len(x.shape) == 2:
        x = build("Unsqueeze", x, build.ints([2]))
    length = observed(build, node.input(3))
    if length is None:
        length = build("Shape", x, start=1, end=2) if window is None else build("Shape", window)
    frames = build("Frames", x, step, flat(build, length), domain=DOMAIN)
    if window is not None:
        frames = build("Mul", frames, build("Unsqueeze", window, build.ints([1])))
    return build("DFT", frames, None, None, onesided=node.attributes.get("onesided", 1))


@computes("Frames", domain=DOMAIN)
def frames(node: Node) -> Computation:
    """Windows of a signal `[N, points, parts]`: `[N, windows, length, parts]`."""
    x, step, (length,) = node.operand(0), required(node, 1).item(), required_ints(node, 2)
    count = dims.floor_div(x.shape[1] - length, step) + 1
    return compute(
        [x.shape[0], count, length, x.shape[2]],
        lambda n, frame, place, part: load(x, n, frame * size(step) + place, part),
    )


# ---------------------------------------------------------------------- windows and filter banks


by_observed_sizes("HannWindow", "HammingWindow", "BlackmanWindow", operands=[0])
by_observed_sizes("MelWeightMatrix", operands=[0, 1])


def _window(*weights: float) -> Callable[[Node], Computation]:
    """The sum of `weights[k] * cos(2 pi k n / N)`; N is one less where the window is to be symmetric."""

    def rule(node: Node) -> Computation:
        extent, kind = required(node, 0).item(), DType.from_onnx(node.attributes.get("output_datatype", 1))
        period = cast(size(extent if node.attributes.get("periodic", 1) else dims.simplified(extent - 1)), DOUBLE)

        def body(n: Expr) -> Expr:
            angle = cast(n, DOUBLE) * (2 * math.pi) / period
            terms = [call("cos", angle * float(k)) * weight for k, weight in enumerate(weights)]
            return cast(sum(terms[1:], start=terms[0]), kind)

        return compute([extent], body)

    return rule


computes("HannWindow")(_window(0.5, -0.5))
computes("HammingWindow")(_window(25 / 46, -21 / 46))
computes("BlackmanWindow")(_window(0.42, -0.5, 0.08))


@computes("MelWeightMatrix")
def mel_weights(node: Node) -> Computation:
    """Triangles over the bins of a spectrum, `[bins, mel bins]`, whose centres lie evenly on the mel scale."""
    count, points = required(node, 0).item(), required(node, 1).item()
    kind = DType.from_onnx(node.attributes.get("output_datatype", 1))
    rate, lowest, highest = (cast(only(value), DOUBLE) for value in node.operands[2:])
    low, high = (call("log1p", edge / 700.0) * (2595 / math.log(10)) for edge in (lowest, highest))
    step = (high - low) / cast(size(count + 2), DOUBLE)

    def corner(place: Expr) -> Expr:
        hertz = call("expm1", (low + cast(place, DOUBLE) * step) * (math.log(10) / 2595)) * 700.0
        return cast(call("floor", cast(size(points + 1), DOUBLE) * hertz / rate), INT64)

    def body(j: Expr, i: Expr) -> Expr:
        left, centre, right = (corner(i + n) for n in range(3))
        rise = cast(j - left, DOUBLE) / cast(call("max", centre - left, 1), DOUBLE)
        fall = cast(right - j, DOUBLE) / cast(call("max", right - centre, 1), DOUBLE)
        rises = select((j >= left) & (j < centre), rise, select(call("eq", j, centre), 1.0, 0.0 * rise))
        return cast(select((j > centre) & (j < right), fall, rises), kind)

    return compute([dims.floor_div(points, 2) + 1, count], body)


# ---------------------------------------------------------------------- older opsets

default_was("DFT", before=20, axis=1)
attributes_to_inputs("DFT", before=20, is_scalar=True, axis=2)
