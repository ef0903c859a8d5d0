"""Attention: types of the composite that ONNX describes by a function, and the recurrence of linear attention."""

from __future__ import annotations

import math

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Expr, call, literal
from partita.ir.formula import cast, load, select, size
from partita.ir.graph import Node, Value
from partita.ir.operators.registry import becomes, infers, performs
from partita.ir.procedure import Loops, Procedure, Store, current, each, once, over, store, temporary
from partita.ir.types import DType, TensorType, Type


@becomes("Attention")
def values_of_another_type(build: Builder, node: Node) -> list[Value] | None:
    """ONNX's function wants values in the queries' type; those that are handed on keep theirs."""
    kind, other = node.operand(0).tensor.dtype.onnx, node.operand(2).tensor.dtype.onnx
    if kind == other:
        return None
    inputs = [
        build("Cast", value, to=kind) if value is not None and place in (2, 5) else value
        for place, value in enumerate(node.inputs)
    ]
    results = build.node("Attention", *inputs, outputs=len(node.outputs), **node.attributes)
    return [build("Cast", value, to=other) if place == 2 else value for place, value in enumerate(results)]


@infers("Attention")
def attention_types(node: Node) -> list[Type]:
    """The result, keys and values with those of the past, and the products of queries and keys."""
    (batch, heads, steps, _), (_, kept, length, depth), (_, _, _, width) = (
        _by_head(node, value, name) for value, name in zip(node.operands[:3], ("q", "kv", "kv"), strict=True)
    )
    past = node.input(4)
    if past is not None:
        length = dims.simplified(length + past.shape[2])
    query, value = node.operand(0), node.operand(2)
    whole = (batch, heads, steps, width)
    flat = (batch, steps, dims.simplified(heads * width))
    kind, other = query.tensor.dtype, value.tensor.dtype
    return [
        TensorType(kind, whole if len(query.shape) == 4 else flat),
        TensorType(kind, (batch, kept, length, depth)),
        TensorType(other, (batch, kept, length, width)),
        TensorType(kind, (batch, heads, steps, length)),
    ]


def _by_head(node: Node, value: Value, name: str) -> tuple[Dim, ...]:
    """[batch, heads, steps, elements] of what may hold its heads side by side."""
    if len(value.shape) == 4:
        return value.shape
    batch, steps, width = value.shape
    heads = node.attributes.get(f"{name}_num_heads", 0)
    if heads < 1:
        raise ModelError(f"{node.describe()}: {name}_num_heads must say how many heads {value.name!r} holds")
    return (batch, heads, steps, dims.floor_div(width, heads))


# ---------------------------------------------------------------------- linear attention


def _heads(node: Node) -> tuple[int, int]:
    queries, kept = (node.attributes.get(f"{name}_num_heads", 0) for name in ("q", "kv"))
    if kept < 1 or queries < 1 or queries % kept:
        raise ModelError(f"{node.describe()}: {queries} heads of queries are no multiple of {kept}")
    rule = _rule(node)
    for name, index, is_needed in (("decay", 4, "gated" in rule), ("beta", 5, "delta" in rule)):
        if (node.input(index) is not None) != is_needed:
            raise ModelError(f"{node.describe()}: the rule {rule!r} {'needs' if is_needed else 'takes no'} {name}")
    return queries, kept


def _rule(node: Node) -> str:
    return str(node.attributes.get("update_rule", "gated_delta"))


@infers("LinearAttention")
def linear_attention_types(node: Node) -> list[TensorType]:
    query, value, past = node.operand(0), node.operand(2), node.input(3)
    queries, kept = _heads(node)
    depth, width = dims.floor_div(query.shape[2], queries), dims.floor_div(value.shape[2], kept)
    result = TensorType(query.tensor.dtype, (*query.shape[:2], dims.simplified(width * queries)))
    stash = query.tensor.dtype if past is None else past.tensor.dtype
    return [result, TensorType(stash, (query.shape[0], kept, depth, width))]


def _scale(node: Node, depth: Dim, kind: DType) -> Expr:
    """What products of queries and keys are multiplied with."""
    given = float(node.attributes.get("scale", 0.0))
    if given or dims.is_static(depth):
        return literal(given or 1 / math.sqrt(depth), kind)
    return 1 / call("sqrt", cast(size(depth), kind))


@performs("LinearAttention")
def linear_attention(node: Node) -> Procedure:
    """A state [keys, values] for each head, step by step: it fades by `exp(decay)`, takes in key times value (for the
    delta rules, times `beta` of what it did not hold of the value yet), and is read by the queries."""
    query, key, value, past, decay, beta = (node.input(n) for n in range(6))
    assert query is not None and key is not None and value is not None
    queries, kept = _heads(node)
    _, (batch, _, depth, width) = (kind.dims for kind in linear_attention_types(node))
    kind = DType.FLOAT64 if query.tensor.dtype is DType.FLOAT64 else DType.FLOAT32
    row, h, t = over("n", batch), over("head", kept), over("t", query.shape[1])
    state, fresh, fading = (
        temporary(name, kind, shape)
        for name, shape in (("state", [depth, width]), ("fresh", [width]), ("fading", [depth]))
    )
    d, m = over("d", depth), over("m", width)

    def read(source: Value, *indices: Expr | int) -> Expr:
        return cast(load(source, *indices), kind)

    keys, values = read(key, row, t, h * size(depth) + d), read(value, row, t, h * size(width) + m)
    steps: list[Store | Loops] = []
    if decay is not None:
        place = select(call("eq", size(decay.shape[2]), kept), h, h * size(depth) + d)  # per head, or per key
        steps.append(each([d], store(fading, [d], call("exp", read(decay, row, t, place)))))
        steps.append(each([d, m], store(state, [d, m], current(state, [d, m]) * current(fading, [d]))))
    if beta is None:
        steps.append(each([m], store(fresh, [m], values)))
    else:
        rate = read(beta, row, t, select(call("eq", size(beta.shape[2]), 1), 0 * h, h))
        steps.append(each([m], store(fresh, [m], 0)))
        steps.append(each([d, m], store(fresh, [m], current(fresh, [m]) + current(state, [d, m]) * keys)))
        steps.append(each([m], store(fresh, [m], rate * (values - current(fresh, [m])))))
    steps.append(each([d, m], store(state, [d, m], current(state, [d, m]) + keys * current(fresh, [m]))))
    group = over("group", queries // kept)
    reader = h * (queries // kept) + group
    asked = read(query, row, t, reader * size(depth) + d)
    answer = cast(current(fresh, [m]) * _scale(node, depth, kind), query.tensor.dtype)
    read_state = each(
        [group],
        each([m], store(fresh, [m], 0)),
        each([d, m], store(fresh, [m], current(fresh, [m]) + asked * current(state, [d, m]))),
        each([m], store(node.outputs[0], [row, t, reader * size(width) + m], answer)),
    )
    begin = each([d, m], store(state, [d, m], 0.0 if past is None else read(past, row, h, d, m)))
    nests = [begin, each([t], *steps, read_state)]
    if len(node.outputs) > 1:
        present = node.outputs[1]
        nests.append(each([d, m], store(present, [row, h, d, m], cast(current(state, [d, m]), present.tensor.dtype))))
    return Procedure((once(*nests),), (state, fresh, *([fading] if decay is not None else [])), (row.axis, h.axis))
