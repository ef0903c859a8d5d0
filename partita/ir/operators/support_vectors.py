"""Support vector machines of `ai.onnx.ml`: kernels as matrix products, votes, and probabilities coupled from pairs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from partita.errors import ModelError
from partita.ir.builder import Builder
from partita.ir.expression import Expr, call
from partita.ir.formula import load, reduction, select
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN as OWN
from partita.ir.operators.ml import DOMAIN, chosen_labels, doubled, features, finished, labels_of
from partita.ir.operators.registry import becomes, infers, performs
from partita.ir.procedure import Procedure, current, each, over, store, temporary
from partita.ir.types import DType, TensorType, Type

CERTAIN = 1e-7  # no class of a pair is less likely


def kernel(build: Builder, node: Node, x: Value, vectors: np.ndarray) -> Value:
    """The kernel of each row of `x` [N, F] with each vector [V, F]: [N, V]."""
    gamma, offset, degree = (*node.attributes.get("kernel_params", ()), 0.0, 0.0, 0.0)[:3]
    product = build("MatMul", x, build.constant(vectors.T, x.tensor.dtype))
    match node.attributes.get("kernel_type", "LINEAR"):
        case "LINEAR":
            return product
        case "POLY":
            return build("Pow", build.affine(product, gamma, offset), build.scalar(int(degree), product))
        case "SIGMOID":
            return build("Tanh", build.affine(product, gamma, offset))
        case "RBF":
            # |x - v|^2 = |x|^2 - 2 x v + |v|^2 loses what the two have in common: the differences are taken instead.
            difference = build("Sub", build("Unsqueeze", x, build.ints([1])), build.constant(vectors, x.tensor.dtype))
            squares = build("ReduceSumSquare", difference, build.ints([2]), keepdims=0)
            return build("Exp", build("Mul", squares, build.scalar(-gamma, squares)))
        case name:
            raise ModelError(f"{node.describe()}: kernel_type is {name!r}, which ONNX does not know")


@becomes("SVMRegressor", domain=DOMAIN)
def regressor(build: Builder, node: Node) -> Value:
    attributes, x = node.attributes, features(build, node)
    count = attributes.get("n_supports", 0)
    coefficients = np.asarray(attributes["coefficients"])
    if count:
        similar = kernel(build, node, x, np.reshape(attributes["support_vectors"], (count, -1)))
        scores = build("MatMul", similar, build.constant(coefficients.reshape(count, 1), x.tensor.dtype))
    else:
        scores = build("MatMul", x, build.constant(coefficients.reshape(-1, 1), x.tensor.dtype))
    scores = build("Add", scores, build.scalar(attributes["rho"][0], scores))
    if attributes.get("one_class", 0):
        above = build("Greater", scores, build.scalar(0, scores))
        scores = build("Where", above, build.scalar(1, scores), build.scalar(-1, scores))
    return finished(build, node, scores)


@becomes("SVMClassifier", domain=DOMAIN)
def classifier(build: Builder, node: Node) -> list[Value]:
    attributes, x = node.attributes, features(build, node)
    classes = max(len(labels_of(node, "classlabels_ints")[0]), 1)
    if not attributes.get("vectors_per_class"):
        weights = np.reshape(attributes["coefficients"], (classes, -1)).T
        scores = build("MatMul", x, build.constant(weights, x.tensor.dtype))
        scores = build("Add", scores, build.scalar(attributes["rho"][0], scores))
        places = build("ArgMax", scores, axis=1, keepdims=0)
    else:
        scores = decisions(build, node, x, attributes["vectors_per_class"])
        places = build("ArgMax", _votes(build, scores, classes), axis=1, keepdims=0)
        if attributes.get("prob_a"):
            scores = probabilities(build, node, scores, classes)
        elif classes == 2:
            scores = doubled(build, scores, by_complement=False)
    return [chosen_labels(build, node, "classlabels_ints", places), finished(build, node, scores)]


def decisions(build: Builder, node: Node, x: Value, counts: Sequence[int]) -> Value:
    """A score for each pair of classes, positive for the first: [N, pairs]."""
    total, ends = sum(counts), [0, *itertools.accumulate(counts)]
    similar = kernel(build, node, x, np.reshape(node.attributes["support_vectors"], (total, -1)))
    coefficients = np.reshape(node.attributes["coefficients"], (-1, total))
    columns = []
    for i, j in itertools.combinations(range(len(counts)), 2):
        column = np.zeros(total)
        column[ends[i] : ends[i + 1]] = coefficients[j - 1, ends[i] : ends[i + 1]]
        column[ends[j] : ends[j + 1]] = coefficients[i, ends[j] : ends[j + 1]]
        columns.append(column)
    scores = build("MatMul", similar, build.constant(np.stack(columns, axis=1), x.tensor.dtype))
    return build("Add", scores, build.constant(list(node.attributes["rho"][: len(columns)]), x.tensor.dtype))


def _votes(build: Builder, scores: Value, classes: int) -> Value:
    """How many pairs each class wins: [N, classes]."""
    pairs = list(itertools.combinations(range(classes), 2))
    wins = np.zeros((len(pairs), classes))
    for place, (i, j) in enumerate(pairs):
        wins[place, [i, j]] = 1, -1
    first = build("Cast", build("Greater", scores, build.scalar(0, scores)), to=scores.tensor.dtype.onnx)
    lost = np.array([sum(j == c for _, j in pairs) for c in range(classes)])  # a pair's second, unless its first wins
    return build(
        "Add",
        build("MatMul", first, build.constant(wins, scores.tensor.dtype)),
        build.constant(lost, scores.tensor.dtype),
    )


def probabilities(build: Builder, node: Node, scores: Value, classes: int) -> Value:
    """Of each class, from those of pairs (Platt), coupled as libsvm does (Wu, Lin and Weng, 2004, their second way)."""
    a, b = (build.constant(list(node.attributes[name]), scores.tensor.dtype) for name in ("prob_a", "prob_b"))
    pairs = build("Sigmoid", build("Neg", build("Add", build("Mul", scores, a), b)))
    pairs = build("Clip", pairs, build.scalar(CERTAIN, pairs), build.scalar(1 - CERTAIN, pairs))
    wide = build("Cast", pairs, to=DType.FLOAT64.onnx)
    coupled = build("CouplePairs", _form(build, wide, classes), domain=OWN)
    return build("Cast", coupled, to=scores.tensor.dtype.onnx)


def _form(build: Builder, pairs: Value, classes: int) -> Value:
    """The matrix whose quadratic form the probabilities of all classes make least: [N, classes, classes]."""
    place, sign, offset = (np.zeros((classes, classes)) for _ in range(3))
    for pair, (i, j) in enumerate(itertools.combinations(range(classes), 2)):
        place[i, j] = place[j, i] = pair
        sign[i, j], sign[j, i], offset[j, i] = 1, -1, 1  # of i against j, and of j against i
    found = build("Gather", pairs, build.constant(place, DType.INT64), axis=1)
    against = build(
        "Add", build("Mul", found, build.constant(sign, DType.FLOAT64)), build.constant(offset, DType.FLOAT64)
    )
    losses = build("ReduceSumSquare", against, build.ints([1]))
    both = build("Neg", build("Mul", against, build("Transpose", against, perm=(0, 2, 1))))
    return build("Where", build.constant(np.eye(classes), DType.BOOL), losses, both)


@infers("CouplePairs", domain=OWN)
def coupled_type(node: Node, form: Value) -> Type:
    return TensorType(DType.FLOAT64, form.shape[:2])


@performs("CouplePairs", domain=OWN)
def couple(node: Node, form: Value) -> Procedure:
    """One class after the other is given the share that makes the form least, until all slopes agree."""
    classes, y = form.shape[1], node.output
    row, t, other = over("row", form.shape[0]), over("t", classes), over("other", classes)
    change = temporary("change", DType.FLOAT64, [])

    def share(place: Expr) -> Expr:
        return current(y, [row, place])

    def slope(t: Expr) -> Expr:
        return reduction("sum", [classes], lambda s: load(form, row, t, s) * share(s))

    def excess(t: Expr) -> Expr:
        """How far a slope is from what all are at the least: the form itself."""
        return reduction("sum", [classes], lambda s: share(s) * slope(s)) - slope(t)

    worst = reduction("max", [classes], lambda t: call("abs", excess(t)))
    give = store(
        y, [row, other], (share(other) + select(call("eq", other, t), current(change), 0)) / (1 + current(change))
    )
    turn = each([t], store(change, [], excess(t) / load(form, row, t, t)), each([other], give))
    rounds = each([over("round", max(classes, 100))], turn, until=worst < 0.005 / classes)
    return Procedure((each([t], store(y, [row, t], 1 / classes)), rounds), (change,), (row.axis,))
