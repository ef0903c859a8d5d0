"""Packing of matrix products: right operands that are known when weights are bound go into the tiles' layout then.

    before: y = Gemm <transB = 1> (x, w, c)
    after:  p = PackedMatMul (x, packed w); y = Add (p, c)

The left operand may have any number of rows, one known at run time too. What a Gemm adds becomes the kernel's epilogue
again when operators are fused. Where the user allows it, large products are Strassen's (`strassen.py`).
"""

from __future__ import annotations

from partita.backends.cpu import strassen
from partita.backends.cpu.blocked_operators import DOMAIN, block_count
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node, Value
from partita.ir.subgraph import depends_on_parameters
from partita.ir.types import DType

FEW = 4  # rows: below, a tile has more blocks of columns, so that there are sums enough to overlap


def pack_products(graph: Graph, block: int, fast_math: frozenset[str] = frozenset()) -> bool:
    """Rewrites the products of a region in place, for blocks of `block` columns."""
    packable = [node for node in graph.nodes if _is_packable(node)]
    for node in packable:
        graph.replace_node(node, [_packed(graph, node, block, "strassen" in fast_math)])
    return bool(packable)


def _is_packable(node: Node) -> bool:
    if node.domain or node.op_type not in ("MatMul", "Gemm"):
        return False
    a, b = node.operand(0), node.operand(1)
    if len(a.shape) < 2 or len(b.shape) != 2 or node.output.tensor.dtype is not DType.FLOAT32:
        return False
    known = all(dims.is_static(dim) and dim > 0 for dim in b.shape) and not dims.same(dims.product(a.shape), 0)
    return known and depends_on_parameters(b) and not depends_on_parameters(a)


def _packed(graph: Graph, node: Node, block: int, may_regroup: bool) -> Value:
    build = Builder(graph, node.name)
    a, b = node.operand(0), node.operand(1)
    is_gemm = node.op_type == "Gemm"
    if is_gemm and node.attributes.get("transA", 0):
        a = build("Transpose", a, perm=(1, 0))
    if is_gemm and node.attributes.get("transB", 0):
        b = build("Transpose", b, perm=(1, 0))
    alpha = float(node.attributes.get("alpha", 1.0)) if is_gemm else 1.0
    if alpha != 1.0:
        b = build("Mul", b, build.scalar(alpha, b))
    panels = _panels(a, b, block)
    if may_regroup and strassen.is_worth_it(a, b, block * panels):
        parts = [
            build("Unsqueeze", pack(build, part, block, panels), build.ints([1])) for part in strassen.weights(build, b)
        ]
        w = build("Concat", *parts, axis=1)
        result = build("StrassenMatMul", a, w, domain=DOMAIN, columns=b.shape[1])
    else:
        result = build("PackedMatMul", a, pack(build, b, block, panels), domain=DOMAIN, columns=b.shape[1])
    addend = node.input(2) if is_gemm else None
    if addend is None:
        return result
    beta = float(node.attributes.get("beta", 1.0))
    return build("Add", result, addend if beta == 1.0 else build("Mul", addend, build.scalar(beta, addend)))


def _panels(a: Value, b: Value, block: int) -> int:
    """Blocks of columns that a tile computes."""
    rows = dims.product(a.shape[:-1])
    few = dims.is_static(rows) and rows < FEW
    return min(4 if few else 2, block_count(b.shape[1], block))


def pack(build: Builder, b: Value, block: int, panels: int) -> Value:
    """`[K, N]` to `[P, K, V, B]`, with columns of zeros at the end."""
    depth, columns = b.shape
    count = block_count(columns, block * panels)
    padding = count * panels * block - columns
    if padding:
        b = build("Pad", b, build.ints([0, 0, 0, padding]))
    split = build("Reshape", b, build.ints([depth, count, panels, block]))
    return build("Transpose", split, perm=(1, 0, 2, 3))
