"""Attention: types of the composite that ONNX describes by a function, and the recurrence of linear attention."""

from __future__ import annotations

from collections.abc import Sequence

from partita.errors import ModelError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.dims import Dim
from partita.ir.expression import Expr, call, literal
from partita.ir.formula import cast, load, over, select, size
from partita.ir.graph import Node, Value
from partita.ir.procedure import Loops, Procedure, current, each, procedure, store, temporary
from partita.ir.registry import becomes, infers, performs
from partita.ir.types import DType, TensorType, Type


@becomes("Attention")
def values_of_another_type(build: Builder, node: Node, query: Value, _: Value, value: Value) -> list[Value] | None:
    """ONNX's function wants values in the queries' type; those that are handed on keep theirs."""
    kind, other = query.tensor.dtype, value.tensor.dtype
    if kind is other:
        return None
    inputs = [build.cast(v, kind) if v is not None and place in (2, 5) else v for place, v in enumerate(node.inputs)]
    results = build.node("Attention", *inputs, outputs=len(node.outputs), **node.attributes)
    return [build.cast(result, other) if place == 2 else result for place, result in enumerate(results)]


@infers("Attention")
def attention_types(
    node: Node, query: Value, key: Value, value: Value, _: Value | None, past: Value | None
) -> list[Type]:
    """The result, keys and values with those of the past, and the products of queries and keys."""
    batch, heads, steps, _ = _by_head(node, query, "q")
    (_, kept, length, depth), width = _by_head(node, key, "kv"), _by_head(node, value, "kv")[-1]
    length = length if past is None else dims.simplified(length + past.shape[2])
    flat, kind = (batch, steps, dims.simplified(heads * width)), query.tensor.dtype
    return [
        TensorType(kind, (batch, heads, steps, width) if len(query.shape) == 4 else flat),
        TensorType(kind, (batch, kept, length, depth)),
        TensorType(value.tensor.dtype, (batch, kept, length, width)),
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


@infers("LinearAttention")
def linear_attention_types(
    node: Node, query: Value, _: Value, value: Value, past: Value | None, *, update_rule: str = "gated_delta"
) -> list[TensorType]:
    (batch, queries, steps, depth), (_, kept, _, width) = _by_head(node, query, "q"), _by_head(node, value, "kv")
    if queries % kept:
        raise ModelError(f"{node.describe()}: {queries} heads of queries are no multiple of {kept}")
    for name, index, is_needed in (("decay", 4, "gated" in update_rule), ("beta", 5, "delta" in update_rule)):
        if (node.input(index) is not None) != is_needed:
            raise ModelError(
                f"{node.describe()}: the rule {update_rule!r} {'needs' if is_needed else 'takes no'} {name}"
            )
    result = TensorType(query.tensor.dtype, (batch, steps, dims.simplified(width * queries)))
    return [result, TensorType((past or query).tensor.dtype, (batch, kept, depth, width))]


@performs("LinearAttention")
def linear_attention(
    node: Node, query: Value, key: Value, value: Value, past: Value | None, decay: Value | None, beta: Value | None, *,
    scale: float = 0.0,
) -> Procedure:  # fmt: skip
    """A state [keys, values] for each head, step by step: it fades by `exp(decay)`, takes in key times value (for the
    delta rules, times `beta` of what it did not hold of the value yet), and is read by the queries."""
    (_, queries, _, depth), (_, kept, _, width) = _by_head(node, query, "q"), _by_head(node, value, "kv")
    readers = queries // kept
    kind = DType.FLOAT64 if query.tensor.dtype is DType.FLOAT64 else DType.FLOAT32
    row, h, t = over("n", query.shape[0]), over("head", kept), over("t", query.shape[1])
    state, fresh = temporary("state", kind, [depth, width]), temporary("fresh", kind, [width])
    fading, d, m = temporary("fading", kind, [depth]), over("d", depth), over("m", width)
    factor = literal(scale, kind) if scale else 1 / call("sqrt", cast(size(depth), kind))

    def read(source: Value, *indices: Expr | int) -> Expr:
        return cast(load(source, *indices), kind)

    keys, values = read(key, row, t, h * size(depth) + d), read(value, row, t, h * size(width) + m)
    held, found = current(state, [d, m]), current(fresh, [m])

    def find(share: Expr) -> tuple[Loops, Loops]:
        """The sums of what the state holds, with a share of each key, into `fresh`."""
        return each([m], store(fresh, [m], 0)), each([d, m], store(fresh, [m], found + held * share))

    fade: Sequence[Loops] = ()
    learn: Sequence[Loops] = [each([m], store(fresh, [m], values))]
    if decay is not None:
        place = select(call("eq", size(decay.shape[2]), kept), h, h * size(depth) + d)  # per head, or per key
        fade = [
            each([d], store(fading, [d], call("exp", read(decay, row, t, place)))),
            each([d, m], store(state, [d, m], held * current(fading, [d]))),
        ]
    if beta is not None:
        rate = read(beta, row, t, select(call("eq", size(beta.shape[2]), 1), 0 * h, h))
        learn = [*find(keys), each([m], store(fresh, [m], rate * (values - found)))]
    take = each([d, m], store(state, [d, m], held + keys * found))
    group = over("group", readers)
    reader = h * readers + group
    answer = store(node.output, [row, t, reader * size(width) + m], cast(found * factor, query.tensor.dtype))
    read_state = each([group], *find(read(query, row, t, reader * size(depth) + d)), each([m], answer))
    begin = each([d, m], store(state, [d, m], 0.0 if past is None else read(past, row, h, d, m)))
    nests = [begin, each([t], *fade, *learn, take, read_state)]
    if len(node.outputs) > 1:
        present = node.outputs[1]
        nests.append(each([d, m], store(present, [row, h, d, m], cast(current(state, [d, m]), present.tensor.dtype))))
    return procedure(*nests, rows=[row, h])
