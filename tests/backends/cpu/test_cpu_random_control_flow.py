"""Random programs of nested branches and loops against ONNX's evaluator: what lives across steps and branches must not
be overwritten, wherever the memory plan puts it."""

import random
import textwrap

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import partita

HEADER = '<ir_version: 10, opset_import: ["" : 22]>\n'
UNARY = ("Neg", "Tanh", "Sin", "Identity", "Abs")
BINARY = ("Add", "Sub", "Mul", "Max")


class Writer:
    """Writes one graph after the other; every value is float[4] and has a name of its own."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def body(self, known: list[str], depth: int, length: int, outputs: int) -> tuple[list[str], list[str]]:
        """Statements that compute from the values `known`, and the names of `outputs` results."""
        known = list(known)
        lines: list[str] = []
        for _ in range(length):
            kinds = ["unary", "binary", "binary", "tall"] + (["If", "Loop", "growing"] if depth else [])
            lines += getattr(self, self.draw.choice(kinds).lower() + "_")(known, depth)
        return lines, [self.draw.choice(known) for _ in range(outputs)]

    def pick(self, known: list[str]) -> str:
        return self.draw.choice(known[-6:] if self.draw.random() < 0.7 else known)

    def unary_(self, known: list[str], depth: int) -> list[str]:
        line = f"{self.draw.choice(UNARY)} ({self.pick(known)})"
        known.append(self.name())
        return [f"{known[-1]} = {line}"]

    def binary_(self, known: list[str], depth: int) -> list[str]:
        line = f"{self.draw.choice(BINARY)} ({self.pick(known)}, {self.pick(known)})"
        known.append(self.name())
        return [f"{known[-1]} = {line}"]

    def tall_(self, known: list[str], depth: int) -> list[str]:
        """By way of a tensor of another size."""
        tall, result = self.name(), self.name()
        line = f"{tall} = Concat <axis = 0> ({self.pick(known)}, {self.pick(known)}, {self.pick(known)})"
        known.append(result)
        return [line, f"{result} = Slice ({tall}, four, eight)"]

    def if_(self, known: list[str], depth: int) -> list[str]:
        count = self.draw.randint(1, 2)
        parts = []
        for key in ("then_branch", "else_branch"):
            lines, results = self.body(known, depth - 1, self.draw.randint(1, 4), count)
            parts.append(self.graph(key, "", lines, results))
        names = [self.name() for _ in range(count)]
        known += names
        return [f"{', '.join(names)} = If ({self.draw.choice(['c', 'd'])}) <{', '.join(parts)}>"]

    def loop_(self, known: list[str], depth: int) -> list[str]:
        """What is carried, and one stacked output, of which the sum is used."""
        count = self.draw.randint(1, 3)
        starts = [self.pick(known) for _ in range(count)]
        step, on, again = self.name(), self.name(), self.name()
        states = [self.name() for _ in range(count)]
        lines, results = self.body([*known, *states], depth - 1, self.draw.randint(2, 5), count + 1)
        own = f"int64 {step}, bool {on}, " + ", ".join(f"float[4] {state}" for state in states)
        graph = self.graph("body", own, [f"{again} = Identity ({on})", *lines], results, again)
        names, stacked, total = [self.name() for _ in range(count)], self.name(), self.name()
        known += [*names, total]
        trips = self.draw.choice(["n", "m"])
        return [
            f"{', '.join(names)}, {stacked} = Loop ({trips}, yes, {', '.join(starts)}) <{graph}>",
            f"{total} = ReduceSum <keepdims = 0> ({stacked}, zero)",
        ]

    def growing_(self, known: list[str], depth: int) -> list[str]:
        """A loop that carries what gets longer, of which the sum is used."""
        step, on, again, state, result = (self.name() for _ in range(5))
        graph = textwrap.dedent(
            f"""body = {self.name()} (int64 {step}, bool {on}, float[L] {state}) => (bool {again}, float[K] {result}) {{
                {again} = Identity ({on})
                {result} = Concat <axis = 0> ({state}, {self.pick(known)})
            }}"""
        )
        grown, total, final = self.name(), self.name(), self.name()
        start, other = self.pick(known), self.pick(known)
        known.append(final)
        return [
            f"{grown} = Loop (n, yes, {start}) <{graph}>",
            f"{total} = ReduceMean <keepdims = 1> ({grown}, zero)",
            f"{final} = Add ({total}, {other})",
        ]

    def graph(self, key: str, inputs: str, lines: list[str], results: list[str], first: str = "") -> str:
        """A body whose outputs have names of their own."""
        names = [self.name() for _ in results]
        lines = [*lines, *(f"{name} = Identity ({result})" for name, result in zip(names, results, strict=True))]
        outputs = ", ".join(([f"bool {first}"] if first else []) + [f"float[4] {name}" for name in names])
        body = "\n".join(lines)
        return f"{key} = {self.name()} ({inputs}) => ({outputs}) {{\n{body}\n}}"

    def program(self) -> str:
        lines, results = self.body(["x", "y", "w"], 3, 9, 3)
        outputs = [self.name() for _ in results]
        lines += [f"{name} = Identity ({result})" for name, result in zip(outputs, results, strict=True)]
        declared = ", ".join(f"float[4] {name}" for name in outputs)
        return (
            f"g (bool c, bool d, int64 n, int64 m, float[4] x, float[4] y) => ({declared})\n"
            "<float[4] w = {0.5, -1, 0.25, 2}, int64[1] zero = {0}, int64[1] four = {4}, int64[1] eight = {8}> {\n"
            "yes = Constant <value = bool {1}> ()\n" + "\n".join(lines) + "\n}"
        )


@pytest.mark.parametrize("seed", range(16))
def test_a_random_program(seed):
    text = HEADER + Writer(seed).program()
    proto = onnx.parser.parse_model(text)
    module = partita.compile(proto, build=partita.BuildOptions(optimization="-O0"))
    evaluator = ReferenceEvaluator(proto)
    generator = np.random.default_rng(seed)
    for c, d, n, m in ((True, False, 1, 2), (False, True, 3, 1), (True, True, 2, 2)):
        inputs = {"c": np.bool_(c), "d": np.bool_(d), "n": np.int64(n), "m": np.int64(m)}
        inputs |= {name: generator.uniform(-1, 1, 4).astype(np.float32) for name in ("x", "y")}
        expected = evaluator.run(None, inputs)
        for wanted, found in zip(expected, module.run(inputs).values(), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
