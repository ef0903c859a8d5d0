"""Random networks for the host: whatever may be fused, viewed or overwritten, in any combination."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from harness import Array

SHAPE = (2, 3, 4)
POINTWISE = ("Relu", "Neg", "Abs", "Sigmoid", "Tanh", "Softplus", "Floor")
PAIRS = ("Add", "Sub", "Mul", "Max", "Min")
REDUCTIONS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare")


@dataclass
class Network:
    """A network under construction: its text, its operands, and the shapes of its float32 values."""

    random: np.random.Generator
    statements: list[str] = field(default_factory=list)
    inputs: dict[str, Array] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def number(self, *shape: int) -> Array:
        return np.asarray(self.random.normal(size=shape), np.float32)

    def pick(self, *shapes: tuple[int, ...]) -> str | None:
        """Any value, or any of these shapes; late ones more often."""
        names = [name for name, shape in self.shapes.items() if not shapes or shape in shapes]
        if not names:
            return None
        return names[max(self.random.integers(len(names), size=2))]

    def node(self, operator: str, operands: list[str], shape: tuple[int, ...]) -> str:
        name = f"v{len(self.statements)}"
        self.statements.append(f"{name} = {operator} ({', '.join(operands)})")
        self.shapes[name] = shape
        return name

    def integers(self, *content: int) -> str:
        name = f"i{len(self.weights)}"
        self.weights[name] = np.array(content, np.int64)
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = self.number(*shape)
        self.shapes[name] = shape
        return name


def random_network(seed: int, nodes: int = 9) -> tuple[str, dict[str, Array], dict[str, Array], list[str]]:
    """Text, inputs, weights and outputs: all that nothing reads, and some that something does."""
    network = Network(np.random.default_rng(seed))
    for n in range(2):
        network.inputs[f"x{n}"] = network.number(*SHAPE)
        network.shapes[f"x{n}"] = SHAPE
    while len(network.statements) < nodes:
        grow(network)
    made = [statement.partition(" = ")[0] for statement in network.statements]
    read = {name for s in network.statements for name in s.partition(" (")[2].rstrip(")").split(", ")}
    outputs = [name for name in made if name not in read or network.random.random() < 0.15]
    inputs = {name: value for name, value in network.inputs.items() if name in read}
    weights = {name: value for name, value in network.weights.items() if name in read}
    return "; ".join(network.statements), inputs, weights, outputs


def grow(network: Network) -> None:
    """One more node, of any kind."""
    random = network.random
    value = network.pick()
    assert value is not None
    shape = network.shapes[value]
    kind = random.choice(["point", "pair", "pair", "broadcast", "reduce", "move", "view", "row", "product", "window"])
    if kind == "point":
        network.node(random.choice(POINTWISE), [value], shape)
    elif kind == "pair":
        other = network.pick(shape)
        assert other is not None
        network.node(random.choice(PAIRS), [value, other], shape)
    elif kind == "broadcast":
        keep = random.random(len(shape)) < 0.5
        small = tuple(int(size) if k else 1 for size, k in zip(shape, keep, strict=True))
        other = network.pick(small) or network.weight(*small)
        operands = [value, other] if random.random() < 0.5 else [other, value]
        network.node(random.choice(PAIRS), operands, shape)
    elif kind == "reduce" and shape:
        axis = int(random.integers(len(shape)))
        keep = int(random.integers(2))
        rest = shape[:axis] + (1,) * keep + shape[axis + 1 :]
        axes = network.integers(axis)
        network.node(f"{random.choice(REDUCTIONS)} <keepdims = {keep}>", [value, axes], rest)
    elif kind == "move" and len(shape) > 1:
        move(network, value, shape)
    elif kind == "view":
        turned = tuple(int(size) for size in random.permutation(shape))
        network.node("Reshape", [value, network.integers(*turned)], turned)
    elif kind == "row" and shape:
        axis = int(random.integers(len(shape)))
        network.node(f"Softmax <axis = {axis}>", [value], shape)
    elif kind == "product" and len(shape) > 1:
        columns = int(random.choice([1, 4, 5]))
        other = network.pick((shape[-1], columns)) or network.weight(shape[-1], columns)
        network.node("MatMul", [value, other], (*shape[:-1], columns))
    elif kind == "window" and len(shape) == 3 and shape[-1] > 1:
        if random.random() < 0.5:
            weight = network.weight(5, shape[1], 2)
            network.node("Conv <pads = [1, 0]>", [value, weight], (shape[0], 5, shape[2]))
        else:
            network.node("MaxPool <kernel_shape = [2]>", [value], (*shape[:2], shape[2] - 1))


def move(network: Network, value: str, shape: tuple[int, ...]) -> None:
    """A node that puts elements elsewhere."""
    random = network.random
    axis = int(random.integers(len(shape)))
    size = shape[axis]
    kind = random.choice(["Transpose", "Slice", "Concat", "Expand", "Gather", "Pad"])
    if kind == "Transpose":
        order = [int(n) for n in random.permutation(len(shape))]
        network.node(f"Transpose <perm = {order}>", [value], tuple(shape[n] for n in order))
    elif kind == "Slice" and size > 1:
        bounds = [network.integers(n) for n in (size - 1, -size - 1, axis, -1)]  # backwards
        network.node("Slice", [value, *bounds], shape)
    elif kind == "Concat" and size < 8:
        other = network.pick(shape)
        assert other is not None
        network.node(f"Concat <axis = {axis}>", [value, other], (*shape[:axis], 2 * size, *shape[axis + 1 :]))
    elif kind == "Expand" and len(shape) < 4:
        network.node("Expand", [value, network.integers(2, *shape)], (2, *shape))
    elif kind == "Gather":
        places = [int(n) for n in random.integers(-size, size, 3)]
        network.node(
            f"Gather <axis = {axis}>", [value, network.integers(*places)], (*shape[:axis], 3, *shape[axis + 1 :])
        )
    elif kind == "Pad" and size < 8:
        pads = [int(n == axis) for n in range(len(shape))]
        padded = (*shape[:axis], size + 1, *shape[axis + 1 :])
        network.node("Pad", [value, network.integers(*pads, *[0] * len(shape))], padded)
