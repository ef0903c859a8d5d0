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
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

import numpy as np

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.expression import Expr, call, literal
from partita.ir.formula import cast, load, over, select
from partita.ir.graph import Node, Value
from partita.ir.operators.internal import DOMAIN as OWN
from partita.ir.operators.internal import observe
from partita.ir.operators.ml import DOMAIN, TRANSFORMS, classified, doubled, features, finished, labels_of
from partita.ir.procedure import Procedure, current, each, procedure, store, temporary
from partita.ir.registry import becomes, infers, performs
from partita.ir.types import DType, TensorType

COMPARISONS = {"LEQ": "le", "LT": "lt", "GTE": "ge", "GT": "gt", "EQ": "eq", "NEQ": "ne"}
MODES = (*COMPARISONS, "MEMBER", "LEAF")
LT, EQ, MEMBER, LEAF = map(MODES.index, ("LT", "EQ", "MEMBER", "LEAF"))
AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")

Table = np.ndarray[Any, np.dtype[Any]]


@dataclass(slots=True)
class Forest:
    """The tables; nodes are numbered in any order."""

    nodes: Table
    splits: Table
    targets: Table
    weights: Table
    roots: Table

    @property
    def branches(self) -> Table:
        return np.compress(self.nodes[:, 0] != LEAF, self.nodes, axis=0)

    def check(self, node: Node, targets: int) -> None:
        """`ModelError` unless every walk stays inside."""
        count, (modes, _, features, *ends) = len(self.nodes), self.branches.T
        for holds, problem in (
            (_are_below(targets, self.targets), f"a leaf adds to none of {targets} targets"),
            (len(self.splits) == count, "its attributes speak of different numbers of nodes"),
            (len(self.targets) == len(self.weights), "its attributes speak of different numbers of leaves"),
            (_are_below(count, *ends, self.roots), f"a tree goes on where none of {count} nodes is"),
            (_are_below(LEAF, modes), "a node has a mode that ONNX does not know"),
            ((features >= 0).all(), "a node looks at a feature before the first"),
        ):
            if not holds:
                raise ModelError(f"{node.describe()}: {problem}")

    def depth(self) -> int:
        """Nodes of the longest walk; `ValueError` where one does not end."""
        below = {place: row[3:] for place, row in enumerate(self.nodes.tolist()) if row[0] != LEAF}
        depth: dict[int, int] = {}
        for place in TopologicalSorter(below).static_order():
            depth[place] = 1 + max((depth[end] for end in below.get(place, ())), default=0)
        return max(depth.values(), default=1)

    def scores(self, build: Builder, node: Node, targets: int, aggregate: str) -> Value:
        """The operator on the features [N, F] of a node: float or double [N, targets], as many as leaves speak of where
        `targets` is 0."""
        targets = targets or 1 + int(self.targets.max(initial=0))
        self.check(node, targets)
        x, base, branches = features(build, node), numbers(node, "base_values"), self.branches
        leaves, used = self.nodes[self.nodes[:, 0] == LEAF], 1 + int(branches[:, 2].max(initial=-1))
        if not dims.is_static(x.shape[1]):
            width = build("Shape", x, start=1)
            fits = build("GreaterOrEqual", width, [used])
            width = observe(build, width, fits, f"trees look at {used} features, but there are fewer")
            x = build("Reshape", x, build("Concat", build("Shape", x, end=1), width, axis=0), allowzero=1)
        elif x.shape[1] < used:
            raise ShapeError(f"{build.prefix}: trees look at {used} features, but there are {x.shape[1]}")
        nodes, ids, roots = (build.constant(table, DType.INT32) for table in (self.nodes, self.targets, self.roots))
        splits, weights = (build.constant(table, x.tensor.dtype) for table in (self.splits, self.weights))
        scores = build(
            "TreeEnsemble", x, nodes, splits, ids, weights, roots,
            domain=OWN,
            targets=targets,
            aggregate=aggregate,
            depth=self.depth(),
            longest=int((leaves[:, 4] - leaves[:, 3]).max(initial=0)),
            comparisons=tuple(np.unique(branches[:, 0]).tolist()) or (0,),
            tracks=int(branches[:, 1].any()),
        )  # fmt: skip
        return build("Add", scores, base) if len(base) else scores


def _are_below(limit: int, *places: Table) -> bool:
    return all(((table >= 0) & (table < limit)).all() for table in places)


infers("TreeEnsemble", domain=OWN)(lambda node, x, *, targets: TensorType(x.tensor.dtype, (x.shape[0], targets)))


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
    leaf = each([entry], add, until=told >= column(4))
    return procedure(begin, each([tree], root, walk, leaf), end, rows=[row])


# ---------------------------------------------------------------------- attributes


def numbers(node: Node, name: str) -> Table:
    """An attribute that may be a list or a tensor; empty, where it is absent."""
    given = node.attributes.get(f"{name}_as_tensor", node.attributes.get(name, ()))
    return np.asarray(given, np.float64).reshape(-1)


def table_of(node: Node, modes: Table, yes: Table, no: Table) -> Table:
    tracks = node.attributes.get("nodes_missing_value_tracks_true") or np.zeros(len(modes))
    features = node.attributes["nodes_featureids"]
    return np.stack([modes, np.not_equal(tracks, 0), features, yes, no], axis=1).astype(np.int64)


def _newer(node: Node) -> Forest:
    """The forest of version 5, whose leaves have a table of their own."""
    modes, weights = numbers(node, "nodes_modes"), numbers(node, "leaf_weights")
    yes, no = (
        np.asarray(node.attributes[f"nodes_{side}nodeids"]) + len(modes) * (numbers(node, f"nodes_{side}leafs") != 0)
        for side in ("true", "false")
    )
    branches = table_of(node, modes, yes, no)
    branches[yes == no, 2] = 0  # a tree of one leaf has a node that may look at anything
    nodes = [*branches.tolist(), *([LEAF, 0, 0, place, place + 1] for place in range(len(weights)))]
    splits = [*numbers(node, "nodes_splits").tolist(), *(0.0 for _ in weights)]
    values = numbers(node, "membership_values")
    sets = np.split(values, np.flatnonzero(np.isnan(values)) + 1)  # each is ended by NaN
    places = np.flatnonzero(modes == MEMBER).tolist()
    if len(places) > len(sets) - (not len(sets[-1])):
        raise ModelError(f"{node.describe()}: membership_values has fewer sets than there are nodes that want one")
    for place, content in zip(places, sets, strict=False):
        _search(nodes, splits, place, np.unique(content[~np.isnan(content)]).tolist())
    targets, roots = (np.asarray(node.attributes[name]) for name in ("leaf_targetids", "tree_roots"))
    return Forest(np.reshape(nodes, (-1, 5)), np.asarray(splits), targets, weights, roots)


def _search(nodes: list[list[int]], splits: list[float], place: int, content: Sequence[float]) -> None:
    """Whether a feature is one of sorted numbers, as comparisons from the node at `place` on."""
    _, *same = nodes[place]
    if len(content) < 2:
        nodes[place], splits[place] = [EQ, *same], content[0] if content else math.nan
        return
    first, middle = len(nodes), len(content) // 2
    nodes[place], splits[place] = [LT, *same[:2], first, first + 1], content[middle]
    nodes += [[EQ, *same], [EQ, *same]]
    splits += [0.0, 0.0]
    _search(nodes, splits, first, content[:middle])
    _search(nodes, splits, first + 1, content[middle:])


def _older(node: Node, kind: str) -> Forest:
    """The forest of a classifier or regressor, whose nodes are named by a tree's number and a node's in it."""
    trees, names, yes, no, modes = (
        node.attributes[f"nodes_{name}"] for name in ("treeids", "nodeids", "truenodeids", "falsenodeids", "modes")
    )
    number = {name: place for place, name in enumerate(zip(trees, names, strict=True))}

    def places(trees: Sequence[int], names: Sequence[int]) -> Table:
        return np.array([number.get(name, -1) for name in zip(trees, names, strict=True)], int)

    modes = np.array([MODES.index(mode.removeprefix("BRANCH_")) for mode in modes], int)
    modes[modes == MEMBER] = -1  # which these do not know
    leaf_trees, leaves, ids = (node.attributes[f"{kind}_{name}"] for name in ("treeids", "nodeids", "ids"))
    own = places(leaf_trees, leaves)
    for wrong in np.flatnonzero((own < 0) | (modes[own] != LEAF))[:1]:
        what = f"node {leaves[wrong]} of tree {leaf_trees[wrong]}"
        raise ModelError(f"{node.describe()}: {what} has a weight, but is no leaf")
    entries = np.stack([own, ids, numbers(node, f"{kind}_weights")])
    own, targets, weights = entries[:, np.argsort(own, kind="stable")]  # those of a leaf are beside each other
    ranges = [np.searchsorted(own, np.arange(len(modes)), side) for side in ("left", "right")]
    nodes = table_of(node, modes, *np.where(modes == LEAF, ranges, [places(trees, yes), places(trees, no)]))
    starts = np.setdiff1d(np.arange(len(modes)), nodes[modes != LEAF, 3:])
    _, first = np.unique(np.asarray(trees)[starts], return_index=True)
    return Forest(nodes, numbers(node, "nodes_values"), targets, weights, starts[first])


# ---------------------------------------------------------------------- operators


@becomes("TreeEnsemble", domain=DOMAIN)
def tree_ensemble(
    build: Builder, node: Node, x: Value, *, aggregate_function: int = 1, post_transform: int = 0, n_targets: int = 0
) -> Value:
    """In the type of the operand."""
    scores = _newer(node).scores(build, node, n_targets, AGGREGATES[aggregate_function])
    return build("CastLike", [*TRANSFORMS.values()][post_transform](build, scores), x)


@becomes("TreeEnsembleRegressor", domain=DOMAIN)
def tree_regressor(build: Builder, node: Node, *, aggregate_function: str = "SUM", n_targets: int = 0) -> Value:
    return finished(build, node, _older(node, "target").scores(build, node, n_targets, aggregate_function))


@becomes("TreeEnsembleClassifier", domain=DOMAIN)
def tree_classifier(build: Builder, node: Node, *, post_transform: str = "NONE") -> list[Value]:
    """Scores of all classes. Where there are two and all leaves speak of the first, they mean the second, and the
    first's score follows: 1 - s of a probability, which it is if no leaf takes anything away, else -s."""
    forest, classes = _older(node, "class"), max(len(labels_of(node)), 2)
    used = set(forest.targets.tolist())
    scores = votes = forest.scores(build, node, 1 if used == {0} else classes, "SUM")
    if classes == 2 and len(used) == 1:
        is_probability = bool((forest.weights >= 0).all())
        votes = doubled(build, build("Slice", scores, [-1], [2], [1]), by_complement=is_probability)
        if used == {0}:
            by_complement = post_transform == "PROBIT" or (post_transform == "NONE" and is_probability)
            scores = doubled(build, scores, by_complement=by_complement)
    return classified(build, node, scores, votes)
