"""Random numbers: all are made of two kinds, numbers in [0, 1) and normal ones, which a generator draws in order.

The generator is NumPy's `RandomState`: MT19937, 53 bits a number, normal numbers by the polar method. With a seed a
node draws the same numbers in every run; without one, others in every run, from the system's entropy.
"""

from __future__ import annotations

from collections.abc import Sequence

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import known, required_ints
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN
from partita.ir.registry import becomes, calls, decomposes, upgrades
from partita.ir.routine import Routine
from partita.ir.types import DType, TensorType

FLOAT64 = DType.FLOAT64


@calls("Uniform", "Normal", domain=DOMAIN)
def draw(node: Node, _: Value, *, seed: float | None = None) -> Routine:
    """Numbers of the shape that operand 0 is."""
    result = TensorType(FLOAT64, required_ints(node, 0))
    arguments = (-1 if seed is None else int(seed) % 2**32, dims.product(result.dims))
    return Routine("random", f"draw_{node.op_type.lower()}", 1, arguments, (result,))


def drawn(build: Builder, node: Node, kind: str, shape: Value) -> Value:
    """Numbers of a kind from the generator that `node` names by its seed."""
    return build(kind, shape, domain=DOMAIN, seed=node.attributes.get("seed"))


@decomposes("RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike")
def random_numbers(
    build: Builder, node: Node, like: Value | None, *, shape: Sequence[int] = (), dtype: int | None = None,
    low: float = 0.0, high: float = 1.0, scale: float = 1.0, mean: float = 0.0,
) -> Value:  # fmt: skip
    sizes = build.ints(shape) if like is None else build("Shape", like)
    kind = DType.FLOAT32 if like is None else like.tensor.dtype
    is_uniform = "Uniform" in node.op_type
    numbers = build("Cast", drawn(build, node, "Uniform" if is_uniform else "Normal", sizes), to=dtype or kind.onnx)
    return build.affine(numbers, high - low, low) if is_uniform else build.affine(numbers, scale, mean)


@decomposes("Bernoulli")
def bernoulli(build: Builder, node: Node, x: Value, *, dtype: int | None = None) -> Value:
    """1 with the probability given, from the same numbers as NumPy. (ONNX's function gives 1 where this gives 0.)"""
    probability = build.cast(x, FLOAT64)
    numbers = drawn(build, node, "Uniform", build("Shape", x))
    above = build("Greater", numbers, build("Sub", 1.0, probability))
    is_likely, below = build("Greater", probability, 0.5), build("LessOrEqual", numbers, probability)
    return build("Cast", build("Where", is_likely, below, above), to=dtype or x.tensor.dtype.onnx)


@decomposes("Multinomial")
def multinomial(build: Builder, node: Node, x: Value, *, sample_size: int = 1, dtype: int = DType.INT32.onnx) -> Value:
    """The first class up to which the probabilities sum to more than a number drawn; the last one, if none."""
    sums = build("CumSum", build("Softmax", build.cast(x, FLOAT64), axis=-1), build.constant(-1, DType.INT64))
    sums = build("Slice", sums, [0], build("Sub", build("Shape", x, start=1, end=2), 1), [1])
    numbers = drawn(build, node, "Uniform", build("Concat", build("Shape", x, end=1), [sample_size], axis=0))
    passed = build("GreaterOrEqual", build("Unsqueeze", numbers, [2]), build("Unsqueeze", sums, [1]))
    return build("ReduceSum", build("Cast", passed, to=dtype), [2], keepdims=0)


@becomes("Dropout")
def dropout(build: Builder, node: Node, x: Value, ratio: Value | None, mode: Value | None) -> Sequence[Value]:
    """What training drops, where it may be training: elements whose number is below the ratio. The others are scaled,
    so that the mean stays."""
    if mode is None or ((content := known(mode)) is not None and not content.item()):
        return undropped(build, node, x, build.constant(True, DType.BOOL))
    share = build.constant(0.5, FLOAT64) if ratio is None else build.cast(ratio, FLOAT64)
    numbers = drawn(build, node, "Uniform", build("Shape", x))
    mask = build("Or", build("Not", mode), build("GreaterOrEqual", numbers, share))
    scale = build("Where", mode, build("Div", 1.0, build("Sub", 1.0, share)), 1.0)
    scaled = build("Mul", x, build.cast(scale, x.tensor.dtype))
    return [build("Where", mask, scaled, 0), mask][: len(node.outputs)]


@upgrades("Dropout", before=10)
def mask_of_data_type(build: Builder, node: Node, x: Value) -> Sequence[Value]:
    """The mask had the type of the data, and nothing was dropped."""
    return undropped(build, node, x, build.scalar(1, x))


def undropped(build: Builder, node: Node, x: Value, keeps: Value) -> Sequence[Value]:
    """Everything, and a mask of it."""
    return [build("Identity", x), build("Expand", keeps, build("Shape", x))][: len(node.outputs)]
