"""The order of nodes in a message: which names a node reads, and an order that computes before it reads."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import onnx

GRAPH = onnx.AttributeProto.GRAPH


def free_names(proto: onnx.GraphProto) -> list[str]:
    """Names that a subgraph reads from outside, in order of first use."""
    own = {info.name for info in proto.input} | {tensor.name for tensor in proto.initializer}
    own |= {sparse.values.name for sparse in proto.sparse_initializer}
    own |= {name for node in proto.node for name in node.output}
    free = [name for node in proto.node for name in reads(node)] + [info.name for info in proto.output]
    return [name for name in dict.fromkeys(free) if name and name not in own]


def reads(proto: onnx.NodeProto) -> list[str]:
    """What a node reads: its operands, and what its subgraphs capture."""
    inner = [name for a in proto.attribute if a.type == GRAPH for name in free_names(a.g)]
    return [name for name in [*proto.input, *inner] if name]


def sorted_nodes(
    protos: Sequence[onnx.NodeProto], scope: Mapping[str, object], problems: list[str]
) -> list[onnx.NodeProto]:
    """The nodes in an order that computes before it reads: the given one where it does. Cycles are problems."""
    producers = {name: index for index, proto in enumerate(protos) for name in proto.output if name}
    names = [reads(proto) for proto in protos]
    wanted = [
        list(dict.fromkeys(producers[name] for name in row if name in producers and name not in scope)) for row in names
    ]
    if all(other < index for index, row in enumerate(wanted) for other in row):
        return list(protos)
    order, cycle = _depth_first(wanted)
    if cycle:
        steps = [protos[index].name or protos[index].op_type for index in cycle]
        problems.append(f"the graph has a cycle: {' -> '.join(map(repr, [*steps, steps[0]]))}")
    else:
        warnings.warn("the nodes of the model are not sorted; they were put in order", stacklevel=2)
    return [protos[index] for index in order]


def _depth_first(wanted: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Indices with what they want before them, and a cycle where there is one."""
    state = [0] * len(wanted)  # 0 new, 1 open, 2 done
    order: list[int] = []
    for root in range(len(wanted)):
        stack = [root] if not state[root] else []
        while stack:
            index = stack[-1]
            state[index] = max(state[index], 1)
            waiting = [other for other in wanted[index] if state[other] != 2]
            circular = next((other for other in waiting if state[other] == 1), None)
            if circular is not None:
                opened = [other for other in stack if state[other] == 1]
                return order, opened[opened.index(circular) :]
            if waiting:
                stack.append(waiting[0])
            else:
                state[index] = 2
                order.append(stack.pop())
    return order, []
