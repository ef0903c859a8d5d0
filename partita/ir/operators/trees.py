"""Ensembles of decision trees: TreeEnsemble, and the classifier and regressor before it.

All become one operator of our own, whose tables say everything:
- `nodes` int32 [nodes, 7]: the comparison, whether NaN counts as true, the feature, where to go if it holds and if not,
  the place and the size of a set in `members`. A leaf has a range of `weights` in the places of where to go;
- `splits` [nodes]: what features are compared with;
- `targets` int32 [weights] and `weights`: what leaves add to;
- `roots` int32 [trees].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from partita.errors import ModelError
from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN as OWN
from partita.ir.operators.ml import DOMAIN, chosen_labels, doubled, features, finished, is_above, labels_of, transformed
from partita.ir.operators.registry import becomes, calls
from partita.ir.routine import Routine
from partita.ir.types import DType, TensorType

COMPARISONS = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")
MEMBER, LEAF = 6, 7
COLUMNS = 7
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@dataclass(slots=True)
class Forest:
    """The tables, as lists; nodes are numbered in any order."""

    nodes: list[list[int]] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    members: list[float] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def add(self, comparison: int, tracks: int, feature: int, split: float) -> None:
        self.nodes.append([comparison, int(bool(tracks)), feature, 0, 0, 0, 0])
        self.splits.append(split)

    def check(self, node: Node, target_count: int) -> None:
        """`ModelError` unless every walk from a root stays inside and ends."""
        limit = len(self.nodes)
        if any(not 0 <= target < target_count for target in self.targets):
            raise ModelError(f"{node.describe()}: a leaf adds to a target that is not one of the {target_count}")
        state = [0] * limit  # 1: on the way from a root, 2: all below is looked at
        pending = list(self.roots)
        while pending:
            place = pending[-1]
            if not 0 <= place < limit:
                raise ModelError(f"{node.describe()}: a tree goes on at node {place}, but there are {limit}")
            comparison, _, feature, yes, no = self.nodes[place][:5]
            if comparison == LEAF or state[place] == 2 or state[place] == 1:
                state[place] = 2
                pending.pop()
            else:
                if feature < 0:
                    raise ModelError(f"{node.describe()}: node {place} looks at feature {feature}")
                state[place] = 1
                for below in (yes, no):
                    if 0 <= below < limit and state[below] == 1:
                        raise ModelError(f"{node.describe()}: node {below} is below itself")
                pending += [yes, no]

    def build(self, build: Builder, x: Value, targets: int, aggregate: str) -> Value:
        """The operator on features [N, F]: float or double [N, targets]."""
        dtype = x.tensor.dtype
        tables = [
            build.constant(np.reshape(self.nodes, (-1, COLUMNS)), DType.INT32),
            build.constant(self.splits, dtype),
            build.constant(self.members, dtype),
            build.constant(self.targets, DType.INT32),
            build.constant(self.weights, dtype),
            build.constant(self.roots, DType.INT32),
        ]
        kind, used = AGGREGATES.index(aggregate), max((row[2] for row in self.nodes if row[0] != LEAF), default=-1) + 1
        return build("TreeEnsemble", x, *tables, domain=OWN, n_targets=targets, aggregate_function=kind, features=used)


@calls("TreeEnsemble", domain=OWN)
def forest_routine(node: Node) -> Routine:
    x, nodes, splits, members, targets, weights, roots = node.operands
    kind, trees, count = x.tensor.dtype, roots.shape[0], node.attributes["n_targets"]
    arguments = (x, x.shape[1], node.attributes["features"], nodes, splits, members, targets, weights, roots, trees,
                 count, node.attributes["aggregate_function"])  # fmt: skip
    result, function = TensorType(kind, (x.shape[0], count)), f"tree_ensemble_{kind.name.lower()}"
    return Routine("trees", function, x.shape[0], arguments, (result,), cost=50.0 * int(trees))


# ---------------------------------------------------------------------- version 5


@becomes("TreeEnsemble", domain=DOMAIN)
def tree_ensemble(build: Builder, node: Node) -> Value:
    attributes, x = node.attributes, features(build, node)
    forest = _forest(node, attributes)
    targets = attributes.get("n_targets", max(forest.targets, default=0) + 1)
    forest.check(node, targets)
    scores = forest.build(build, x, targets, AGGREGATES[attributes.get("aggregate_function", 1)])
    scores = transformed(build, node, scores, TRANSFORMS[attributes.get("post_transform", 0)])
    dtype = node.operand(0).tensor.dtype
    return scores if scores.tensor.dtype is dtype else build("Cast", scores, to=dtype.onnx)


def _forest(node: Node, attributes: dict[str, Any]) -> Forest:
    forest = Forest()
    modes = attributes["nodes_modes"].reshape(-1).astype(int).tolist()
    splits = attributes["nodes_splits"].reshape(-1).astype(np.float64).tolist()
    tracks = attributes.get("nodes_missing_value_tracks_true") or [0] * len(modes)
    names = ("featureids", "trueleafs", "truenodeids", "falseleafs", "falsenodeids")
    columns = [attributes[f"nodes_{name}"] for name in names]
    if any(len(column) != len(modes) for column in (splits, tracks, *columns)):
        raise ModelError(f"{node.describe()}: its attributes speak of different numbers of nodes")
    sets = _sets(attributes.get("membership_values"))
    weights = attributes["leaf_weights"].reshape(-1).astype(np.float64).tolist()
    degenerate = set()
    for place, (mode, split, track, feature, *ends) in enumerate(zip(modes, splits, tracks, *columns, strict=True)):
        if mode not in range(len(COMPARISONS)):
            raise ModelError(f"{node.describe()}: node {place} has the mode {mode}, which ONNX does not know")
        forest.add(mode, track, feature, split)
        is_leaf, yes, is_other_leaf, no = ends
        if is_leaf and is_other_leaf and yes == no and place in attributes["tree_roots"]:
            degenerate.add(place)  # a tree of one leaf
        forest.nodes[-1][3:5] = [yes + len(modes) * bool(is_leaf), no + len(modes) * bool(is_other_leaf)]
        if mode == MEMBER:
            _put_set(node, forest, sets)
    for place, (target, weight) in enumerate(zip(attributes["leaf_targetids"], weights, strict=True)):
        forest.add(LEAF, 0, 0, 0.0)
        forest.nodes[-1][3:5] = [place, place + 1]
        forest.targets.append(target)
        forest.weights.append(weight)
    forest.roots = [forest.nodes[r][3] if r in degenerate else r for r in attributes["tree_roots"]]
    return forest


def _sets(values: Any) -> list[list[float]]:
    """Sets of numbers, each ended by NaN."""
    result: list[list[float]] = [[]]
    for number in [] if values is None else values.reshape(-1).astype(np.float64).tolist():
        if np.isnan(number):
            result.append([])
        else:
            result[-1].append(number)
    return result[::-1] if result[-1] else result[-2::-1]


def _put_set(node: Node, forest: Forest, sets: list[list[float]]) -> None:
    """The next set of numbers becomes the last node's."""
    if not sets:
        raise ModelError(f"{node.describe()}: membership_values has fewer sets than there are nodes that want one")
    content = sets.pop()
    forest.nodes[-1][5:] = [len(forest.members), len(content)]
    forest.members += sorted(content)


# ---------------------------------------------------------------------- versions 1 and 3


def _older(node: Node, kind: str) -> Forest:
    """The forest of a classifier or regressor, whose nodes are named by a tree's number and a node's in it."""
    attributes = node.attributes
    keys = list(zip(attributes["nodes_treeids"], attributes["nodes_nodeids"], strict=True))
    number = {key: place for place, key in enumerate(keys)}
    tracks = attributes.get("nodes_missing_value_tracks_true") or [0] * len(keys)
    values = numbers(attributes, "nodes_values")
    forest = Forest()
    below: set[int] = set()
    columns = (attributes["nodes_modes"], tracks, attributes["nodes_featureids"], values)
    ends = (attributes["nodes_truenodeids"], attributes["nodes_falsenodeids"])
    for (tree, _), mode, track, feature, value, yes, no in zip(keys, *columns, *ends, strict=True):
        mode = mode.removeprefix("BRANCH_")
        if mode == "LEAF":
            forest.add(LEAF, 0, 0, 0.0)
            continue
        if mode not in COMPARISONS[:MEMBER]:
            raise ModelError(f"{node.describe()}: the mode {mode!r} is not one that ONNX knows")
        forest.add(COMPARISONS.index(mode), track, feature, value)
        forest.nodes[-1][3:5] = [number.get((tree, end), -1) for end in (yes, no)]
        below |= set(forest.nodes[-1][3:5])
    _add_leaves(node, forest, kind, number)
    first: dict[int, int] = {}
    for place, (tree, _) in enumerate(keys):
        if place not in below:
            first.setdefault(tree, place)
    forest.roots = [first[tree] for tree in dict.fromkeys(attributes["nodes_treeids"]) if tree in first]
    return forest


def _add_leaves(node: Node, forest: Forest, kind: str, number: dict[tuple[int, int], int]) -> None:
    attributes = node.attributes
    weights = numbers(attributes, f"{kind}_weights")
    columns = [attributes[f"{kind}_{name}"] for name in ("treeids", "nodeids", "ids")]
    entries: dict[int, list[tuple[int, float]]] = {}
    for tree, leaf, target, weight in zip(*columns, weights, strict=True):
        place = number.get((tree, leaf), -1)
        if place < 0 or forest.nodes[place][0] != LEAF:
            raise ModelError(f"{node.describe()}: node {leaf} of tree {tree} has a weight, but is no leaf")
        entries.setdefault(place, []).append((target, weight))
    for place, found in entries.items():
        forest.nodes[place][3:5] = [len(forest.targets), len(forest.targets) + len(found)]
        forest.targets += [target for target, _ in found]
        forest.weights += [weight for _, weight in found]


def numbers(attributes: dict[str, Any], name: str) -> list[float]:
    """An attribute that may be a list or a tensor."""
    given = attributes.get(f"{name}_as_tensor")
    return list(attributes.get(name, ())) if given is None else given.reshape(-1).astype(np.float64).tolist()


def _with_base(build: Builder, scores: Value, base: Sequence[float]) -> Value:
    return build("Add", scores, build.constant(list(base), scores.tensor.dtype)) if base else scores


@becomes("TreeEnsembleRegressor", domain=DOMAIN)
def tree_regressor(build: Builder, node: Node) -> Value:
    attributes, x = node.attributes, features(build, node)
    forest = _older(node, "target")
    targets = attributes.get("n_targets", max(forest.targets, default=0) + 1)
    forest.check(node, targets)
    scores = forest.build(build, x, targets, attributes.get("aggregate_function", "SUM"))
    scores = _with_base(build, scores, numbers(attributes, "base_values"))
    return finished(build, node, scores)


@becomes("TreeEnsembleClassifier", domain=DOMAIN)
def tree_classifier(build: Builder, node: Node) -> list[Value]:
    """Scores of all classes. Where there are two and all leaves speak of the first, they mean the second, and the
    first's score follows: 1 - s of a probability, which it is if no leaf takes anything away, else -s."""
    attributes, x = node.attributes, features(build, node)
    forest, transform = _older(node, "class"), attributes.get("post_transform", "NONE")
    classes = max(len(labels_of(node, "classlabels_int64s")[0]), 1)
    base = numbers(attributes, "base_values")
    forest.check(node, max(classes, 2))
    used = set(forest.targets)
    scores = _with_base(build, forest.build(build, x, 1 if used == {0} else max(classes, 2), "SUM"), base)
    if classes > 2 or len(used) != 1:
        places = build("ArgMax", scores, axis=1, keepdims=0)
    else:
        is_probability = all(weight >= 0 for weight in forest.weights)
        column = build("Slice", scores, build.ints([-1]), build.ints([2]), build.ints([1]))
        places = is_above(build, column, 0.5 if is_probability else 0.0)
        if used == {0}:
            by_complement = transform == "PROBIT" or (transform == "NONE" and is_probability)
            scores = doubled(build, scores, by_complement=by_complement)
    labels = chosen_labels(build, node, "classlabels_int64s", places)
    return [labels, finished(build, node, scores)]
