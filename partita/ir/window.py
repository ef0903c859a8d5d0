"""Windows that slide over an image: of convolutions and pools, on `[N, C, *spatial]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Expr, Operand, call, literal
from partita.ir.formula import all_within, select, size
from partita.ir.graph import Node
from partita.ir.types import DType


@dataclass(frozen=True, slots=True)
class Window:
    """What slides over `spatial`, per axis (elements)."""

    spatial: tuple[Dim, ...]
    kernel: tuple[Dim, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[Dim, ...]  # padding before
    end: tuple[Dim, ...]  # padding after
    output: tuple[Dim, ...]
    may_overhang: bool = False  # the last window may reach beyond the padding

    @property
    def is_padded(self) -> bool:
        return any(not dims.is_static(pad) or pad != 0 for pad in (*self.begin, *self.end))

    def sources(self, out: Sequence[Expr], inner: Sequence[Expr]) -> list[Expr]:
        """Input positions for output positions and positions in the window."""
        return [
            o * self.strides[n] + k * self.dilations[n] - size(self.begin[n])
            for n, (o, k) in enumerate(zip(out, inner, strict=True))
        ]

    def inside(self, places: Sequence[Expr]) -> Expr | None:
        """Whether input positions lie in the input; None where all do."""
        touched = []
        for n, (place, dim) in enumerate(zip(places, self.spatial, strict=True)):
            if dims.all_static([self.begin[n], self.end[n]]) and self.begin[n] == self.end[n] == 0:
                overhang = (self.output[n] - 1) * self.strides[n] + self.dilations[n] * (self.kernel[n] - 1) - dim
                if overhang < 0 if dims.is_static(overhang) else not self.may_overhang:
                    continue
            touched.append((place, dim))
        return all_within(touched)

    def seen(
        self, out: Sequence[Expr], inner: Sequence[Expr], element: Callable[..., Expr], outside: Operand = 0
    ) -> Expr:
        """What a place of the window sees at an output position: `element` at its position in the input, or
        `outside`."""
        places = self.sources(out, inner)
        condition, value = self.inside(places), element(*places)
        return value if condition is None else select(condition, value, outside)


def geometry(node: Node, rank: int, kernel: Sequence[Dim]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Strides, dilations and pads of a window on `rank` spatial axes; `ModelError` where they cannot be."""
    strides, dilations = (tuple(node.attributes.get(name, (1,) * rank)) for name in ("strides", "dilations"))
    pads = tuple(node.attributes.get("pads", (0,) * (2 * rank)))
    if {len(strides), len(dilations), len(kernel), len(pads) / 2} != {rank}:
        raise ModelError(f"{node.describe()}: kernel, strides, dilations and pads must fit {rank} spatial axes")
    if any(dims.is_static(value) and value < 1 for value in (*strides, *dilations, *kernel)):
        raise ModelError(
            f"{node.describe()}: kernel {tuple(kernel)}, strides {strides} and dilations {dilations} must be positive"
        )
    return strides, dilations, pads


def window(node: Node, spatial: Sequence[Dim], kernel: Sequence[Dim]) -> Window:
    """Reads the attributes shared by Conv and the pools; `ModelError` where they cannot be."""
    rank, ceil = len(spatial), bool(node.attributes.get("ceil_mode", 0))
    strides, dilations, pads = geometry(node, rank, kernel)
    automatic = node.attributes.get("auto_pad", "NOTSET")
    begin, end, output = [], [], []
    for n, dim in enumerate(spatial):
        reach = dilations[n] * (kernel[n] - 1) + 1
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            size_out = dims.ceil_div(dim, strides[n])
            total = dims.maximum((size_out - 1) * strides[n] + reach - dim, 0)
            small = dims.floor_div(total, 2)
            first = small if automatic == "SAME_UPPER" else dims.simplified(total - small)
            last = dims.simplified(total - first)
        else:
            first, last = (0, 0) if automatic == "VALID" else (pads[n], pads[n + rank])
            span = dim + first + last - reach
            if dims.is_static(span) and span < 0:
                raise ShapeError(
                    f"{node.describe()}: the window of {reach} is larger than axis {n + 2} with its padding"
                )
            size_out = (dims.ceil_div if ceil else dims.floor_div)(span, strides[n]) + 1
            if ceil:  # a window may not start in the padding after the end
                size_out = dims.minimum(size_out, dims.floor_div(dim + first - 1, strides[n]) + 1)
        begin.append(first)
        end.append(last)
        output.append(dims.simplified(size_out))
    return Window(tuple(spatial), tuple(kernel), strides, dilations, tuple(begin), tuple(end), tuple(output), ceil)


def pool_window(node: Node) -> Window:
    """The window of a pool over all spatial axes of its operand."""
    return window(node, node.operand(0).shape[2:], node.attributes["kernel_shape"])


def averaged_count(node: Node, out: Sequence[Expr]) -> Expr:
    """Of how many elements an AveragePool takes the mean at an output position."""
    view, total = pool_window(node), literal(1, DType.INT64)
    for n, dim in enumerate(view.spatial):
        kernel, stride, dilation, begin = view.kernel[n], view.strides[n], view.dilations[n], view.begin[n]
        low, high = (-begin, dim + view.end[n]) if node.attributes.get("count_include_pad", 0) else (0, dim)
        overhang = (view.output[n] - 1) * stride - begin + dilation * (kernel - 1)
        if dims.all_static([low, high, overhang, begin]) and -begin >= low and overhang < high:
            total = total * size(kernel)
            continue
        start = out[n] * stride - size(begin)
        before = call("max", (size(low) - start + (dilation - 1)) // dilation, 0)
        end = call("min", (size(high) - start + (dilation - 1)) // dilation, size(kernel))
        total = total * (end - before)
    return total
