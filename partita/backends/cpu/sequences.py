"""Operators on sequences and optional values as C: calls of the functions of partita_sequence.h."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from partita.backends.source import RegionSource, c_format, c_string, comment
from partita.ir import dims
from partita.ir.contents import axis_of
from partita.ir.dims import Dim
from partita.ir.graph import Node, Value
from partita.ir.operators.sequences import element_of, is_list
from partita.ir.types import TensorType

SEQUENCE_OPERATORS = frozenset(
    "SequenceEmpty SequenceConstruct SequenceInsert SequenceErase SequenceLength SequenceAt SplitToSequence "
    "ConcatFromSequence Optional OptionalHasElement OptionalGetElement".split()
)


class Sequences:
    """Prints the sequence operators of one region."""

    def __init__(self, source: RegionSource) -> None:
        self.source = source
        self.printers: dict[str, Callable[[Node], list[str]]] = {
            "SequenceEmpty": self._empty,
            "SequenceConstruct": self._construct,
            "SequenceInsert": self._insert,
            "SequenceErase": self._erase,
            "SequenceLength": self._length,
            "SequenceAt": self._at,
            "SplitToSequence": self._split,
            "ConcatFromSequence": self._concat,
            "Optional": self._optional,
            "OptionalHasElement": self._has_element,
            "OptionalGetElement": self._get_element,
            "Copy": self._copy,
        }

    def prints(self, node: Node) -> bool:
        """Whether `node` is one of these operators."""
        return node.op_type in self.printers and (node.op_type != "Copy" or is_list(node.output))

    def statements(self, node: Node) -> list[str]:
        """What runs `node`."""
        lines = self.printers[node.op_type](node)
        return [f"    {{ /* {comment(node.name)}: {comment(node.op_type)} */", *(f"    {x}" for x in lines), "    }"]

    def assign(self, target: Value, value: Value) -> list[str]:
        """Makes one sequence what another is."""
        return self._checked(f"partita_sequence_assign(call, {self.place(target)}, {self.place(value)})")

    # ------------------------------------------------------------------ texts

    def place(self, value: Value) -> str:
        """The address of a list."""
        return f"&call->sequences[{self.source.plan.buffer_of[value]}]"

    def _field(self, value: Value, name: str) -> str:
        return f"call->sequences[{self.source.plan.buffer_of[value]}].{name}"

    def _checked(self, call: str) -> list[str]:
        return [f"    PARTITA_TRY({call});"]

    def _shape(self, shape: Sequence[Dim]) -> str:
        texts = [self.source.size(dim) for dim in shape] or ["0"]
        return f"(const int64_t[]){{{', '.join(texts)}}}"

    def _integer(self, value: Value | None, absent: str) -> str:
        """The one element of an int32 or int64 tensor."""
        return absent if value is None else f"*{self.source.pointer(value)}"

    def _inserted(self, node: Node, x: Value, position: str) -> list[str]:
        kind = x.tensor
        place = f"{c_string(node.name)}, {self.place(node.output)}, {position}"
        what = f"{self.source.address(x)}, {kind.dtype.onnx}, {kind.rank}, {self._shape(kind.dims)}"
        return self._checked(f"partita_sequence_insert(call, {place}, {what})")

    def _set_sizes(self, output: Value, shape: str) -> list[str]:
        """Makes the sizes in the C array `shape` those of `output` that are not known."""
        return [
            f"    {self.source.size(dim)} = {shape}[{place}];"
            for place, dim in enumerate(output.shape)
            if not dims.is_static(dim)
        ]

    # ------------------------------------------------------------------ sequences

    def _empty(self, node: Node) -> list[str]:
        return [f"    partita_sequence_clear({self.place(node.output)}, 0);"]

    def _construct(self, node: Node) -> list[str]:
        lines = self._empty(node)
        for place, value in enumerate(node.operands):
            lines += self._inserted(node, value, str(place))
        return lines

    def _insert(self, node: Node) -> list[str]:
        end = self._field(node.output, "count")
        position = self._integer(node.input(2), end)
        return self.assign(node.output, node.operand(0)) + self._inserted(node, node.operand(1), position)

    def _erase(self, node: Node) -> list[str]:
        position = self._integer(node.input(1), "-1")
        erase = f"partita_sequence_erase(call, {c_string(node.name)}, {self.place(node.output)}, {position})"
        return self.assign(node.output, node.operand(0)) + self._checked(erase)

    def _length(self, node: Node) -> list[str]:
        count = self._field(node.operand(0), "count")
        return [f"    *{self.source.pointer(node.output)} = {count};"]

    def _at(self, node: Node) -> list[str]:
        return self._taken(node, self._integer(node.operand(1), ""))

    def _taken(self, node: Node, position: str) -> list[str]:
        """Copies an element to where the output lies, and sets the sizes that it alone has."""
        output = node.output
        known = [dim if dims.is_static(dim) else -1 for dim in output.shape]
        where = f"{c_string(node.name)}, {self.place(node.operand(0))}, {position}, {output.tensor.rank}"
        lines = ["    const partita_tensor *element;"]
        lines += self._checked(f"partita_sequence_at(call, {where}, {self._shape(known)}, &element)")
        lines += self._set_sizes(output, "element->shape")
        lines += self.source.reserve_for(node)
        return [
            *lines,
            f"    memcpy({self.source.address(output)}, element->data, (size_t)({self.source.bytes(output)}));",
        ]

    def _split(self, node: Node) -> list[str]:
        x, split = node.operand(0), node.input(1)
        kind = x.tensor
        axis = axis_of(node, kind.rank)
        parts = "NULL, 0, 0"
        if split is not None:
            count = self.source.size(split.shape[0]) if split.shape else "-1"
            parts = f"{self.source.address(split)}, {split.tensor.dtype.onnx}, {count}"
        keeps = int(node.attributes.get("keepdims", 1))
        sizes = [f"    whole.shape[{n}] = {self.source.size(dim)};" for n, dim in enumerate(kind.dims)]
        what = f"{c_string(node.name)}, {self.place(node.output)}, &whole, {axis}, {parts}, {keeps}"
        return [
            f"    partita_tensor whole = {{.data = {_writable(self.source.address(x))}, "
            f".data_type = {kind.dtype.onnx}, .rank = {kind.rank}}};",
            *sizes,
            *self._checked(f"partita_sequence_split(call, {what})"),
        ]

    def _concat(self, node: Node) -> list[str]:
        sequence, output = node.operand(0), node.output
        element = element_of(sequence.type)
        axis, is_new = axis_of(node, output.tensor.rank), int(node.attributes.get("new_axis", 0))
        where = f"{c_string(node.name)}, {self.place(sequence)}, {element.rank}, {axis}, {is_new}"
        lines = [f"    int64_t shape[{output.tensor.rank}];"]
        lines += self._checked(f"partita_sequence_joined(call, {where}, shape)")
        message = c_format(f"{node.name}: the elements do not have the sizes that they are declared to have")
        for place, dim in enumerate(output.shape):
            if dims.is_static(dim):
                lines.append(f"    if (shape[{place}] != {dim})")
                lines.append(f"        return call->services->fail(call, PARTITA_ERROR_SHAPE, {message});")
        lines += self._set_sizes(output, "shape")
        lines += self.source.reserve_for(node)
        return [*lines, f"    partita_sequence_join({self.place(sequence)}, {axis}, {self.source.address(output)});"]

    # ------------------------------------------------------------------ optional values

    def _optional(self, node: Node) -> list[str]:
        value = node.input(0)
        if value is None:
            return [f"    partita_sequence_clear({self.place(node.output)}, 1);"]
        return self.assign(node.output, value) if is_list(value) else self._construct(node)

    def _has_element(self, node: Node) -> list[str]:
        value = node.input(0)
        present = "true" if value is not None else "false"
        if value is not None and is_list(value):
            present = f"!{self._field(value, 'is_absent')}"
        return [f"    *{self.source.pointer(node.output)} = {present};"]

    def _get_element(self, node: Node) -> list[str]:
        value = node.operand(0)
        if isinstance(value.type, TensorType):
            lines = self.source.reserve_for(node)
            size = f"(size_t)({self.source.bytes(value)})"
            return [*lines, f"    memcpy({self.source.address(node.output)}, {self.source.address(value)}, {size});"]
        if isinstance(node.output.type, TensorType):
            return self._taken(node, "0")
        unwrap = f"{c_string(node.name)}, {self.place(node.output)}, {self.place(value)}"
        return self._checked(f"partita_sequence_unwrap(call, {unwrap})")

    def _copy(self, node: Node) -> list[str]:
        return self.assign(node.output, node.operand(0))


def _writable(address: str) -> str:
    """An address as what a tensor points to, which is not const; nothing writes through it."""
    return f"(void *)(uintptr_t)({address})"
