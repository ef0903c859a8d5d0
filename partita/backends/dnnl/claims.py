"""What oneDNN runs, and why it refuses the rest. A rule gives the reason against a node, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partita.backends.dnnl.eltwise import ALGORITHMS
from partita.backends.dnnl.shapes import aligned, is_bias, pads_after, product_of, reach, window_of
from partita.errors import PartitaError
from partita.ir import dims
from partita.ir.graph import Node, Value
from partita.ir.types import DType, TensorType
from partita.passes.claims import Accept, Claim, Composite, Reject

Rule = Callable[[Node], str | None]

BINARY = {"Add": "add", "Div": "div", "Max": "max", "Min": "min", "Mul": "mul", "Sub": "sub", "Sum": "add"}
MOST_OPERANDS = 64
MOST_AXES = 12
SUMS = ("Add", "Sum")
_COMMUTES = (*SUMS, "Max", "Min", "Mul")


def refusal(node: Node) -> str | None:
    """Why oneDNN does not run `node`; None where it does."""
    if node.domain == "partita" and node.op_type == "Composite":
        return None if node.attributes.get("backend") == "dnnl" else "a composite of another backend"
    rule = _RULES.get(node.op_type) if node.domain == "" else None
    if rule is None:
        return f"oneDNN has no primitive for {node.qualified_type}"
    try:
        return _types(node) or rule(node)
    except PartitaError as error:
        return str(error)


def _types(node: Node) -> str | None:
    """float32, static shapes, nothing empty."""
    for value in (*node.operands, node.output):
        kind = value.type
        if not isinstance(kind, TensorType) or kind.dtype is not DType.FLOAT32:
            return f"{value.name!r} is {kind}; this backend computes in float32 alone"
        if kind.shape is None:
            return f"the rank of {value.name!r} is unknown; oneDNN's layouts are chosen for known shapes"
        symbolic = [str(dim) for dim in kind.shape if not dims.is_static(dim)]
        if symbolic:
            names = ", ".join(symbolic)
            return f"{value.name!r} has the symbolic size {names}; oneDNN's layouts are chosen for known shapes"
        if 0 in kind.shape:
            return f"{value.name!r} is empty"
        if len(kind.shape) > MOST_AXES:
            return f"{value.name!r} has {len(kind.shape)} axes; oneDNN takes {MOST_AXES}"
    return None


def _spatial(node: Node, fewest: int = 3) -> str | None:
    rank = len(node.operand(0).shape)
    if not fewest <= rank <= 5:
        return f"{node.op_type} of {rank} axes; oneDNN takes {fewest} to 5"
    return None


def _at_run_time(node: Node, *positions: int) -> str | None:
    """A reason where one of these operands is not a parameter."""
    for position in positions:
        value = node.input(position)
        if value is not None and value.parameter is None:
            return f"{value.name!r} is computed at run time; weights are laid out once, before"
    return None


def _conv(node: Node) -> str | None:
    reason = _spatial(node) or _at_run_time(node, 1, 2)
    if reason is None and any(pad < 0 for pad in (*window_of(node).begin, *window_of(node).end)):
        return "negative pads"
    return reason


def _pool(node: Node) -> str | None:
    if len(node.outputs) > 1:
        return "oneDNN gives no positions of the largest elements (the second output)"
    reason = _spatial(node)
    if reason is not None:
        return reason
    view, end = window_of(node), pads_after(node, window_of(node))
    if any(pad < 0 for pad in (*view.begin, *end)):
        return "negative pads"
    if any(max(view.begin[n], end[n]) >= reach(view, n) for n in range(len(end))):
        return "pads that are as large as the window: some windows would be empty"
    if node.op_type == "AveragePool" and node.attributes.get("count_include_pad", 0) and end != view.end:
        return "count_include_pad with ceil_mode: oneDNN would count what lies beyond the padding"
    return None


def _matmul(node: Node) -> str | None:
    product = product_of(node)
    for n, (a, b) in enumerate(zip(product.left[:-2], product.right[:-2], strict=True)):
        if a != b and 1 not in (a, b):
            return f"the leading axes {n} do not broadcast"
    return None


def _gemm(node: Node) -> str | None:
    flipped = [n for n, name in enumerate(("transA", "transB")) if node.attributes.get(name, 0)]
    reason = _at_run_time(node, *flipped)
    if reason is not None:
        return f"transA or transB, and {reason}"
    if node.attributes.get("alpha", 1.0) != 1.0 and node.operand(1).parameter is None:
        return "alpha, and no parameter that it could be multiplied into"
    c = node.input(2)
    if c is None:
        return None
    if c.parameter is None or not is_bias(c, node.output.shape, axis=1):
        return f"C ({c.type}) is not a parameter with one number a column"
    return None


def _batch_normalization(node: Node) -> str | None:
    if node.attributes.get("training_mode", 0) or len(node.outputs) > 1:
        return "training_mode: this backend normalizes with given statistics"
    return _spatial(node, fewest=2) or _at_run_time(node, 1, 2, 3, 4)


def _lrn(node: Node) -> str | None:
    if node.attributes["size"] % 2 == 0:
        return "an even size; oneDNN's window is centered otherwise than ONNX's"
    return _spatial(node)


def _softmax(node: Node) -> str | None:
    return None if node.operand(0).shape else f"{node.op_type} of a single number"


def _eltwise(node: Node) -> str | None:
    if node.op_type != "Clip":
        return None
    reason = _at_run_time(node, 1, 2)
    if reason is None:
        ALGORITHMS["Clip"](node)  # bakes the limits
    return reason


def operands_of_binary(node: Node) -> tuple[Value, Value] | None:
    """The operands of a binary operator, the one that has the result's shape first; None where oneDNN cannot."""
    first, second = node.operand(0), node.operand(1)
    shape = node.output.shape
    if aligned(first.shape, len(shape)) == aligned(shape, 0):
        return first, second
    if node.op_type in _COMMUTES and aligned(second.shape, len(shape)) == aligned(shape, 0):
        return second, first
    return None


def _binary(node: Node) -> str | None:
    if len(node.operands) != 2:
        return f"{node.op_type} of {len(node.operands)} operands; oneDNN takes two"
    if operands_of_binary(node) is None:
        return "the first operand is broadcast; oneDNN broadcasts the second"
    return None


def _concat(node: Node) -> str | None:
    count = len(node.operands)
    return None if count <= MOST_OPERANDS else f"Concat of {count} operands; this backend takes {MOST_OPERANDS}"


_RULES: dict[str, Rule] = {
    **dict.fromkeys(ALGORITHMS, _eltwise),
    **dict.fromkeys(BINARY, _binary),
    "AveragePool": _pool,
    "BatchNormalization": _batch_normalization,
    "Concat": _concat,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool,
    "GlobalMaxPool": _pool,
    "LRN": _lrn,
    "LogSoftmax": _softmax,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Softmax": _softmax,
}

# ---------------------------------------------------------------------- composites

_ACTIVATION = "|".join(sorted(ALGORITHMS)) + "?"
_CHANNEL_AXIS = {"Conv": 1, "MatMul": -1, "Gemm": 1}


def addend_of(node: Node, summand: Value) -> Value:
    """What a sum adds to `summand`."""
    return node.operand(1) if node.operand(0) is summand else node.operand(0)


def adds_bias(node: Node, summand: Value, op_type: str) -> bool:
    """Whether a sum after an operator of `op_type` adds one number a channel (or column)."""
    return is_bias(addend_of(node, summand), summand.shape, _CHANNEL_AXIS[op_type])


def _check_chain(nodes: Sequence[Node]) -> Claim:
    """Conv, MatMul or Gemm, then an Add of a bias or of a tensor of the same shape, then an activation."""
    first = nodes[0]
    if first.attributes.get("alpha", 1.0) != 1.0 or first.attributes.get("beta", 1.0) != 1.0:
        return Reject("alpha or beta before other operators")
    for node in nodes:
        reason = refusal(node)
        if reason is not None:
            return Reject(reason)
    for node, before in zip(nodes[1:], nodes, strict=False):
        if node.op_type not in SUMS:
            continue
        addend = addend_of(node, before.output)
        if addend.parameter is not None and adds_bias(node, before.output, first.op_type):
            if first.input(2) is not None:
                return Reject("a second bias")
        elif tuple(addend.shape) != tuple(before.output.shape):
            return Reject(f"{addend.name!r} ({addend.type}) is neither a bias nor of the result's shape")
    return Accept()


COMPOSITES = tuple(
    Composite(f"dnnl.{op_type.lower()}", (op_type, "Add|Sum?", _ACTIVATION), _check_chain) for op_type in _CHANNEL_AXIS
)
