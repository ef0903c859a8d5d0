"""Ensembles of decision trees: TreeEnsemble, and the classifier and regressor before it.

All become one operator of our own, whose tables say everything:
- `nodes` int32 [nodes, 5]: the comparison, whether NaN counts as true, the feature, where to go if it holds and if not.
  A leaf has a range of `weights` in the places of where to go;
- `splits` [nodes]: what features are compared with;
- `targets` int32 [weights] and `weights`: what leaves add to;
- `roots` int32 [trees].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import numpy as np

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.expression import Expr, call, literal
from partita.ir.formula import cast, load, select
from partita.ir.graph import Node, Value
from partita.ir.operators.dynamic import everywhere
from partita.ir.operators.internal import DOMAIN as OWN
from partita.ir.operators.internal import observe
from partita.ir.operators.ml import DOMAIN, chosen_labels, doubled, features, finished, is_above, labels_of, transformed
from partita.ir.operators.registry import becomes, infers, performs
from partita.ir.procedure import Procedure, current, each, over, store, temporary
from partita.ir.types import DType, TensorType, Type

COMPARISONS = {"LEQ": "le", "LT": "lt", "GTE": "ge", "GT": "gt", "EQ": "eq", "NEQ": "ne"}
MODES = (*COMPARISONS, "MEMBER", "LEAF")
LT, EQ, MEMBER, LEAF = map(MODES.index, ("LT", "EQ", "MEMBER", "LEAF"))
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@dataclass(slots=True)
class Forest:
    """The tables, as lists; nodes are numbered in any order."""

    nodes: list[list[int]]
    splits: list[float]
    targets: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    roots: list[int] = field(default_factory=list)

    def check(self, node: Node, target_count: int) -> None:
        """`ModelError` unless every walk stays inside."""
        branches = [row for row in self.nodes if row[0] != LEAF]
        ends = {end for row in branches for end in row[3:]} | set(self.roots)
        for holds, problem in (
            (
                all(0 <= target < target_count for target in self.targets),
                f"a leaf adds to none of {target_count} targets",
            ),
            (len(self.splits) == len(self.nodes), "its attributes speak of different numbers of nodes"),
            (len(self.targets) == len(self.weights), "its attributes speak of different numbers of leaves"),
            (ends <= set(range(len(self.nodes))), f"a tree goes on where none of {len(self.nodes)} nodes is"),
            (all(0 <= row[0] < LEAF for row in branches), "a node has a mode that ONNX does not know"),
            (all(row[2] >= 0 for row in branches), "a node looks at a feature before the first"),
        ):
            if not holds:
                raise ModelError(f"{node.describe()}: {problem}")

    def depth(self) -> int:
        """Nodes of the longest walk; `ValueError` where one does not end."""
        below = {place: row[3:] for place, row in enumerate(self.nodes) if row[0] != LEAF}
        depth: dict[int, int] = {}
        for place in TopologicalSorter(below).static_order():
            depth[place] = 1 + max((depth[end] for end in below.get(place, ())), default=0)
        return max(depth.values(), default=1)

    def search(self, place: int, content: Sequence[float]) -> None:
        """Whether a feature is one of sorted numbers, as comparisons from the node at `place` on."""
        _, *same = self.nodes[place]
        middle = len(content) // 2
        self.nodes[place][0], self.splits[place] = EQ, content[0] if content else math.nan
        if middle:
            halves = (content[:middle], content[middle:])
            first = len(self.nodes)
            self.nodes[place], self.splits[place] = [LT, *same[:2], first, first + 1], content[middle]
            self.nodes += [[EQ, *same], [EQ, *same]]
            self.splits += [0.0, 0.0]
            for n, half in enumerate(halves):
                self.search(first + n, half)

    def build(self, build: Builder, x: Value, targets: int, aggregate: str, base: Sequence[float] = ()) -> Value:
        """The operator on features [N, F]: float or double [N, targets]."""
        branches = [row for row in self.nodes if row[0] != LEAF]
        used = 1 + max((row[2] for row in branches), default=-1)
        if not dims.is_static(x.shape[1]):
            width = build("Shape", x, start=1)
            fits = everywhere(build, build("GreaterOrEqual", width, [used]))
            width = observe(build, width, fits, f"trees look at {used} features, but there are fewer")
            x = build("Reshape", x, build("Concat", build("Shape", x, end=1), width, axis=0), allowzero=1)
        elif x.shape[1] < used:
            raise ShapeError(f"{build.prefix}: trees look at {used} features, but there are {x.shape[1]}")
        integers = (np.reshape(self.nodes, (-1, 5)), self.targets, self.roots)
        nodes, ids, roots = (build.constant(table, DType.INT32) for table in integers)
        splits, weights = (build.constant(table, x.tensor.dtype) for table in (self.splits, self.weights))
        scores = build(
            "TreeEnsemble", x, nodes, splits, ids, weights, roots,
            domain=OWN,
            targets=targets,
            aggregate=aggregate,
            depth=self.depth(),
            longest=max((row[4] - row[3] for row in self.nodes if row[0] == LEAF), default=0),
            comparisons=tuple(sorted({row[0] for row in branches})) or (0,),
            tracks=int(any(row[1] for row in branches)),
        )  # fmt: skip
        return build("Add", scores, build.constant(list(base), x.tensor.dtype)) if base else scores


@infers("TreeEnsemble", domain=OWN)
def forest_type(node: Node, x: Value, *, targets: int) -> Type:
    return TensorType(x.tensor.dtype, (x.shape[0], targets))


@performs("TreeEnsemble", domain=OWN)
def forest_walk(
    node: Node, x: Value, nodes: Value, splits: Value, ids: Value, weights: Value, roots: Value, *,
    aggregate: str, depth: int, longest: int, comparisons: Sequence[int], tracks: int,
) -> Procedure:  # fmt: skip
    """From each tree's root to a leaf, which adds to some targets. `depth` and `longest` are the most steps of a walk
    and the most targets of a leaf; only the `comparisons` that nodes make are told apart."""
    y, place = node.output, temporary("place", DType.INT64, [])
    row, tree, target = over("row", x.shape[0]), over("tree", roots.shape[0]), over("target", y.shape[1])

    def column(n: Expr | int) -> Expr:
        return cast(load(nodes, current(place), n), DType.INT64)

    feature, split = load(x, row, column(2)), load(splits, current(place))
    tests = {mode: call(COMPARISONS[MODES[mode]], feature, split) for mode in comparisons}
    holds = tests.pop(comparisons[0])
    for mode, test in tests.items():
        holds = select(call("eq", column(0), mode), test, holds)
    holds = holds | (call("isnan", feature) & (column(1) > 0)) if tracks else holds
    step = store(place, [], column(select(holds, literal(3, DType.INT64), 4)))
    walk = each([over("step", depth)], step, until=call("eq", column(0), LEAF))

    entry = over("entry", longest)
    told = column(3) + entry
    total, weight = [row, cast(load(ids, told), DType.INT64)], load(weights, told)
    combine = {"MIN": "min", "MAX": "max"}.get(aggregate, "add")
    add = store(y, total, call(combine, current(y, total), weight))
    start = {"MIN": math.inf, "MAX": -math.inf}.get(aggregate, 0.0)
    own: Expr = current(y, [row, target])
    finished = own / max(int(roots.shape[0]), 1) if aggregate == "AVERAGE" else own
    finished = select(call("eq", own, start), 0, own) if start else finished  # no leaf spoke of it
    begin, end = (each([target], store(y, [row, target], number)) for number in (start, finished))
    root = store(place, [], cast(load(roots, tree), DType.INT64))
    return Procedure(
        (begin, each([tree], root, walk, each([entry], add, until=told >= column(4))), end), (place,), (row.axis,)
    )


# ---------------------------------------------------------------------- version 5


@becomes("TreeEnsemble", domain=DOMAIN)
def tree_ensemble(
    build: Builder, node: Node, x: Value, *, aggregate_function: int = 1, post_transform: int = 0, **_: Any
) -> Value:
    """In the type of the operand."""
    forest = _forest(node, node.attributes)
    targets = node.attributes.get("n_targets", max(forest.targets, default=0) + 1)
    forest.check(node, targets)
    scores = forest.build(build, features(build, node), targets, AGGREGATES[aggregate_function])
    scores = transformed(build, node, scores, TRANSFORMS[post_transform])
    return build("CastLike", scores, x)


def _forest(node: Node, attributes: dict[str, Any]) -> Forest:
    modes = attributes["nodes_modes"].reshape(-1).astype(int)
    tracks = attributes.get("nodes_missing_value_tracks_true") or [0] * len(modes)
    names = ("featureids", "truenodeids", "falsenodeids", "trueleafs", "falseleafs")
    looked_at, yes, no, *is_leaf = (np.asarray(attributes[f"nodes_{name}"]) for name in names)
    yes, no = (end + len(modes) * (leaf != 0) for end, leaf in zip((yes, no), is_leaf, strict=True))
    nodes = np.stack([modes, np.asarray(tracks) != 0, looked_at, yes, no], axis=1)
    nodes[yes == no, 2] = 0  # a tree of one leaf has a node that may look at anything
    splits, weights = (
        attributes[name].reshape(-1).astype(np.float64).tolist() for name in ("nodes_splits", "leaf_weights")
    )
    leaves = [[LEAF, 0, 0, place, place + 1] for place in range(len(weights))]
    forest = Forest(nodes.tolist() + leaves, splits + [0.0] * len(leaves), list(attributes["leaf_targetids"]), weights)
    forest.roots = list(attributes["tree_roots"])
    numbers = np.asarray(attributes.get("membership_values", ()), np.float64).reshape(-1)
    sets = np.split(numbers, np.flatnonzero(np.isnan(numbers)) + 1)  # each is ended by NaN
    places = np.flatnonzero(modes == MEMBER).tolist()
    if len(places) > len(sets) - (not len(sets[-1])):
        raise ModelError(f"{node.describe()}: membership_values has fewer sets than there are nodes that want one")
    for place, content in zip(places, sets, strict=False):
        forest.search(place, np.unique(content[~np.isnan(content)]).tolist())
    return forest


# ---------------------------------------------------------------------- versions 1 and 3


def _older(node: Node, kind: str) -> Forest:
    """The forest of a classifier or regressor, whose nodes are named by a tree's number and a node's in it."""
    attributes = node.attributes
    keys = list(zip(attributes["nodes_treeids"], attributes["nodes_nodeids"], strict=True))
    number = {key: place for place, key in enumerate(keys)}
    tracks = attributes.get("nodes_missing_value_tracks_true") or [0] * len(keys)
    columns = [attributes[f"nodes_{name}"] for name in ("modes", "featureids", "truenodeids", "falsenodeids")]
    nodes = []
    for (tree, _), track, mode, feature, *ends in zip(keys, tracks, *columns, strict=True):
        is_leaf, mode = mode == "LEAF", MODES.index(mode.removeprefix("BRANCH_"))
        places = [0 if is_leaf else number.get((tree, end), -1) for end in ends]
        nodes.append([mode if mode != MEMBER else -1, int(track != 0), feature, *places])
    forest = Forest(nodes, numbers(attributes, "nodes_values"))
    columns = [attributes[f"{kind}_{name}"] for name in ("treeids", "nodeids", "ids")]
    entries = zip(*columns, numbers(attributes, f"{kind}_weights"), strict=True)
    for tree, leaf, target, weight in sorted(entries, key=lambda entry: number.get(entry[:2], -1)):
        row = forest.nodes[number.get((tree, leaf), 0)]
        if row[0] != LEAF or (tree, leaf) not in number:
            raise ModelError(f"{node.describe()}: node {leaf} of tree {tree} has a weight, but is no leaf")
        row[3:] = [row[3] if row[4] else len(forest.targets), len(forest.targets) + 1]
        forest.targets.append(target)
        forest.weights.append(weight)
    below = {end for row in nodes if row[0] != LEAF for end in row[3:]}
    first = {tree: place for place, (tree, _) in reversed(list(enumerate(keys))) if place not in below}
    forest.roots = [first[tree] for tree in dict.fromkeys(attributes["nodes_treeids"]) if tree in first]
    return forest


def numbers(attributes: dict[str, Any], name: str) -> list[float]:
    """An attribute that may be a list or a tensor."""
    given = attributes.get(f"{name}_as_tensor")
    return list(attributes.get(name, ())) if given is None else given.reshape(-1).astype(np.float64).tolist()


@becomes("TreeEnsembleRegressor", domain=DOMAIN)
def tree_regressor(build: Builder, node: Node, *, aggregate_function: str = "SUM", n_targets: int = 0) -> Value:
    forest = _older(node, "target")
    targets = n_targets or max(forest.targets, default=0) + 1
    forest.check(node, targets)
    base = numbers(node.attributes, "base_values")
    return finished(build, node, forest.build(build, features(build, node), targets, aggregate_function, base))


@becomes("TreeEnsembleClassifier", domain=DOMAIN)
def tree_classifier(build: Builder, node: Node, *, post_transform: str = "NONE") -> list[Value]:
    """Scores of all classes. Where there are two and all leaves speak of the first, they mean the second, and the
    first's score follows: 1 - s of a probability, which it is if no leaf takes anything away, else -s."""
    forest, base = _older(node, "class"), numbers(node.attributes, "base_values")
    classes, used = max(len(labels_of(node, "classlabels_int64s")[0]), 1), set(forest.targets)
    forest.check(node, max(classes, 2))
    scores = forest.build(build, features(build, node), 1 if used == {0} else max(classes, 2), "SUM", base)
    if classes > 2 or len(used) != 1:
        places = build("ArgMax", scores, axis=1, keepdims=0)
    else:
        is_probability = all(weight >= 0 for weight in forest.weights)
        column = build("Slice", scores, [-1], [2], [1])
        places = is_above(build, column, 0.5 if is_probability else 0.0)
        if used == {0}:
            by_complement = post_transform == "PROBIT" or (post_transform == "NONE" and is_probability)
            scores = doubled(build, scores, by_complement=by_complement)
    labels = chosen_labels(build, node, "classlabels_int64s", places)
    return [labels, finished(build, node, scores)]
