"""Recognize Gelu: exporters write it out, by parts that each round and divide; as one operator it is faster and nearer.

    before: model (float[2, 3] x) => (float[2, 3] y) {
                root = Constant <value = float {1.4142135}> ()
                one = Constant <value = float {1}> ()
                half = Constant <value = float {0.5}> ()
                scaled = Div (x, root)
                e = Erf (scaled)
                sum = Add (e, one)
                product = Mul (x, sum)
                y = Mul (product, half)
            }
    after:  model (float[2, 3] x) => (float[2, 3] y) { y = Gelu (x) }

The factors may come in any order, and `x` may be multiplied by the square root of 1/2. The numbers have to be constants
of the program, right to their type's last digits: the values of weights play no part.
"""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np

from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import bodies
from partita.passes.simplify_algebra import producer, uniform

LAST_DIGITS = 4  # units in the last place by which an exporter's constant may be off


def recognize_gelu(graph: Graph) -> bool:
    """Replaces every product that is a Gelu, in subgraphs too."""
    changed = False
    for node in graph.nodes:
        for body in bodies(node).values():
            changed |= recognize_gelu(body)
        x = _argument(node)
        if x is not None:
            graph.replace_node(node, [Builder(graph, node.name)("Gelu", x)])
            changed = True
    return changed


def _argument(node: Node) -> Value | None:
    """What a product is the Gelu of; None if it is none."""
    if node.domain or node.op_type != "Mul":
        return None
    for outer, product in permutations(node.operands):
        inner = producer(product, "Mul")
        for x, half, doubled in permutations([outer, *inner.operands]) if inner else ():
            if _is_number(half, 0.5) and _is_one_plus_erf(doubled, x) and dims.same_shape(x.shape, node.output.shape):
                return x
    return None


def _is_one_plus_erf(value: Value, x: Value) -> bool:
    """Whether `value` is 1 + erf(x / sqrt 2)."""
    total = producer(value, "Add")
    for one, error in permutations(total.operands) if total else ():
        erf = producer(error, "Erf")
        scaled = producer(erf.operand(0), "Div", "Mul") if erf and _is_number(one, 1) else None
        if scaled is None:
            continue
        if scaled.op_type == "Div":
            return scaled.operand(0) is x and _is_number(scaled.operand(1), math.sqrt(2))
        return any(a is x and _is_number(b, math.sqrt(0.5)) for a, b in permutations(scaled.operands))
    return False


def _is_number(value: Value, number: float) -> bool:
    """Whether `value` is `number` everywhere, as nearly as its type can tell."""
    found = uniform(value)
    if found is None or not value.tensor.dtype.is_float:
        return False
    step = np.spacing(found)
    return bool(abs(float(found) - number) <= LAST_DIGITS * abs(float(step)))
