"""If, Loop and Scan: types flow through the graphs that they hold (see `ir/nested.py`)."""

from __future__ import annotations

from partita.errors import ModelError, ShapeError
from partita.ir import dims
from partita.ir.contents import certain, normalized_axis
from partita.ir.dims import Dim
from partita.ir.formula import put
from partita.ir.graph import Graph, Node, Value
from partita.ir.nested import bodies, captured, is_control, plain
from partita.ir.operators.internal import is_observation
from partita.ir.operators.sequences import has_lists, joined_sequences
from partita.ir.registry import infers
from partita.ir.types import DType, OptionalType, SequenceType, TensorType, Type, UnknownType


def sets_extents(graph: Graph) -> bool:
    """Whether sizes of what `graph` computes may become known while it runs only."""
    return any(is_control(node) or is_observation(node) or has_lists(node) for node in graph.nodes)


def enter(node: Node) -> None:
    """Gives the inputs of the bodies the types of the operands behind them."""
    outside, kinds = captured(node), _own_types(node)
    for body in bodies(node).values():
        own = body.inputs[: len(body.inputs) - len(outside)]
        if node.op_type in ("If", "Loop", "Scan") and len(kinds) != len(own):
            raise ShapeError(f"{node.describe()}: its body takes {len(own)} inputs, but gets {len(kinds)}")
        for inner, kind in zip(own, kinds, strict=False):
            inner.type = inner.type if kind is None else kind
        for inner, outer in zip(body.inputs[len(own) :], outside, strict=True):
            inner.type, inner.known = outer.type, certain(outer)
            inner.parameter = outer.parameter  # so that looking at it, for an axis or a shape, bakes it


def _own_types(node: Node) -> list[Type | None]:
    if node.op_type == "Loop":
        scalars = [TensorType(DType.INT64, ()), TensorType(DType.BOOL, ())]
        return [*scalars, *(None if value is None else value.type for value in plain(node)[2:])]
    if node.op_type == "Scan":
        scanned = scanned_axes(node)
        states = [value.type for value in plain(node)[: -len(scanned)] if value is not None]
        return [*states, *(TensorType(x.tensor.dtype, put(x.shape, axis)) for x, axis in scanned)]
    return []


def scanned_axes(node: Node) -> list[tuple[Value, int]]:
    """The operands of a Scan that are scanned, and along which axes."""
    count = node.attributes["num_scan_inputs"]
    if not 0 < count <= len(plain(node)):
        raise ModelError(f"{node.describe()}: num_scan_inputs is {count}; it must be 1 to {len(plain(node))}")
    operands = [value for value in plain(node)[-count:] if value is not None]
    axes = node.attributes.get("scan_input_axes", (0,) * count)
    return [(x, normalized_axis(node, axis, len(x.shape))) for x, axis in zip(operands, axes, strict=True)]


def _joined(first: Type, second: Type, name: str) -> Type:
    """A type for values of both types: dimensions that differ become a symbol."""
    if isinstance(first, SequenceType) and isinstance(second, SequenceType):
        return joined_sequences(first, second)
    if isinstance(first, OptionalType) and isinstance(second, OptionalType):
        return OptionalType(_joined(first.element, second.element, name))
    if not isinstance(first, TensorType) or not isinstance(second, TensorType):
        return second if isinstance(first, UnknownType) else first
    if first.dtype is not second.dtype:
        raise ShapeError(f"{name!r} is {first} here and {second} there")
    if first.shape is None or second.shape is None or len(first.shape) != len(second.shape):
        return TensorType(first.dtype, None)
    shape = tuple(
        a if dims.same(a, b) else dims.symbol(f"{name}.{axis}")
        for axis, (a, b) in enumerate(zip(first.shape, second.shape, strict=True))
    )
    return TensorType(first.dtype, shape)


def chosen_branch(node: Node) -> Graph | None:
    """The branch that an If takes, where its condition is known to be constant."""
    condition = certain(node.operand(0)) if node.op_type == "If" and not node.domain else None
    return None if condition is None else bodies(node)["then_branch" if condition.item() else "else_branch"]


def _infer_body(body: Graph, *, trust: bool = True) -> list[Type]:
    from partita.ir.inference import infer

    infer(body, declared=trust)
    return [output.type for output in body.outputs]


@infers("If")
def branches(node: Node) -> list[Type]:
    enter(node)
    with dims.equations():  # what a branch wants to be equal need not be where the other is taken
        chosen, other = (_infer_body(node.attributes[key]) for key in ("then_branch", "else_branch"))
    if len(chosen) != len(node.outputs) or len(other) != len(node.outputs):
        raise ShapeError(f"{node.describe()}: both branches must give {len(node.outputs)} outputs")
    return [_joined(a, b, v.name) for a, b, v in zip(chosen, other, node.outputs, strict=True)]


@infers("Loop", "Scan")
def repeated(node: Node) -> list[Type]:
    """What is carried at the end, then what all steps give, beside each other."""
    enter(node)
    body: Graph = node.attributes["body"]
    scanned = scanned_axes(node) if node.op_type == "Scan" else []
    # before what is carried, among the body's inputs and outputs
    first, skipped = (2, 1) if node.op_type == "Loop" else (0, 0)
    count = max(len(plain(node)) - first - len(scanned), 0)
    if len(body.outputs) != len(node.outputs) + skipped or len(node.outputs) < count:
        raise ShapeError(f"{node.describe()}: the body gives {len(body.outputs)} outputs for {len(node.outputs)}")
    found, carried = _infer_body(body), body.inputs[first : first + count]
    for _ in range(16):  # until what is carried is wide enough for what the body itself puts into it
        wide = [_joined(inner.type, made, inner.name) for inner, made in zip(carried, found[skipped:], strict=False)]
        if wide == [inner.type for inner in carried]:
            break
        for inner, kind in zip(carried, wide, strict=True):
            inner.type = kind
        found = _infer_body(body, trust=False)
    steps = _trip_count(node, body) if node.op_type == "Loop" else scanned[0][0].shape[scanned[0][1]]
    final = [  # what is absent at first may be there for sure at the end
        made if isinstance(inner.type, OptionalType) and not isinstance(made, OptionalType) else inner.type
        for inner, made in zip(carried, found[skipped:], strict=False)
    ]
    stacked = found[skipped + count :]
    axes = node.attributes.get("scan_output_axes", (0,) * len(stacked))
    return [*final, *(_stacked(node, kind, steps, axis) for kind, axis in zip(stacked, axes, strict=True))]


def _trip_count(node: Node, body: Graph) -> Dim | None:
    """How often the body runs, where the condition plays no part."""
    limit, condition, again = certain(node.input(0)), node.input(1), body.outputs[0]
    while again.producer is not None and again.producer.op_type == "Identity":
        again = again.producer.operand(0)
    is_unending = (condition is None or _holds(condition)) and (again is body.inputs[1] or _holds(again))
    return dims.maximum(limit.item(), 0) if limit is not None and is_unending else None


def _holds(condition: Value) -> bool:
    content = certain(condition)
    return content is not None and bool(content.item())


def _stacked(node: Node, kind: Type, size: Dim | None, axis: int) -> Type:
    """The type of what all steps of `node` give, beside each other: None for sizes that only its body knows."""
    if not isinstance(kind, TensorType) or kind.shape is None:
        return kind
    shapes = [value.type.shape or () for value in node.operands if isinstance(value.type, TensorType)]
    names = {name for shape in shapes for dim in shape for name in dims.symbols_of(dim)}
    shape = [dim if names.issuperset(dims.symbols_of(dim)) else None for dim in kind.shape]
    shape.insert(axis % (len(shape) + 1), size)
    return TensorType(kind.dtype, tuple(shape))
