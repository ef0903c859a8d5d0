"""Fuse: neighbouring operators become one kernel, so that what passes between them never reaches memory.

    before: model (float[2, 3] x, float[2, 3] y) => (float[3, 2] t) {
                s = Add (x, y)
                r = Relu (s)
                t = Transpose (r)
            }
    after:  model (float[2, 3] x, float[2, 3] y) => (float[3, 2] t) {
                t = partita.t (x, y)
            }
            <domain: "partita">
            t (x, y) => (t) {
                s = Add (x, y)
                r = Relu (s)
                t = Transpose (r)
            }

What may join is read off the operators' expressions, not off their names:
- a node that reads a group at its own indices (pointwise) joins it, if the shapes agree;
- a node that only moves elements takes its producer's expression in, if nobody else wants the result;
- a reduction joins what computes its operand, and what is pointwise over the same rows joins it (softmax, layer
  normalization);
- a kernel of the backend (convolution, matrix product) takes pointwise users in as its epilogue, and what branches
  from its result if it comes together again.
What depends on parameters alone stays as it is: it will leave for the bind program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.expression import Call, Computation, Expr, Index, Literal, Reduce, loads, walk
from partita.ir.graph import Graph, Node, Value
from partita.ir.inference import infer_node
from partita.ir.operators import definition
from partita.ir.subgraph import depends_on_parameters, fold
from partita.ir.types import TensorType
from partita.passes.grouping import Group, Grouping

CHEAP = frozenset("add sub mul div neg abs max min select eq ne lt le gt ge logical_and logical_or logical_not".split())


NEARBY = 8  # nodes between a kernel and where its readers come together again


@dataclass(frozen=True, slots=True)
class Fusion:
    """What a backend allows. `is_kernel`: it has a kernel for this node, which runs alone or takes an epilogue;
    `takes_epilogue(kernel, node)`: the node, pointwise on the kernel's result, may be computed in the kernel's store;
    `is_loop`: the node may be printed as loops."""

    is_kernel: Callable[[Node], bool]
    takes_epilogue: Callable[[Node, Node], bool]
    is_loop: Callable[[Node], bool]


@dataclass(slots=True)
class _Label:
    """What a group computes over: loops over `domain`, rows of which are reduced over `reduced` axes."""

    kind: str  # "kernel", "loops", "window" (a reduction inside each element), "alone"
    domain: tuple[Dim, ...]
    reduced: tuple[int, ...] | None = None


def fuse(graph: Graph, fusion: Fusion) -> bool:
    """Folds every group of more than one node into a node of type `Fused`."""
    groups = _Fuser(graph, fusion).groups()
    folded = [group for group in groups if len(group.nodes) > 1]
    for group in folded:
        infer_node(fold(graph, group.nodes, "Fused", {}))
    return bool(folded)


class _Fuser:
    def __init__(self, graph: Graph, fusion: Fusion) -> None:
        self.graph = graph
        self.fusion = fusion
        self.grouping: Grouping[_Label] = Grouping(graph)
        self.branches: dict[Node, Group[_Label]] = {}  # nodes that will join a kernel together

    def groups(self) -> list[Group[_Label]]:
        for node in self.graph.nodes:
            self._place(node)
        return self.grouping.groups()

    def _place(self, node: Node) -> None:
        if all(depends_on_parameters(value) for value in node.operands):
            self.grouping.open(node, _Label("alone", ()))  # it runs when weights are bound
            return
        label, computation = self._label(node)
        for group in self.grouping.before(node):
            joined = None if computation is None else self._joined(group, node, label, computation)
            if joined is not None and self.grouping.may_join(node, group):
                self.grouping.join(node, group)
                group.label = joined
                self._unite_around(node, group)
                return
        self.grouping.open(node, label)

    def _label(self, node: Node) -> tuple[_Label, Computation | None]:
        if self.fusion.is_kernel(node):
            return _Label("kernel", node.output.shape), None
        operator = definition(node)
        if operator is None or operator.compute is None or len(node.outputs) != 1 or not self.fusion.is_loop(node):
            shape = node.output.type.shape if isinstance(node.output.type, TensorType) else None
            return _Label("alone", shape or ()), None
        (computation,) = operator.computations(node)
        if not any(isinstance(e, Reduce) for e in walk(computation.body)):
            return _Label("loops", computation.shape), computation
        axes = row_reduction(node, computation)
        if axes is None:
            return _Label("window", computation.shape), computation
        return _Label("loops", node.operand(0).shape, axes), computation

    def _unite_around(self, node: Node, group: Group[_Label]) -> None:
        """Takes in the other groups that `node` reads from, where they compute over the same elements."""
        for other in self.grouping.before(node):
            fits = other is not group and other.label.kind == group.label.kind == "loops"
            fits = fits and dims.same_shape(other.label.domain, group.label.domain)
            fits = fits and other.label.reduced in (None, group.label.reduced)
            if fits and self._are_aligned(other, group) and self.grouping.may_unite(other, group):
                self.grouping.unite(other, group)

    def _are_aligned(self, first: Group[_Label], second: Group[_Label]) -> bool:
        """Whether what passes between two groups is read element by element, so that each is computed once."""
        for reader in (*first.nodes, *second.nodes):
            label, computation = self._label(reader)
            for value in reader.operands:
                group = first if reader in second.nodes else second
                if value.producer not in group.nodes:
                    continue
                if computation is None or not is_pointwise(computation, value, label.reduced is not None):
                    return False
        return True

    def _joined(self, group: Group[_Label], node: Node, label: _Label, computation: Computation) -> _Label | None:
        """What the group would compute with `node` in it; None where `node` may not join."""
        read = [value for value in dict.fromkeys(node.operands) if value.producer in group.nodes]
        at_identity = all(is_pointwise(computation, value, label.reduced is not None) for value in read)
        if group.label.kind == "kernel":
            return self._as_epilogue(group, node, label, read) if at_identity else None
        if group.label.kind == "alone" or label.kind == "window":
            return None
        rows = group.label.reduced
        if at_identity and label.reduced is not None:
            same = dims.same_shape(label.domain, group.label.domain) and rows in (None, label.reduced)
            return label if same and group.label.kind == "loops" else None
        if at_identity and self._covers(group.label, label.domain):
            return group.label
        inlined = group.label.kind == "loops" and rows is None and self._is_private(group, node)
        if not inlined or (_reads_repeatedly(label, group.label) and not _is_cheap_group(group)):
            return None
        return label

    def _as_epilogue(self, group: Group[_Label], node: Node, label: _Label, read: Sequence[Value]) -> _Label | None:
        if self.branches.get(node) is group:
            return group.label
        if not self._fits_epilogue(group, node, label):
            return None
        if len(read) == 1 and self._is_private(group, node):
            return group.label
        branches = self._reconverging(group, node)
        self.branches.update(dict.fromkeys(branches, group))
        return group.label if branches else None

    def _fits_epilogue(self, group: Group[_Label], node: Node, label: _Label) -> bool:
        if label.kind != "loops" or label.reduced is not None or not dims.same_shape(label.domain, group.label.domain):
            return False
        return self.fusion.takes_epilogue(group.nodes[0], node)

    def _reconverging(self, group: Group[_Label], node: Node) -> list[Node]:
        """The nodes between a kernel's result and the one node where all that is computed from it comes together
        again, as in x * sigmoid(x): they join as one. Empty where there is no such node nearby."""
        members: list[Node] = []
        values = set(group.nodes[-1].outputs)
        pending = [node]
        while pending and len(members) < NEARBY:
            current = min(pending, key=self.grouping.place)
            label, computation = self._label(current)
            read = [value for value in dict.fromkeys(current.operands) if value in values]
            if computation is None or not all(is_pointwise(computation, value) for value in read):
                return []
            others = [value for value in current.operands if value not in values]
            if not self._fits_epilogue(group, current, label) or not self.grouping.is_before(others, group):
                return []
            members.append(current)
            values.update(current.outputs)
            escaping = [v for v in values if self._escapes(v, {*group.nodes, *members})]
            if escaping == [current.output]:
                return members
            pending = [user for value in escaping for user in self.graph.consumers(value) if user not in members]
        return []

    def _escapes(self, value: Value, inside: set[Node]) -> bool:
        return self.graph.is_output(value) or any(user not in inside for user in self.graph.consumers(value))

    @staticmethod
    def _covers(label: _Label, shape: Sequence[Dim]) -> bool:
        """Whether `shape` is the group's domain, or its rows' (1 along the reduced axes)."""
        if dims.same_shape(shape, label.domain):
            return True
        if label.reduced is None:
            return False
        rows = [1 if axis in label.reduced else dim for axis, dim in enumerate(label.domain)]
        return dims.same_shape(shape, rows)

    def _is_private(self, group: Group[_Label], node: Node) -> bool:
        """Whether nobody outside reads the group's results but `node`."""
        inside = {*group.nodes, node}
        return all(
            not self.graph.is_output(output) and all(user in inside for user in self.graph.consumers(output))
            for member in group.nodes
            for output in member.outputs
        )


def row_reduction(node: Node, computation: Computation) -> tuple[int, ...] | None:
    """The axes over which a node reduces its first operand, keeping the rank; None when it does something else."""
    source = node.operand(0)
    if not node.op_type.startswith("Reduce") or len(source.shape) != len(computation.axes):
        return None
    axes = [axis for e in walk(computation.body) if isinstance(e, Reduce) for axis in e.axes]
    places = [
        position
        for load in loads(computation.body)
        if load.value is source
        for position, index in enumerate(load.indices)
        if isinstance(index, Index) and index.axis in axes
    ]
    return tuple(sorted(set(places))) or None


def is_pointwise(computation: Computation, value: Value, reduces: bool = False) -> bool:
    """Whether every load of `value` is at the result's own indices (0 where broadcast). A reduction reads each element
    of its operand once."""
    if reduces:
        return True
    axes = computation.axes
    for load in loads(computation.body):
        if load.value is not value:
            continue
        aligned = axes[len(axes) - len(load.indices) :] if len(load.indices) <= len(axes) else ()
        if len(aligned) != len(load.indices):
            return False
        for index, axis, dim in zip(load.indices, aligned, value.shape, strict=True):
            own = isinstance(index, Index) and index.axis is axis
            unit = isinstance(index, Literal) and dims.is_static(dim) and dim == 1
            if not own and not unit:
                return False
    return True


def _reads_repeatedly(reader: _Label, group: _Label) -> bool:
    return not dims.same(dims.product(reader.domain), dims.product(group.domain))


def _is_cheap_group(group: Group[_Label]) -> bool:
    return all(
        is_cheap(computation.body)
        for node in group.nodes
        if (operator := definition(node)) is not None
        for computation in operator.computations(node)
    )


def is_cheap(expression: Expr) -> bool:
    """Whether computing an element again costs no more than loading it."""
    return not any(
        isinstance(e, Reduce) or (isinstance(e, Call) and e.function not in CHEAP and e.dtype.is_float)
        for e in walk(expression)
    )
