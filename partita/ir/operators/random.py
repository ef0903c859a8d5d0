"""Random numbers: all are made of two kinds, numbers in [0, 1) and normal ones, which a generator draws in order.

The generator is NumPy's `RandomState`: MT19937, 53 bits a number, normal numbers by the polar method. With a seed a
node draws the same numbers in every run; without one, others in every run, from the system's entropy.
"""

from __future__ import annotations

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.expression import Computation, literal
from partita.ir.formula import compute, load
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import known, required_ints
from partita.ir.operators.internal import DOMAIN
from partita.ir.operators.older import attribute_dropped
from partita.ir.operators.registry import becomes, calls, computes, decomposes, operator, upgrades
from partita.ir.routine import Routine
from partita.ir.types import DType, TensorType

FLOAT64 = DType.FLOAT64


@calls("Uniform", "Normal", domain=DOMAIN)
def draw(node: Node) -> Routine:
    """Numbers of the shape that operand 0 is."""
    seed = node.attributes.get("seed")
    has_seed = 0 if seed is None else 1
    result = TensorType(FLOAT64, required_ints(node, 0))
    arguments = (has_seed, int(seed or 0) % 2**32, dims.product(result.dims))
    return Routine("random", f"draw_{node.op_type.lower()}", 1, arguments, (result,))


def drawn(build: Builder, node: Node, kind: str, shape: Value) -> Value:
    """Numbers of a kind from the generator that `node` names by its seed."""
    seed = node.attributes.get("seed")
    return build(kind, shape, domain=DOMAIN, seed=None if seed is None else int(seed))


def _shape(build: Builder, node: Node) -> Value:
    return build("Shape", node.operand(0)) if node.operands else build.ints(node.attributes["shape"])


def _scaled(build: Builder, node: Node, kind: str, factor: float, offset: float) -> Value:
    default = node.operand(0).tensor.dtype.onnx if node.operands else DType.FLOAT32.onnx
    numbers = build("Cast", drawn(build, node, kind, _shape(build, node)), to=node.attributes.get("dtype", default))
    return build.affine(numbers, factor, offset)


@decomposes("RandomUniform", "RandomUniformLike")
def random_uniform(build: Builder, node: Node) -> Value:
    low, high = node.attributes.get("low", 0.0), node.attributes.get("high", 1.0)
    return _scaled(build, node, "Uniform", high - low, low)


@decomposes("RandomNormal", "RandomNormalLike")
def random_normal(build: Builder, node: Node) -> Value:
    return _scaled(build, node, "Normal", node.attributes.get("scale", 1.0), node.attributes.get("mean", 0.0))


@decomposes("Bernoulli")
def bernoulli(build: Builder, node: Node) -> Value:
    """1 with the probability given, from the same numbers as NumPy. (ONNX's function gives 1 where this gives 0.)"""
    probability = build("Cast", node.operand(0), to=FLOAT64.onnx)
    numbers = drawn(build, node, "Uniform", build("Shape", probability))
    one = build.constant(1.0, FLOAT64)
    is_likely = build("Greater", probability, build.constant(0.5, FLOAT64))
    above = build("Greater", numbers, build("Sub", one, probability))
    result = build("Where", is_likely, build("LessOrEqual", numbers, probability), above)
    return build("Cast", result, to=node.attributes.get("dtype", node.operand(0).tensor.dtype.onnx))


@decomposes("Multinomial")
def multinomial(build: Builder, node: Node) -> Value:
    """The first class up to which the probabilities sum to more than a number drawn; the last one, if none."""
    x = build("Cast", node.operand(0), to=FLOAT64.onnx)
    sums = build("CumSum", build("Softmax", x, axis=-1), build.constant(-1, DType.INT64))
    before = build("Sub", build("Shape", x, start=1, end=2), build.ints([1]))
    sums = build("Slice", sums, build.ints([0]), before, build.ints([1]))
    samples = build.ints([node.attributes.get("sample_size", 1)])
    numbers = drawn(build, node, "Uniform", build("Concat", build("Shape", x, end=1), samples, axis=0))
    numbers, sums = (build("Unsqueeze", value, build.ints([axis])) for value, axis in ((numbers, 2), (sums, 1)))
    passed = build("GreaterOrEqual", numbers, sums)
    to = node.attributes.get("dtype", DType.INT32.onnx)
    return build("ReduceSum", build("Cast", passed, to=to), build.ints([2]), keepdims=0)


# ---------------------------------------------------------------------- dropout


@becomes("Dropout")
def dropout(build: Builder, node: Node) -> list[Value] | None:
    """What training drops, where it may be training: elements whose number is below the ratio. The others are scaled,
    so that the mean stays."""
    x, mode = node.operand(0), node.input(2)
    if mode is None or ((content := known(mode)) is not None and not content.item()):
        return None
    given = node.input(1)
    ratio = build.constant(0.5, FLOAT64) if given is None else build("Cast", given, to=FLOAT64.onnx)
    numbers = drawn(build, node, "Uniform", build("Shape", x))
    mask = build("Or", build("Not", mode), build("GreaterOrEqual", numbers, ratio))
    one = build.constant(1.0, FLOAT64)
    scale = build("Where", mode, build("Div", one, build("Sub", one, ratio)), one)
    scaled = build("Mul", x, build("Cast", scale, to=x.tensor.dtype.onnx))
    return [build("Where", mask, scaled, build.scalar(0, x)), mask][: len(node.outputs)]


@computes("Dropout")
def nothing_dropped(node: Node) -> list[Computation]:
    """The identity, where nothing is trained; the mask keeps everything."""
    x = node.operand(0)
    result = compute(x.shape, lambda *i: load(x, *i))
    mask = compute(x.shape, lambda *i: literal(True, DType.BOOL))
    return [result, mask][: len(node.outputs)]


operator("Dropout").is_view = True

attribute_dropped("Dropout", before=7, attributes=["is_test"])
attribute_dropped("Dropout", before=12, attributes=["ratio"])


@upgrades("Dropout", before=10)
def mask_of_data_type(build: Builder, node: Node) -> list[Value] | None:
    """The mask had the type of the data."""
    if len(node.outputs) < 2:
        return None
    result, mask = build.node("Dropout", node.operand(0), outputs=2)
    return [result, build("Cast", mask, to=node.operand(0).tensor.dtype.onnx)]
