"""A region's nodes as calls that build primitives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from partita.backends.dnnl.claims import BINARY, SUMS, addend_of, adds_bias, operands_of_binary
from partita.backends.dnnl.eltwise import ALGORITHMS
from partita.backends.dnnl.shapes import Shape, aligned, pads_after, product_of, window_of
from partita.backends.opaque import opaque_node
from partita.backends.source import Names, c_string, comment
from partita.ir.contents import normalized_axis
from partita.ir.graph import Graph, Node, Value
from partita.ir.region import Region

_LONGEST_NAME = 100  # characters of a node's name in messages


@dataclass(slots=True)
class Entry:
    """A tensor of the region's under one shape: a row of the table `values`.

    Attributes:
        last: number of the node that reads it last.
        argument: position among the region's inputs and outputs where it is handed out.
    """

    name: str
    shape: Shape
    last: int
    argument: int | None = None
    is_transposed: bool = False


@dataclass(slots=True)
class _Chain:
    """A node, or the nodes of a composite. `outer` tells which value of the region an operand or result is."""

    nodes: list[Node]
    result: Value
    outer: dict[Value, Value] = field(default_factory=dict)

    def __call__(self, value: Value) -> Value:
        return self.outer.get(value, value)


class RegionPrinter:
    """Prints the calls for one region, and collects what they refer to."""

    def __init__(self, region: Region) -> None:
        fused = opaque_node(region)
        self.body: Graph = fused.attributes["body"]
        self.entries: list[Entry] = []
        self.borders: list[str] = []
        self.node_count = self.operand_count = 0
        self.most_operands = 1
        self._names = Names()
        self._lines: list[str] = []
        self._entry_of: dict[tuple[Value, Shape, bool], Entry] = {}
        self._base: dict[Value, Entry] = {}
        operands = dict(zip(self.body.inputs, fused.operands, strict=True))
        self._constants = {inner: outer for inner, outer in operands.items() if outer.parameter is not None}
        self._inputs = {
            inner: region.body.inputs.index(outer) for inner, outer in operands.items() if outer.parameter is None
        }
        self.constants = tuple(dict.fromkeys(outer.name for outer in self._constants.values()))
        first = len(region.body.inputs)
        handed_out = dict(zip(fused.outputs, self.body.outputs, strict=True))
        self._outputs = {
            handed_out[value]: first + place for place, value in enumerate(region.body.outputs) if value in handed_out
        }
        self._chains = [_chain(node) for node in self.body.nodes]
        self._last = self._last_uses()

    def _last_uses(self) -> dict[Value, int]:
        last: dict[Value, int] = {}
        for number, chain in enumerate(self._chains, start=1):
            values = [chain(value) for node in chain.nodes for value in node.operands]
            last.update(dict.fromkeys([*values, chain.result], number))
        return last

    # ------------------------------------------------------------------ tensors

    def is_constant(self, value: Value) -> bool:
        return value in self._constants

    def operand(self, value: Value, shape: Sequence[int] | None = None, *, transposed: bool = False) -> str:
        """The C name of a value that a primitive reads, under `shape` (by default its own)."""
        wanted = aligned(value.shape if shape is None else shape, 0)
        entry = self._entry_of.get((value, wanted, transposed))
        if entry is not None:
            return entry.name
        entry = self._add(value, wanted, transposed)
        if self.is_constant(value):
            position = self.constants.index(self._constants[value].name)
            self.borders.append(f"border(b, {entry.name}, NONE, constants[{position}]);")
        elif value in self._inputs:
            self.borders.append(f"border(b, {entry.name}, {self._inputs[value]}, NULL);")
        else:
            self.call("view", self._base[value].name, entry.name)
        return entry.name

    def result(self, value: Value, shape: Sequence[int] | None = None) -> str:
        """The C name of a value that a primitive makes under `shape`."""
        entry = self._add(value, aligned(value.shape if shape is None else shape, 0), False)
        entry.argument = self._outputs.get(value)
        self._base[value] = entry
        return entry.name

    def _add(self, value: Value, shape: Shape, transposed: bool) -> Entry:
        entry = Entry(self._names.fresh(f"t_{value.name}"), shape, self._last.get(value, 0), None, transposed)
        self.entries.append(entry)
        self._entry_of[value, shape, transposed] = entry
        return entry

    # ------------------------------------------------------------------ lines

    def print_nodes(self) -> list[str]:
        """The statements that build the region, a paragraph a node."""
        lines: list[str] = []
        for number, chain in enumerate(self._chains, start=1):
            self._lines = []
            name = c_string(chain.nodes[0].name[:_LONGEST_NAME])
            count = sum(len(node.operands) for node in chain.nodes)
            self.node_count += 1
            self.operand_count += count
            _PRINTERS[chain.nodes[0].op_type](self, chain, number)
            kinds = " -> ".join(f"{node.op_type} '{node.name[:_LONGEST_NAME]}'" for node in chain.nodes)
            lines += [f"    /* {comment(kinds)} */", "    {", f"        begin(b, {name});"]
            lines += [f"        {line}" for line in self._lines] + ["    }", ""]
        return lines

    def call(self, function: str, *arguments: str) -> None:
        """Adds a call on the builder."""
        self._lines.append(f"{function}({', '.join(['b', *arguments])});")

    def array(self, name: str, content: Iterable[int]) -> str:
        """Adds an array of sizes; gives its name."""
        self._lines.append(f"const dnnl_dim_t {name}[] = {{{', '.join(map(str, content))}}};")
        return name

    def names(self, name: str, content: Sequence[str]) -> str:
        """Adds an array of tensors; gives its name."""
        self.most_operands = max(self.most_operands, len(content))
        self._lines.append(f"const int32_t {name}[] = {{{', '.join(content)}}};")
        return name

    def followers(self, chain: _Chain, number: int, shape: Shape) -> Value | None:
        """Adds calls for what follows a composite's first operator; gives the bias that a sum brings, if any."""
        first, bias = chain.nodes[0], None
        for node, before in zip(chain.nodes[1:], chain.nodes, strict=False):
            if node.op_type not in SUMS:
                made = ALGORITHMS[node.op_type](node)
                self.call("then_eltwise", f"dnnl_eltwise_{made.kind}", c_float(made.alpha), c_float(made.beta))
                continue
            addend = chain(addend_of(node, before.output))
            if self.is_constant(addend) and adds_bias(node, before.output, first.op_type):
                bias = addend
                continue
            read = [chain(value) for value in first.operands]
            may_overwrite = self._last[addend] == number and addend not in read
            self.call("then_add", self.operand(addend, shape), "true" if may_overwrite else "false")
        return bias


def _chain(node: Node) -> _Chain:
    if node.domain != "partita":
        return _Chain([node], node.output)
    body: Graph = node.attributes["body"]
    outer = dict(zip(body.inputs, node.operands, strict=True))
    outer[body.outputs[0]] = node.output
    return _Chain(body.nodes, node.output, outer)


def c_float(number: float) -> str:
    """A float as C: the shortest decimal that gives it back."""
    if math.isinf(number):
        return "-INFINITY" if number < 0 else "INFINITY"
    text = repr(float(str(np.float32(number))))
    return f"{text}f"


# ---------------------------------------------------------------------- operators


def _convolution(p: RegionPrinter, chain: _Chain, number: int) -> None:
    node = chain.nodes[0]
    x, w = chain(node.operand(0)), chain(node.operand(1))
    group, shape = node.attributes.get("group", 1), w.shape
    kernel = shape if group == 1 else (group, shape[0] // group, *shape[1:])
    own = node.input(2)
    added = p.followers(chain, number, chain.result.shape)
    bias = chain(own) if own is not None else added
    view = window_of(node)
    p.call(
        "convolution",
        p.operand(x),
        p.operand(w, kernel),
        "NONE" if bias is None else p.operand(bias, [shape[0]]),
        p.result(chain.result),
        p.array("strides", view.strides),
        p.array("dilates", [dilation - 1 for dilation in view.dilations]),
        p.array("before", view.begin),
        p.array("after", view.end),
    )


def _product(p: RegionPrinter, chain: _Chain, number: int) -> None:
    node = chain.nodes[0]
    product = product_of(node)
    a, b = chain(node.operand(0)), chain(node.operand(1))
    own = node.input(2)
    added = p.followers(chain, number, product.result)
    bias = chain(own) if own is not None else added
    columns = aligned([product.result[-1]], len(product.result))
    p.call(
        "matmul",
        p.operand(a, product.left, transposed=product.left_transposed),
        p.operand(b, product.right, transposed=product.right_transposed),
        "NONE" if bias is None else p.operand(bias, columns),
        p.result(chain.result, product.result),
    )


def _pooling(p: RegionPrinter, chain: _Chain, number: int) -> None:
    node = chain.nodes[0]
    if "MaxPool" in node.op_type:
        kind = "max"
    else:
        kind = "avg_include_padding" if node.attributes.get("count_include_pad", 0) else "avg_exclude_padding"
    view = window_of(node)
    p.call(
        "pooling",
        f"dnnl_pooling_{kind}",
        p.operand(node.operand(0)),
        p.result(chain.result),
        p.array("strides", view.strides),
        p.array("kernel", view.kernel),
        p.array("dilates", [dilation - 1 for dilation in view.dilations]),
        p.array("before", view.begin),
        p.array("after", pads_after(node, view)),
    )


def _eltwise(p: RegionPrinter, chain: _Chain, number: int) -> None:
    node = chain.nodes[0]
    made = ALGORITHMS[node.op_type](node)
    x, y = p.operand(node.operand(0)), p.result(chain.result)
    p.call("eltwise", f"dnnl_eltwise_{made.kind}", x, y, c_float(made.alpha), c_float(made.beta))


def _binary(p: RegionPrinter, chain: _Chain, number: int) -> None:
    node = chain.nodes[0]
    operands = operands_of_binary(node)
    assert operands is not None, "claimed"
    whole, other = operands
    shape = aligned(chain.result.shape, 0)
    x, second = p.operand(whole, shape), p.operand(other, aligned(other.shape, len(shape)))
    p.call("binary", f"dnnl_binary_{BINARY[node.op_type]}", x, second, p.result(chain.result))


def _softmax(p: RegionPrinter, chain: _Chain, number: int) -> None:
    node = chain.nodes[0]
    axis = normalized_axis(node, node.attributes.get("axis", -1), len(chain.result.shape))
    kind = "dnnl_softmax_accurate" if node.op_type == "Softmax" else "dnnl_softmax_log"
    p.call("softmax", kind, p.operand(node.operand(0)), p.result(chain.result), str(axis))


def _lrn(p: RegionPrinter, chain: _Chain, number: int) -> None:
    node = chain.nodes[0]
    numbers = [node.attributes.get(*pair) for pair in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))]
    size = str(node.attributes["size"])
    p.call("lrn", p.operand(node.operand(0)), p.result(chain.result), size, *map(c_float, numbers))


def _batch_normalization(p: RegionPrinter, chain: _Chain, number: int) -> None:
    node = chain.nodes[0]
    operands = [p.operand(value) for value in node.operands]
    epsilon = c_float(node.attributes.get("epsilon", 1e-5))
    p.call("batch_normalization", *operands, p.result(chain.result), epsilon)


def _concat(p: RegionPrinter, chain: _Chain, number: int) -> None:
    node = chain.nodes[0]
    axis = normalized_axis(node, node.attributes["axis"], len(chain.result.shape))
    parts = p.names("parts", [p.operand(value) for value in node.operands])
    p.call("concat", parts, str(len(node.operands)), p.result(chain.result), str(axis))


_PRINTERS = {
    **dict.fromkeys(ALGORITHMS, _eltwise),
    **dict.fromkeys(BINARY, _binary),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"), _pooling),
    **dict.fromkeys(("Gemm", "MatMul"), _product),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _softmax),
    "BatchNormalization": _batch_normalization,
    "Concat": _concat,
    "Conv": _convolution,
    "LRN": _lrn,
}
