"""What may follow a kernel: each takes `c` and makes `y`, with operands that fit the shape of `c`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from batch import Batch
from harness import Array, array, expected

Operands = Callable[[tuple[int, ...]], dict[str, Array]]


def _none(shape: tuple[int, ...]) -> dict[str, Array]:
    return {}


def _scalar(shape: tuple[int, ...]) -> dict[str, Array]:
    return {"s": np.float32([0.75]).reshape(())}


def _channel(shape: tuple[int, ...]) -> dict[str, Array]:
    """One number a channel: of axis 1, as of a convolution; of the last, below three axes."""
    sizes = [1, shape[1], *[1] * (len(shape) - 2)] if len(shape) > 2 else list(shape[-1:])
    return {"k": array(*sizes, seed=5)}


def _row(shape: tuple[int, ...]) -> dict[str, Array]:
    return {"q": array(*shape[-1:], seed=6)}


def _residual(shape: tuple[int, ...]) -> dict[str, Array]:
    return {"r": array(*shape, seed=7)}


def _limits(shape: tuple[int, ...]) -> dict[str, Array]:
    return {"low": np.array(-0.5, np.float32), "high": np.array(0.5, np.float32)}


def _all(shape: tuple[int, ...]) -> dict[str, Array]:
    return _scalar(shape) | _channel(shape) | _residual(shape) | _limits(shape)


EPILOGUES: dict[str, tuple[str, Operands]] = {
    "none": ("y = Identity(c)", _none),
    "relu": ("y = Relu(c)", _none),
    "leaky relu": ("y = LeakyRelu <alpha = 0.3> (c)", _none),
    "sigmoid": ("y = Sigmoid(c)", _none),
    "clip": ("y = Clip(c, low, high)", _limits),
    "clip below": ("y = Clip(c, low)", lambda shape: {"low": np.array(-0.5, np.float32)}),
    "add scalar": ("y = Add(c, s)", _scalar),
    "subtract from scalar": ("y = Sub(s, c)", _scalar),
    "add per channel": ("y = Add(c, k)", _channel),
    "multiply per channel": ("y = Mul(k, c)", _channel),
    "add per column": ("y = Add(c, q)", _row),
    "add residual": ("y = Add(c, r)", _residual),
    "residual first": ("y = Sub(r, c)", _residual),
    "add itself": ("y = Add(c, c)", _none),
    "multiply": ("y = Mul(c, r)", _residual),
    "bias and relu": ("a = Add(c, k); y = Relu(a)", _channel),
    "residual and relu": ("a = Add(c, r); y = Relu(a)", _residual),
    "swish": ("a = Sigmoid(c); y = Mul(c, a)", _none),
    "hard swish": ("y = HardSwish(c)", _none),
    "slope per channel": ("y = PRelu(c, k)", _channel),
    "half precision": ("y = Cast <to = 10> (c)", _none),
    "to integers": ("a = Mul(c, s); y = Cast <to = 3> (a)", _scalar),
    "compare": ("y = Greater(c, r)", _residual),
    "choose": ("a = Greater(c, s); y = Where(a, c, r)", lambda shape: _scalar(shape) | _residual(shape)),
    "chain": ("a = Mul(c, k); b = Add(a, r); d = Clip(b, low, high); e = Mul(d, s); y = Tanh(e)", _all),
    "read twice": ("a = Relu(c); b = Exp(a); y = Add(a, b)", _none),
    "transposed": ("a = Relu(c); y = Transpose(a)", _none),
    "sum of rows": ("a = Relu(c); y = ReduceSum <keepdims = 1> (a, axes)", lambda shape: {"axes": np.array([-1])}),
}


def add_all(
    batch: Batch, kernel: str, inputs: dict[str, Array], weights: dict[str, Array], *, as_inputs: bool = False
) -> None:
    """The kernel, which makes `c`, once with every epilogue. Operands of epilogues are weights unless `as_inputs`."""
    shape = shape_of(kernel, inputs, weights)
    for text, operands in EPILOGUES.values():
        further = operands(shape)
        changing = {name: value for name, value in further.items() if name == "r" or (as_inputs and name in "sk")}
        fixed = {name: value for name, value in further.items() if name not in changing}
        batch.add(f"{kernel}; {text}", inputs | changing, weights | fixed)


def shape_of(kernel: str, inputs: dict[str, Array], weights: dict[str, Array]) -> tuple[int, ...]:
    """The shape of `c`."""
    alone = Batch()
    alone.add(kernel, inputs, weights, outputs=["c"])
    return expected(alone.model(), alone.inputs)[0].shape
