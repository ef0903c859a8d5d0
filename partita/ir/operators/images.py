"""ImageDecoder: an image tells its sizes first, which become dimensions; then it is decoded."""

from __future__ import annotations

from partita.errors import ModelError, ShapeError
from partita.ir.builder import Builder
from partita.ir.contents import required_ints
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN, observe
from partita.ir.registry import becomes, calls
from partita.ir.routine import Routine
from partita.ir.types import DType, TensorType

FORMATS = ("RGB", "BGR", "Grayscale")
GRAY = (19595, 38470, 7471, 0)  # the shares of 65536 that red, green and blue have in gray: 0.299, 0.587, 0.114


@becomes("ImageDecoder")
def image_decoder(build: Builder, node: Node, encoded: Value, *, pixel_format: str = "RGB") -> Value:
    if pixel_format not in FORMATS:
        raise ModelError(f"{node.describe()}: pixel_format is {pixel_format!r}; {', '.join(FORMATS)} are known")
    if len(encoded.shape) != 1:
        raise ShapeError(f"{node.describe()}: an encoded image is a vector of bytes, not {encoded.type}")
    sizes = observe(build, build("ImageSizes", encoded, domain=DOMAIN, name=node.name))
    pixels = build("ImagePixels", encoded, sizes, domain=DOMAIN, name=node.name)
    if pixel_format == "Grayscale":
        parts = build("Mul", build.cast(pixels, DType.UINT32), build.constant(GRAY, DType.UINT32))
        sums = build("Add", build("ReduceSum", parts, [2]), 1 << 15)
        return build.cast(build("BitShift", sums, 16, direction="RIGHT"), DType.UINT8)
    if pixel_format == "BGR":
        return build("Gather", pixels, [2, 1, 0], axis=2)
    return build("Slice", pixels, [0], [3], [2])


@calls("ImageSizes", domain=DOMAIN)
def image_sizes(node: Node, encoded: Value, *, name: str) -> Routine:
    return Routine("images", "image_sizes", 1, (encoded, *encoded.shape, name), (TensorType(DType.INT64, (2,)),))


@calls("ImagePixels", domain=DOMAIN)
def image_pixels(node: Node, encoded: Value, *, name: str) -> Routine:
    sizes = required_ints(node, 1)
    result = TensorType(DType.UINT8, (*sizes, 4))  # what is last may be anything
    return Routine("images", "image_pixels", 1, (encoded, *encoded.shape, name, *sizes), (result,))
