"""What every backend that prints C shares: names, types, comments, and the shell of a region's function.

Nothing from a model reaches C unescaped: identifiers are made of letters, digits and underscores, and comments of
printable ASCII.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from partita.ir import dims
from partita.ir.dims import Dim
from partita.ir.graph import Node, Value
from partita.ir.operators.control_flow import sets_extents
from partita.ir.region import Region
from partita.ir.types import DType
from partita.passes.plan_memory import MemoryPlan, PlannedBuffer
from partita.runtime import Function, Storage

C_TYPES = {
    DType.FLOAT32: "float",
    DType.FLOAT64: "double",
    DType.INT8: "int8_t",
    DType.INT16: "int16_t",
    DType.INT32: "int32_t",
    DType.INT64: "int64_t",
    DType.UINT8: "uint8_t",
    DType.UINT16: "uint16_t",
    DType.UINT32: "uint32_t",
    DType.UINT64: "uint64_t",
    DType.BOOL: "bool",
    DType.FLOAT16: "partita_float16",
    DType.BFLOAT16: "partita_bfloat16",
    DType.FLOAT8E4M3FN: "partita_float8e4m3fn",
    DType.FLOAT8E4M3FNUZ: "partita_float8e4m3fnuz",
    DType.FLOAT8E5M2: "partita_float8e5m2",
    DType.FLOAT8E5M2FNUZ: "partita_float8e5m2fnuz",
    DType.FLOAT8E8M0: "partita_float8e8m0",
    DType.FLOAT4E2M1: "partita_float4e2m1",
    DType.INT4: "int8_t",
    DType.UINT4: "uint8_t",
    DType.INT2: "int8_t",
    DType.UINT2: "uint8_t",
    DType.STRING: "partita_string",
}

RESERVED = frozenset(
    """alignas alignof asm auto bool break case char const constexpr continue default do double else enum extern false
    float for goto if inline int long main nullptr register restrict return short signed sizeof static static_assert
    struct switch thread_local true typedef typeof union unsigned void volatile while call state partita linux
    unix""".split()
)


def identifier(name: str) -> str:
    """A C and C++ identifier made from any text; different texts may give one identifier (see `Names`)."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", name)[:60].strip("_") or "value"
    # What begins with partita is the runtime's.
    if text[0].isdigit() or text in RESERVED or keyword.iskeyword(text) or text.startswith("partita"):
        text = f"v_{text}"
    return text


class Names:
    """Unique identifiers within one scope."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def fresh(self, name: str) -> str:
        stem = text = identifier(name)
        number = 1
        while text in self._taken:
            number += 1
            text = f"{stem}_{number}"
        self._taken.add(text)
        return text


def comment(text: str) -> str:
    """Any text, harmless inside a C comment."""
    printable = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text[:200])
    return printable.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?")


def c_string(text: str) -> str:
    """Any text as a C string literal."""
    quoted = "".join(
        chr(b) if 0x20 <= b < 0x7F and chr(b) not in '"\\?' else f"\\{b:03o}" for b in text.encode(errors="replace")
    )
    return f'"{quoted}"'


def c_format(text: str) -> str:
    """Any text as a C string literal that printf prints as it is."""
    return c_string(text.replace("%", "%%"))


class RegionSource:
    """The parts of a region's C that do not depend on what it computes: where values lie, its state, its init.

    A region's function is `partita_status <symbol>(const partita_call *call)`. The state is a struct of pointers to
    the constants, to which a backend may add members of its own.
    """

    def __init__(self, region: Region, plan: MemoryPlan) -> None:
        self.region = region
        self.plan = plan
        self.symbol = region.symbol
        self.sets_extents = sets_extents(region.body)
        own = (Storage.CONSTANT, Storage.HEAP) if self.sets_extents else (Storage.CONSTANT,)
        self._arguments: dict[int, int] = {}
        for position, value in enumerate((*region.body.inputs, *region.body.outputs)):
            number = plan.buffer_of[value]
            if position < len(region.body.inputs) or plan.buffers[number].storage not in own:
                self._arguments.setdefault(number, position)
        self._names = Names()
        self.constants: dict[str, str] = {}  # table entries used so far -> members of the state
        self._constant_types: dict[str, str] = {}
        self._strings: dict[str, int] = {}  # those that are strings -> how many
        self._reserved: dict[int, PlannedBuffer] = {}

    @property
    def function(self) -> Function:
        """What the module says of the function: to be asked when all of its text is written."""
        return Function(self.symbol, tuple(self.constants))

    def address(self, value: Value) -> str:
        """Where `value` lies, as a C expression without a cast. A constant becomes a member of the state."""
        number = self.plan.buffer_of[value]
        buffer = self.plan.buffers[number]
        if number in self._arguments:
            return f"call->arguments[{self._arguments[number]}]"
        if buffer.storage is Storage.CONSTANT:
            name = buffer.constant  # also where `value` is a view of it
            if name not in self.constants:
                self.constants[name] = self._names.fresh(name)
                self._constant_types[name] = C_TYPES[value.tensor.dtype]
                if value.tensor.dtype is DType.STRING:
                    self._strings[name] = int(dims.product(value.shape))
            return f"state->{self.constants[name]}"
        return self._memory(number, buffer)

    def pointer(self, value: Value) -> str:
        """`value` as a pointer to its element type: const where the region may not write it."""
        kind = C_TYPES[value.tensor.dtype]
        if self.plan.buffer(value).storage is Storage.CONSTANT and self.plan.buffer_of[value] not in self._arguments:
            return self.address(value)
        return f"({kind} *)({self.address(value)})"

    def workspace(self, node: object) -> str:
        """Scratch memory of a node, as a char pointer."""
        number = self.plan.workspace_of[node]  # type: ignore[index]
        return self._memory(number, self.plan.buffers[number])

    def workspace_bytes(self, node: object) -> str:
        """The size of that memory, as a C expression."""
        return self.size(self.plan.buffers[self.plan.workspace_of[node]].bytes)  # type: ignore[index]

    def _memory(self, number: int, buffer: PlannedBuffer) -> str:
        if buffer.storage is Storage.HEAP:
            self._reserved[number] = buffer
            return f"heap_{number}"
        return f"call->arena + {buffer.offset}" if buffer.offset >= 0 else f"call->arena + call->offsets[{number}]"

    def reservations(self) -> list[str]:
        """Statements that get the memory whose size data decided: to come first, asked for last. A region that finds
        sizes out by itself gets memory with `reserve`, when it knows them."""
        if self.sets_extents:
            return [f"    char *heap_{number} = NULL;" for number in self._reserved]
        lines = []
        for number, buffer in self._reserved.items():
            lines.append(
                f"    char *heap_{number} = call->services->reserve(call, {number}, {self.size(buffer.bytes)});"
            )
            lines += [f"    if (!heap_{number})", "        return PARTITA_ERROR_MEMORY;"]
        return lines

    def reserve(self, number: int, size: str, service: str = "reserve") -> list[str]:
        """Statements that get `size` bytes for a buffer of such a region; none where the memory is there."""
        if not self.sets_extents or self.plan.buffers[number].storage is not Storage.HEAP or number in self._arguments:
            return []
        self._reserved[number] = self.plan.buffers[number]
        return [
            f"    heap_{number} = call->services->{service}(call, {number}, {size});",
            f"    if (!heap_{number})",
            "        return PARTITA_ERROR_MEMORY;",
        ]

    def reserve_for(self, node: Node) -> list[str]:
        """The same for what `node` computes, and its workspace."""
        lines = [line for value in node.outputs for line in self.reserve(self.plan.buffer_of[value], self.bytes(value))]
        if node in self.plan.workspace_of:
            lines += self.reserve(self.plan.workspace_of[node], self.workspace_bytes(node))
        return lines

    def bytes(self, value: Value) -> str:
        """The size of a tensor in bytes, as a C expression."""
        return self.size(dims.product(value.shape) * value.tensor.dtype.itemsize)

    def size(self, dim: Dim) -> str:
        """A dimension as a C expression; symbols are read from `call->extents`."""
        if dims.is_static(dim):
            return str(dim)
        return dims.c_text(dim, self.plan.symbol_texts)

    def state_struct(self, members: Iterable[str] = ()) -> str:
        """The definition of `struct <symbol>_state`; `members` are further declarations."""
        lines = [f"    const {self._constant_types[name]} *{member};" for name, member in self.constants.items()]
        lines += [f"    partita_string {self.constants[name]}_unpacked[{n + 1}];" for name, n in self._strings.items()]
        lines += [f"    {member}" for member in members]
        if not lines:
            return ""
        return "\n".join([f"struct {self.symbol}_state {{", *lines, "};", ""])

    def init_assignments(self) -> list[str]:
        """Statements of `<symbol>_init` that store the constants."""
        lines = []
        for place, (name, member) in enumerate(self.constants.items()):
            given = f"constants[{place}]"
            if name in self._strings:
                given = f"partita_unpack({given}, state->{member}_unpacked, {self._strings[name]})"
            lines.append(f"    state->{member} = {given};")
        return lines
