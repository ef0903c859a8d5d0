"""Support vector machines of `ai.onnx.ml`: kernels as matrix products, votes, and probabilities coupled from pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from partita.errors import ModelError
from partita.ir.builder import Builder
from partita.ir.expression import Expr, call
from partita.ir.formula import load, over, reduction, select
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN as OWN
from partita.ir.operators.ml import DOMAIN, classified, doubled, features, finished, labels_of, linear
from partita.ir.procedure import Procedure, current, each, procedure, store, temporary
from partita.ir.registry import becomes, infers, performs
from partita.ir.types import DType, TensorType

FLOAT64 = DType.FLOAT64
CERTAIN = 1e-7  # no class of a pair is less likely


def kernel(build: Builder, node: Node, x: Value, vectors: np.ndarray) -> Value:
    """The kernel of each row of `x` [N, F] with each vector [V, F]: [N, V]."""
    gamma, offset, degree = (*node.attributes.get("kernel_params", ()), 0.0, 0.0, 0.0)[:3]
    product = build("MatMul", x, vectors.T)
    match node.attributes.get("kernel_type", "LINEAR"):
        case "LINEAR":
            return product
        case "POLY":
            return build("Pow", build.affine(product, gamma, offset), int(degree))
        case "SIGMOID":
            return build("Tanh", build.affine(product, gamma, offset))
        case "RBF":
            # |x - v|^2 = |x|^2 - 2 x v + |v|^2 loses what the two have in common: the differences are taken instead.
            difference = build("Sub", build("Unsqueeze", x, [1]), vectors)
            squares = build("ReduceSumSquare", difference, [2], keepdims=0)
            return build("Exp", build("Mul", squares, -gamma))
        case name:
            raise ModelError(f"{node.describe()}: kernel_type is {name!r}, which ONNX does not know")


@becomes("SVMRegressor", domain=DOMAIN)
def regressor(
    build: Builder, node: Node, *, coefficients: Sequence[float], rho: Sequence[float], n_supports: int = 0,
    support_vectors: Sequence[float] = (), one_class: int = 0,
) -> Value:  # fmt: skip
    x = features(build, node)
    x = kernel(build, node, x, np.reshape(support_vectors, (n_supports, -1))) if n_supports else x
    scores = linear(build, x, coefficients, 1, rho[:1])
    if one_class:
        scores = build("Where", build("Greater", scores, 0), build.scalar(1, scores), -1)
    return finished(build, node, scores)


@becomes("SVMClassifier", domain=DOMAIN)
def classifier(
    build: Builder, node: Node, *, coefficients: Sequence[float], rho: Sequence[float],
    vectors_per_class: Sequence[int] = (), prob_a: Sequence[float] = (),
) -> list[Value]:  # fmt: skip
    x, classes = features(build, node), max(len(labels_of(node)), 1)
    if not vectors_per_class:
        scores = votes = linear(build, x, coefficients, classes, rho[:1])
    else:
        scores = decisions(build, node, x, vectors_per_class)
        votes = _votes(build, scores, classes)
        if prob_a:
            scores = probabilities(build, node, scores, classes)
        elif classes == 2:
            scores = doubled(build, scores, by_complement=False)
    return classified(build, node, scores, votes)


def pairs_of(classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and the second class of each pair, in the order of scores."""
    return np.triu_indices(classes, 1)


def decisions(build: Builder, node: Node, x: Value, counts: Sequence[int]) -> Value:
    """A score for each pair of classes, positive for the first: [N, pairs]."""
    own, total = np.repeat(np.arange(len(counts)), counts), sum(counts)  # the class of each vector
    similar = kernel(build, node, x, np.reshape(node.attributes["support_vectors"], (total, -1)))
    weights = np.reshape(node.attributes["coefficients"], (-1, total))
    first, second = (places[:, None] for places in pairs_of(len(counts)))
    vectors = np.arange(total)
    columns = np.where(own == first, weights[second - 1, vectors], (own == second) * weights[first, vectors])
    return linear(build, similar, columns, len(columns), node.attributes["rho"][: len(columns)])


def _votes(build: Builder, scores: Value, classes: int) -> Value:
    """How many pairs each class wins: [N, classes]. A pair's second wins unless its first does."""
    first, second = (np.eye(classes)[places] for places in pairs_of(classes))
    is_first = build.cast(build("Greater", scores, 0), scores.tensor.dtype)
    return linear(build, is_first, (first - second).T, classes, second.sum(axis=0))


def probabilities(build: Builder, node: Node, scores: Value, classes: int) -> Value:
    """Of each class, from those of pairs (Platt), coupled as libsvm does (Wu, Lin and Weng, 2004, their second way)."""
    a, b = (np.asarray(node.attributes[name]) for name in ("prob_a", "prob_b"))
    pairs = build("Sigmoid", build("Neg", build("Add", build("Mul", scores, a), b)))
    pairs = build("Clip", pairs, CERTAIN, 1 - CERTAIN)
    coupled = build("CouplePairs", _form(build, build.cast(pairs, FLOAT64), classes), domain=OWN)
    return build.cast(coupled, scores.tensor.dtype)


def _form(build: Builder, pairs: Value, classes: int) -> Value:
    """The matrix whose quadratic form the probabilities of all classes make least: [N, classes, classes]."""
    first, second = pairs_of(classes)
    place, below = np.zeros((classes, classes)), np.tri(classes, k=-1)
    place[first, second] = place[second, first] = np.arange(len(first))
    found = build("Gather", pairs, build.constant(place, DType.INT64), axis=1)  # the second's is 1 less the first's
    against = build("Add", build("Mul", found, below.T - below), below)
    losses = build("ReduceSumSquare", against, [1])
    both = build("Neg", build("Mul", against, build("Transpose", against, perm=(0, 2, 1))))
    return build("Where", build.constant(np.eye(classes), DType.BOOL), losses, both)


infers("CouplePairs", domain=OWN)(lambda node, form: TensorType(FLOAT64, form.shape[:2]))


@performs("CouplePairs", domain=OWN)
def couple(node: Node, form: Value) -> Procedure:
    """One class after the other is given the share that makes the form least, until all slopes agree."""
    classes, y = form.shape[1], node.output
    row, t, other = over("row", form.shape[0]), over("t", classes), over("other", classes)
    change = temporary("change", FLOAT64, [])

    def share(place: Expr) -> Expr:
        return current(y, [row, place])

    def slope(t: Expr) -> Expr:
        return reduction("sum", [classes], lambda s: load(form, row, t, s) * share(s))

    def excess(t: Expr) -> Expr:
        """How far a slope is from what all are at the least: the form itself."""
        return reduction("sum", [classes], lambda s: share(s) * slope(s)) - slope(t)

    worst = reduction("max", [classes], lambda t: call("abs", excess(t)))
    given = select(call("eq", other, t), current(change), 0)
    give = store(y, [row, other], (share(other) + given) / (1 + current(change)))
    turn = each([t], store(change, [], excess(t) / load(form, row, t, t)), each([other], give))
    rounds = each([over("round", max(classes, 100))], turn, until=worst < 0.005 / classes)
    return procedure(each([t], store(y, [row, t], 1 / classes)), rounds, rows=[row])
