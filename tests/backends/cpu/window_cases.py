"""Operators on images and signals at sizes drawn at random; see `operator_cases`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from harness import Array
from hypothesis import strategies as st
from operator_cases import SOME, Case, Draw, flag, numbers

try:
    import torch
except ImportError:  # it comes with an extra
    torch = None


@st.composite
def convolution(draw: Draw) -> Case:
    """Conv and ConvTranspose of any rank, against PyTorch."""
    rank, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    inner, outer = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    size = [draw(st.integers(1, 9 if rank < 3 else 5)) for _ in range(rank)]
    kernel, strides, dilations = ([draw(st.integers(1, most)) for _ in range(rank)] for most in (4, 3, 2))
    batch, is_transposed = draw(st.integers(1, 2)), flag(draw)
    if not is_transposed:
        pads = [draw(st.integers(0, 2)) for _ in range(rank)]
        size = [max(n, d * (k - 1) + 1 - 2 * p) for n, d, k, p in zip(size, dilations, kernel, pads, strict=True)]
        x, w = numbers(draw, [batch, group * inner, *size]), numbers(draw, [group * outer, inner, *kernel])
        more = ""
        function = getattr(torch.nn.functional, f"conv{rank}d")
        further = {}
    else:
        pads = [draw(st.integers(0, d * (k - 1) // 2)) for d, k in zip(dilations, kernel, strict=True)]
        extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(strides, dilations, strict=True)]
        x, w = numbers(draw, [batch, group * inner, *size]), numbers(draw, [group * inner, outer, *kernel])
        more = f", output_padding = {extra}"
        function = getattr(torch.nn.functional, f"conv_transpose{rank}d")
        further = {"output_padding": extra}
    bias = numbers(draw, [group * outer])
    attributes = f"strides = {strides}, dilations = {dilations}, pads = {pads + pads}, group = {group}{more}"
    result = function(
        *map(torch.from_numpy, (x, w, bias)), stride=strides, padding=pads, dilation=dilations, groups=group, **further
    )
    name = "ConvTranspose" if is_transposed else "Conv"
    return Case(f"y = {name} <{attributes}> (x, w, b)", {"x": x}, {"w": w, "b": bias}, wanted=[result.numpy()])


@st.composite
def image(draw: Draw) -> Case:
    """Pools and what undoes them."""
    kernel, strides = ([draw(st.integers(1, 3)) for _ in range(2)] for _ in range(2))
    x = numbers(draw, [draw(st.integers(1, 2)), draw(SOME), *(draw(st.integers(3, 9)) for _ in range(2))])
    window = f"kernel_shape = {kernel}, strides = {strides}"
    match draw(
        st.sampled_from(["MaxPool", "AveragePool", "LpPool", "GlobalLpPool", "MaxUnpool", "Col2Im", "AffineGrid"])
    ):
        case "MaxUnpool":
            y, places = torch.nn.functional.max_pool2d(torch.from_numpy(x), kernel, kernel, return_indices=True)
            offsets = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], 1, 1) * (x.shape[2] * x.shape[3])
            full = torch.nn.functional.max_unpool2d(y, places, kernel, kernel, output_size=x.shape[2:]).numpy()
            cut = [size // k * k for size, k in zip(x.shape[2:], kernel, strict=True)]
            inner = np.ascontiguousarray(full[:, :, : cut[0], : cut[1]])
            row, column = places.numpy() // x.shape[3], places.numpy() % x.shape[3]
            indices = offsets // (x.shape[2] * x.shape[3]) * (cut[0] * cut[1]) + row * cut[1] + column
            return Case(
                f"y = MaxUnpool <kernel_shape = {kernel}, strides = {kernel}> (x, i)",
                {"x": y.numpy(), "i": indices},
                wanted=[inner],
            )
        case "LpPool" | "GlobalLpPool" as name:
            p = draw(st.integers(1, 4))
            powers = np.abs(x.astype(np.float64)) ** p
            if name == "LpPool":
                windows = np.lib.stride_tricks.sliding_window_view(powers, kernel, (2, 3))
                result = windows[:, :, :: strides[0], :: strides[1]].sum((-1, -2)) ** (1 / p)
                return Case(f"y = LpPool <{window}, p = {p}> (x)", {"x": x}, wanted=[result.astype(np.float32)])
            result = powers.sum((2, 3), keepdims=True) ** (1 / p)
            return Case(f"y = GlobalLpPool <p = {p}> (x)", {"x": x}, wanted=[result.astype(np.float32)])
        case "Col2Im":
            columns = torch.nn.functional.unfold(torch.from_numpy(x), kernel, stride=strides, padding=1)
            folded = torch.nn.functional.fold(columns, x.shape[2:], kernel, stride=strides, padding=1)
            sizes = {"s": np.array(x.shape[2:]), "b": np.array(kernel)}
            text = f"y = Col2Im <strides = {strides}, pads = [1, 1, 1, 1]> (x, s, b)"
            return Case(text, {"x": columns.numpy()}, sizes, wanted=[folded.numpy()])
        case "AffineGrid":
            theta, align = numbers(draw, [x.shape[0], 2, 3]), flag(draw)
            grid = torch.nn.functional.affine_grid(torch.from_numpy(theta), list(x.shape), bool(align)).numpy()
            return Case(
                f"y = AffineGrid <align_corners = {align}> (t, s)",
                {"t": theta},
                {"s": np.array(x.shape)},
                wanted=[grid],
            )
        case name:
            ceiled = flag(draw)
            function = getattr(torch.nn.functional, {"MaxPool": "max_pool2d", "AveragePool": "avg_pool2d"}[name])
            result = function(torch.from_numpy(x), kernel, strides, ceil_mode=bool(ceiled)).numpy()
            return Case(f"y = {name} <{window}, ceil_mode = {ceiled}> (x)", {"x": x}, wanted=[result])


# ---------------------------------------------------------------------- signals


@st.composite
def signal(draw: Draw) -> Case:
    """Transforms of any length, in any direction, against NumPy."""
    points = draw(st.sampled_from([1, 2, 3, 4, 5, 8, 12, 13, 15, 16, 17, 27, 32, 49, 60, 64, 97, 128]))
    kind = draw(st.sampled_from(["forward", "inverse", "onesided", "real inverse", "cut", "window"]))
    x = numbers(draw, [2, points, 2, 2])
    values = x[..., 0].astype(np.float64) + 1j * x[..., 1]
    axis = {"a": np.array(1)}
    match kind:
        case "onesided":
            result = np.fft.rfft(values.real, axis=1)
            x = x[..., :1]
            return Case("y = DFT <onesided = 1> (x, , a)", {"x": x}, axis, wanted=[_parts(result)])
        case "real inverse":
            length = 2 * points - 1
            result = np.fft.irfft(values, length, axis=1)[..., None].astype(np.float32)
            weights = {**axis, "n": np.array(length)}
            return Case("y = DFT <onesided = 1, inverse = 1> (x, n, a)", {"x": x}, weights, wanted=[result])
        case "cut":
            length = draw(st.integers(1, 40))
            given = {"n": np.array(length)}
            result = _parts(np.fft.fft(values, length, axis=1))
            return Case("y = DFT(x, n, a)", {"x": x, **given, **axis}, wanted=[result])
        case "window":
            name = draw(st.sampled_from(["Hann", "Hamming", "Blackman"]))
            return Case(f"y = {name}Window <periodic = {flag(draw)}> (n)", {"n": np.array(points + 1)})
    result = np.fft.ifft(values, axis=1) if kind == "inverse" else np.fft.fft(values, axis=1)
    return Case(f"y = DFT <inverse = {int(kind == 'inverse')}> (x, , a)", {"x": x}, axis, wanted=[_parts(result)])


@st.composite
def frames(draw: Draw) -> Case:
    """Short transforms, filter banks, counts of n-grams."""
    x, step, length = numbers(draw, [2, 40, 1]), draw(st.integers(1, 9)), draw(st.integers(1, 20))
    match draw(st.sampled_from(["STFT", "MelWeightMatrix", "TfIdfVectorizer"])):
        case "STFT":
            given = {"s": np.array(step), "n": np.array(length)}
            text = f"y = STFT <onesided = {flag(draw)}> (x, s, w, n)"
            window = {"w": numbers(draw, [length])}
            return Case(text, {"x": x, **given}, window) if flag(draw) else Case(text, {"x": x}, {**given, **window})
        case "MelWeightMatrix":
            edges = {"l": np.array(float(step), np.float32), "h": np.array(400.0 * length, np.float32)}
            return Case("y = MelWeightMatrix(m, d, r, l, h)", edges,
                        {"m": np.array(step), "d": np.array(8 * length), "r": np.array(16000)})  # fmt: skip
    pool, mode = "[0, 1, 2, 0, 0, 1, 1, 1, 2, 0, 0, 0]", draw(st.sampled_from(["TF", "IDF", "TFIDF"]))
    lengths = draw(st.sampled_from([(1, 1), (1, 2), (2, 2), (2, 3)]))
    text = f"""y = TfIdfVectorizer <mode = "{mode}", min_gram_length = {lengths[0]}, max_gram_length = {lengths[1]},
        max_skip_count = {draw(st.integers(0, 3))}, ngram_counts = [0, 3, 9], ngram_indexes = [0, 1, 2, 3, 4, 5, 6],
        weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], pool_int64s = {pool}> (x)"""
    tokens = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 3, [draw(st.integers(1, 3)), draw(SOME)])
    return Case(text.replace("\n        ", " "), {"x": tokens})


@st.composite
def recurrence(draw: Draw) -> Case:
    """Linear attention by every rule."""
    kept, group, steps = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(0, 7))
    depth, width, batch = draw(SOME), draw(SOME), draw(st.integers(1, 2))
    rule = draw(st.sampled_from(["linear", "gated", "delta", "gated_delta"]))
    kind = draw(st.sampled_from(["float32", "float16"]))
    inputs = {
        "q": numbers(draw, [batch, steps, kept * group * depth], kind),
        "k": numbers(draw, [batch, steps, kept * depth], kind) / np.dtype(kind).type(depth),
        "v": numbers(draw, [batch, steps, kept * width], kind),
    }
    if flag(draw):
        inputs["s"] = numbers(draw, [batch, kept, depth, width], kind)
    if "gated" in rule:
        inputs["d"] = -np.abs(numbers(draw, [batch, steps, kept * (depth if flag(draw) else 1)], kind))
    if "delta" in rule:
        inputs["b"] = np.abs(numbers(draw, [batch, steps, kept if flag(draw) else 1], kind))
    operands = ", ".join(name if name in inputs else "" for name in "qkvsdb").rstrip(" ,")
    attributes = f'update_rule = "{rule}", q_num_heads = {kept * group}, kv_num_heads = {kept}'
    return Case(f"y, p = LinearAttention <{attributes}> ({operands})", inputs, {}, "yp")


@st.composite
def regions(draw: Draw) -> Case:
    """The largest pixel of each bin, bin by bin."""
    x = numbers(draw, [2, draw(st.integers(1, 3)), draw(SOME), draw(SOME)])
    pooled, scale = [draw(st.integers(1, 3)) for _ in range(2)], draw(st.sampled_from([1.0, 0.5, 0.25]))
    random, count = np.random.default_rng(draw(st.integers(0, 1 << 16))), draw(st.integers(1, 4))
    corners = np.sort(random.uniform(-4, 24, (count, 2, 2)), axis=1).reshape(count, 4)
    rois = np.concatenate([random.integers(0, 2, (count, 1)), corners], 1).astype(np.float32)
    text = f"y = MaxRoiPool <pooled_shape = {pooled}, spatial_scale = {scale}> (x, r)"
    return Case(text, {"x": x, "r": rois}, wanted=[_pooled(x, rois, pooled, scale)])


def _pooled(x: Array, rois: Array, pooled: Sequence[int], scale: float) -> Array:
    y = np.zeros((len(rois), x.shape[1], *pooled), np.float32)
    for place, row in np.ndenumerate(np.zeros((len(rois), *pooled))):
        sample, *corners = rois[place[0]]
        edges = np.sign(corners) * np.floor(np.abs(corners) * scale + 0.5)
        bounds = []
        for n, (first, last) in enumerate(((edges[1], edges[3]), (edges[0], edges[2]))):
            size = np.float32(max(last - first + 1, 1)) / np.float32(pooled[n])
            low, high = np.floor(place[1 + n] * size) + first, np.ceil((place[1 + n] + 1) * size) + first
            bounds.append(slice(int(max(low, 0)), int(max(high, 0))))
        window = x[int(sample), :, bounds[0], bounds[1]]
        y[place[0], :, place[1], place[2]] = window.max((1, 2)) if window.size else row
    return y


def _parts(values: Array) -> Array:
    return np.stack([values.real, values.imag], -1).astype(np.float32)


FAMILIES = {
    "convolutions": convolution(),
    "images": image(),
    "regions": regions(),
    "signals": signal(),
    "frames": frames(),
    "recurrences": recurrence(),
}
BESIDE_TORCH = frozenset({"convolutions", "images"})  # the families that PyTorch is the judge of
