"""Which kernel runs a node: convolutions and pools on blocked tensors, matrix products, or its expression's loops."""

from __future__ import annotations

from partita.backends.cpu import (
    blocked_convolution,
    blocked_windows,
    chains,
    contraction,
    packed_product,
    procedures,
    routines,
    strassen_product,
    winograd,
)
from partita.backends.cpu.blocked_operators import is_blocked_kernel, is_packed_product, is_pool
from partita.backends.cpu.generic import generic_kernel
from partita.backends.cpu.kernel import Kernel, KernelWriter, members
from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.graph import Node


def is_kernel(node: Node) -> bool:
    """Whether more than loops from its expression runs `node`; such a kernel starts a fused group."""
    return is_blocked_kernel(node) or _is_product(node) or contraction.is_kernel(node)


def _is_product(node: Node) -> bool:
    return is_packed_product(node) or packed_product.is_product(node)


def takes_epilogue(kernel: Node, node: Node) -> bool:
    """Whether `node`, pointwise on the kernel's result, may be computed in the kernel's store: its other operands vary
    with all pixels of the image, or with none."""
    if _is_product(kernel):
        return packed_product.takes_epilogue(kernel, node)
    if not is_blocked_kernel(kernel):
        return contraction.takes_epilogue(kernel, node)
    image = kernel.output.shape[2:4]
    for value in node.operands:
        padded = (1,) * (5 - len(value.shape)) + tuple(value.shape)
        unit = all(dims.is_static(dim) and dim == 1 for dim in padded[2:4])
        if not unit and not dims.same_shape(padded[2:4], image):
            return False
    return True


def workspace(node: Node) -> Dim:
    """Bytes of scratch memory that the kernel of `node` needs."""
    if chains.is_chain(node):
        return chains.scratch(node).bytes
    first = members(node)[0]
    if first.op_type == "WinogradConv":
        return winograd.workspace(first)
    if first.op_type == "StrassenMatMul":
        return strassen_product.workspace(first)
    if is_blocked_kernel(first):
        return blocked_convolution.workspace(first)
    if packed_product.is_product(first):
        return packed_product.workspace(first)
    procedure = procedures.procedure_of(node)
    if procedure is not None:
        return procedures.workspace(procedure)
    return contraction.workspace(node) if contraction.is_kernel(first) else 0


def write_kernel(node: Node, writer: KernelWriter) -> Kernel:
    """The kernel of a node, or of a fused group."""
    first = members(node)[0]
    if first.op_type == "WinogradConv":
        return winograd.WinogradKernel(node, writer).write()
    if first.op_type == "BlockedDepthwiseConv":
        return blocked_windows.DepthwiseKernel(node, writer).write()
    if is_pool(first):
        return blocked_windows.PoolKernel(node, writer).write()
    if first.op_type == "GatheredConv":
        return blocked_convolution.GatheredKernel(node, writer).write()
    if is_blocked_kernel(first):
        return blocked_convolution.DirectKernel(node, writer).write()
    if first.op_type == "StrassenMatMul":
        return strassen_product.StrassenKernel(node, writer).write()
    if is_packed_product(first):
        return packed_product.ProductKernel(node, writer).write()
    if packed_product.is_product(first):
        return packed_product.RunTimeProductKernel(node, writer).write()
    if contraction.is_kernel(first):
        return contraction.contraction_kernel(node, writer)
    procedure = procedures.procedure_of(node)
    if procedure is not None:
        return procedures.procedure_kernel(procedure, writer)
    routine = routines.routine_of(node)
    if routine is not None:
        return routines.routine_kernel(node, routine, writer)
    return generic_kernel(node, writer)
