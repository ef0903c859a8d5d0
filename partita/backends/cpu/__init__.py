"""The host: C for every operator that has an expression, with kernels for those worth one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from partita.backends.base import Accept, Backend, Claim, Reject
from partita.backends.cpu import kernels, lower
from partita.backends.cpu.emit import emit_module
from partita.backends.cpu.kernel import body_of, members
from partita.backends.cpu.rows import rows_of
from partita.backends.cpu.target import target_of
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import is_control
from partita.ir.operators import definition
from partita.ir.operators.sequences import has_lists
from partita.ir.region import Region
from partita.ir.types import DType, TensorType
from partita.passes.fuse import is_pointwise
from partita.passes.plan_memory import MemoryPlan
from partita.runtime import CSourceModule


class CpuBackend(Backend):
    """Generated C on the machine that runs the module."""

    name = "cpu"

    def claims(self, node: Node) -> Claim:
        problem = lower.unsupported(node)
        return Accept() if problem is None else Reject(problem)

    def lower(self, body: Graph) -> None:
        lower.lower(body, target_of(self.mcpu), self.fast_math)

    def views(self, node: Node) -> Mapping[int, int]:
        return {0: 0} if is_view(node) else {}

    def in_place(self, node: Node) -> Mapping[int, int]:
        """A kernel of loops may write over an operand that it reads at its own indices only; one of rows may have
        written to its output before."""
        if is_view(node) or is_control(node) or has_lists(node) or kernels.is_kernel(members(node)[0]) or rows_of(node):
            return {}
        body = body_of(node)
        values = list(node.operands)
        inner = dict(zip(body.inputs, values, strict=True)) if body is not None else {v: v for v in values}
        outputs = body.outputs if body is not None else node.outputs
        if len(outputs) != 1:
            return {}
        for place, value in enumerate(values):
            same = dims.same_shape(value.shape, node.output.shape) and value.tensor.dtype is node.output.tensor.dtype
            read = [v for v, outer in inner.items() if outer is value]
            if same and value.parameter is None and all(_reads_own_element(node, v) for v in read):
                return {0: place}
        return {}

    def parts(self, node: Node) -> Sequence[int]:
        """Of Concat, where no axis before the one that is joined has other operands' elements in between."""
        if (node.domain, node.op_type) != ("", "Concat") or not dims.all_static(node.output.shape):
            return ()
        axis = int(node.attributes["axis"]) % len(node.output.shape)
        sizes = [int(dims.product(value.shape)) * value.tensor.dtype.itemsize for value in node.operands]
        return (
            [sum(sizes[:place]) for place in range(len(sizes))] if dims.product(node.output.shape[:axis]) == 1 else ()
        )

    def workspace(self, node: Node) -> Dim:
        return kernels.workspace(node)

    def emit(self, regions: Sequence[Region], plan: MemoryPlan) -> CSourceModule:
        return emit_module(self.name, regions, plan, target_of(self.mcpu), is_view)


def _reads_own_element(node: Node, value: Value) -> bool:
    """Whether a kernel reads `value` only where it then writes its result: nothing that is made of it moves."""
    made = {value}
    for member in members(node):
        operator = definition(member)
        if operator is None or operator.compute is None or len(member.outputs) != 1:
            return False
        (computation,) = operator.computations(member)
        read = made.intersection(member.operands)
        if not dims.same_shape(computation.shape, node.output.shape):
            return False
        if not all(is_pointwise(computation, each) for each in read):
            return False
        made.update(member.outputs if read else ())
    return True


def is_view(node: Node) -> bool:
    """Whether a node's result is its operand under another shape."""
    operator = definition(node)
    if operator is None or not operator.is_view or body_of(node) is not None:
        return False
    # A table's strings are packed: what is handed out is made from them.
    return not isinstance(node.output.type, TensorType) or node.output.type.dtype is not DType.STRING


BACKEND: Callable[[], Backend] = CpuBackend
