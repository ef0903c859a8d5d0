"""Chains: kernels on many matrices that pass their results on matrix by matrix, as attention's do.

    before: s = MatMul (q, k)  p = Softmax (s)  y = MatMul (p, v)      all scores, then all shares, then all results
    after:  y = Chain (q, k, v)                                        these three for one matrix after the other

What passes between the kernels is one matrix at a time, in the scratch memory of the thread that computes it, where it
stays in the nearest caches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from partita.backends.cpu import packed_product
from partita.backends.cpu.kernel import members
from partita.backends.cpu.rows import rows_of
from partita.ir import dims
from partita.ir.expression import Index, Load, walk
from partita.ir.graph import Graph, Node, Value
from partita.ir.inference import infer_node
from partita.ir.operators import definition
from partita.ir.subgraph import fold
from partita.ir.types import DType

LARGEST = 1 << 18  # bytes of a matrix that passes between kernels: more would leave the cache anyway
ALIGNMENT = 64  # bytes


def chain(graph: Graph) -> None:
    """Folds the chains of a region, whose operators have been fused."""
    for group in list(_groups(graph)):
        infer_node(fold(graph, group, "Chain", {}))


def is_chain(node: Node) -> bool:
    return node.domain == "partita" and node.op_type == "Chain"


def links(node: Node) -> list[Node]:
    """The nodes of a chain, in order."""
    body: Graph = node.attributes["body"]
    return body.nodes


def _groups(graph: Graph) -> Iterable[list[Node]]:
    taken: set[Node] = set()
    for node in graph.nodes:
        if node in taken or not _is_product(node):
            continue
        group = [node]
        while (follower := _follower(graph, group[-1].output)) is not None:
            group.append(follower)
        if len(group) > 1:
            taken.update(group)
            yield group


def _follower(graph: Graph, value: Value) -> Node | None:
    """Who alone reads `value`, if it does so matrix by matrix."""
    consumers = graph.consumers(value)
    if len(consumers) != 1 or graph.is_output(value) or _matrix_bytes(value) > LARGEST:
        return None
    (consumer,) = consumers
    if not consumer.outputs or not dims.same_shape(consumer.output.shape[:-2], value.shape[:-2]):
        return None
    if _is_product(consumer):
        product = members(consumer)[0]
        position = list(consumer.operands).index(value)
        return consumer if any(_stands_for(consumer, operand) == position for operand in product.operands) else None
    return consumer if _keeps_rows(consumer, value) else None


def _stands_for(node: Node, inner: Value) -> int:
    """Which operand of `node` a member's operand is; -1 if none."""
    body = node.attributes.get("body")
    outer = list(body.inputs) if isinstance(body, Graph) else list(node.operands)
    return outer.index(inner) if inner in outer else -1


def _is_product(node: Node) -> bool:
    """Whether a kernel computes one matrix a step, of known sizes, each by right factors of its own."""
    first = members(node)[0]
    if not packed_product.is_product(first) or not packed_product.is_by_matrix(first):
        return False
    values = [*node.operands, *node.outputs]
    return len(node.outputs) == 1 and all(dims.all_static(value.shape) for value in values)


def _keeps_rows(node: Node, value: Value) -> bool:
    """Whether a kernel of rows computes each row from the same row of `value`, the only operand that it reads."""
    rows = rows_of(node)
    if rows is None or len(node.outputs) != 1:
        return False
    if rows.inner != (len(value.shape) - 1,) or not dims.same_shape(node.output.shape, value.shape):
        return False
    for member in members(node):
        operator = definition(member)
        assert operator is not None
        (computation,) = operator.computations(member)
        for part in walk(computation.body):
            if not isinstance(part, Load):
                continue
            if len(part.value.shape) != len(value.shape):
                return False
            operand = _stands_for(node, part.value)
            is_own = all(
                index == Index(axis) or axis.extent == 1
                for axis, index in zip(computation.axes[:-1], part.indices[:-1], strict=True)
            )
            if (operand >= 0 and node.operands[operand] is not value) or not is_own:
                return False
    return node.output.tensor.dtype is DType.FLOAT32


# ---------------------------------------------------------------------- where things lie


@dataclass(frozen=True, slots=True)
class Scratch:
    """The scratch memory of a chain, in bytes: where each value that passes on lies, then what its kernels need."""

    offsets: dict[Value, int]
    kernels: int
    bytes: int


def scratch(node: Node) -> Scratch:
    offsets: dict[Value, int] = {}
    end = 0
    for link in links(node)[:-1]:
        offsets[link.output] = end
        end += -(-_matrix_bytes(link.output) // ALIGNMENT) * ALIGNMENT
    needed = [packed_product.workspace(members(link)[0]) for link in links(node) if _is_product(link)]
    return Scratch(offsets, end, end + max(int(size) for size in needed))


def _matrix_bytes(value: Value) -> int:
    return int(dims.product(value.shape[-2:])) * value.tensor.dtype.itemsize


def matrices(node: Node) -> tuple[int, ...]:
    """How many matrices there are, by the leading axes."""
    return tuple(int(dim) for dim in node.output.shape[:-2])


def place(value: Value, lead: tuple[int, ...], names: list[str]) -> str:
    """Where the part of `value` for one matrix begins, in elements, in C: `names` are the leading axes' indices. Axes
    of size one, or that the value lacks, are the same for all matrices."""
    shape = [int(dim) for dim in value.shape]
    missing = len(lead) + 2 - len(shape)
    terms = []
    for axis, name in enumerate(names):
        own = axis - missing
        if own >= 0 and shape[own] != 1:
            step = int(dims.product(shape[own + 1 :]))
            terms.append(name if step == 1 else f"{name} * {step}")
    return " + ".join(terms) or "0"
