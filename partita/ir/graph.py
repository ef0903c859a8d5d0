"""The graph: the only file that changes topology.

Nodes and values have identity. Topology is a `networkx.MultiDiGraph` over nodes (edge key = (output index, input
index)); operand order lives in the nodes, since predecessor order is not kept by rewiring. Graph inputs and
parameters are values without a producer. Order is deterministic everywhere: nodes are numbered as they are made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np

from partita.ir.maps import Maps
from partita.ir.types import TensorType, Type, UndeterminedTypeError, UnknownType

Attribute = Any  # int | float | str | tuple of them | np.ndarray | Graph | Type
Use = tuple["Node", int]


class Value:
    """One result of a node, a graph input or a parameter. `known` holds its content where the compiler knows it:
    an object array of dimensions (integers or symbolic), for small integer tensors such as shapes."""

    __slots__ = ("index", "known", "name", "parameter", "producer", "type")

    def __init__(self, name: str, type: Type | None = None, producer: Node | None = None, index: int = 0) -> None:
        self.name = name
        self.type: Type = type if type is not None else UnknownType()
        self.producer = producer
        self.index = index
        self.known: np.ndarray[Any, np.dtype[Any]] | None = None
        self.parameter: Parameter | None = None

    @property
    def tensor(self) -> TensorType:
        """The type, which must be a tensor's."""
        if not isinstance(self.type, TensorType):
            raise UndeterminedTypeError(f"value {self.name!r} is {self.type}, not a tensor")
        return self.type

    @property
    def shape(self) -> tuple[Any, ...]:
        return self.tensor.dims

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


class Node:
    """One application of an operator. `inputs` holds None where an optional operand is absent; both tuples are
    changed through the graph's methods only."""

    __slots__ = ("_inputs", "_outputs", "attributes", "domain", "name", "number", "op_type", "version")

    def __init__(
        self,
        number: int,
        op_type: str,
        domain: str,
        version: int,
        attributes: Mapping[str, Attribute],
        name: str,
    ) -> None:
        self.number = number
        self.op_type = op_type
        self.domain = domain
        self.version = version
        self.attributes: dict[str, Attribute] = dict(attributes)
        self.name = name
        self._inputs: tuple[Value | None, ...] = ()
        self._outputs: tuple[Value, ...] = ()

    @property
    def inputs(self) -> tuple[Value | None, ...]:
        return self._inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        return self._outputs

    @property
    def operands(self) -> tuple[Value, ...]:
        """The inputs that are present."""
        return tuple(value for value in self._inputs if value is not None)

    def input(self, index: int) -> Value | None:
        """Input `index`, or None where it is absent or beyond the end."""
        return self._inputs[index] if index < len(self._inputs) else None

    def operand(self, index: int) -> Value:
        """Input `index`, which must be there."""
        value = self.input(index)
        if value is None:
            raise ValueError(f"{self.describe()} lacks its input {index}")
        return value

    @property
    def output(self) -> Value:
        """The first output."""
        return self._outputs[0]

    @property
    def qualified_type(self) -> str:
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type

    def describe(self) -> str:
        """Operator, name and operand types, for messages."""
        operands = ", ".join(f"{v.name}: {v.type}" if v is not None else "-" for v in self._inputs)
        domain = self.domain or "ai.onnx"
        return f"node {self.name!r} ({self.op_type}, domain {domain}, opset {self.version}) on ({operands})"

    def __repr__(self) -> str:
        outputs = ", ".join(v.name for v in self._outputs)
        inputs = ", ".join(v.name if v is not None else "-" for v in self._inputs)
        return f"{outputs} = {self.qualified_type}({inputs})"


class Parameter:
    """A value that is known at bind time. `load` gives its array, without a copy where the file allows.

    `is_constant` tells a constant of the program's (a Constant node), which no rebinding changes, from a weight.
    Looking at a weight's content to decide something bakes it: `bake` records that.
    """

    __slots__ = ("_load", "baked", "is_constant", "on_bake", "value")

    def __init__(self, value: Value, load: Callable[[], np.ndarray[Any, Any]], *, is_constant: bool = False) -> None:
        self.value = value
        self._load = load
        self.is_constant = is_constant
        self.baked = False
        self.on_bake: Callable[[], object] | None = None  # bakes what this one was made from

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The content, for bind-time evaluation: does not bake."""
        return self._load()

    def bake(self) -> np.ndarray[Any, Any]:
        """The content, for a decision of the compiler's: new weights must keep it."""
        if self.on_bake is not None:
            self.on_bake()
        self.baked = self.baked or not self.is_constant
        return self._load()


class Graph:
    """A dataflow graph in single assignment form. See the module's docstring."""

    def __init__(self, name: str = "graph", prefix: str = "", opsets: Mapping[str, int] | None = None) -> None:
        self.name = name
        self.prefix = prefix  # of fresh names: a body's, so that no other graph of the model makes the same
        self.inputs: list[Value] = []
        self.parameters: dict[Value, Parameter] = {}
        self.opsets: dict[str, int] = dict(opsets or {})
        self.digest = ""  # of the message it was read from, large weights apart; "" where that does not say all
        self.maps: Maps = ()  # at the border of the model, where this is one's graph
        self._outputs: list[Value] = []
        self._topology: nx.MultiDiGraph[Node] = nx.MultiDiGraph()
        self._uses: dict[Value, dict[Use, None]] = {}
        self._names: dict[str, Value | None] = {}
        self._counter = itertools.count()
        self._order: list[Node] | None = None

    # ------------------------------------------------------------------ reading

    @property
    def topology(self) -> nx.MultiDiGraph[Node]:
        """The networkx view of the nodes, for its algorithms; not to be changed."""
        return self._topology

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple(self._outputs)

    @property
    def nodes(self) -> list[Node]:
        """All nodes in topological order, ties broken by number."""
        if self._order is None:
            order = nx.lexicographical_topological_sort(self._topology, key=lambda node: node.number)
            self._order = list(order)
        return list(self._order)

    def uses(self, value: Value) -> tuple[Use, ...]:
        """(node, input index) of every operand that reads `value`; graph outputs are not among them."""
        return tuple(self._uses.get(value, ()))

    def consumers(self, value: Value) -> list[Node]:
        """The nodes that read `value`, each once."""
        return list(dict.fromkeys(node for node, _ in self._uses.get(value, ())))

    def is_output(self, value: Value) -> bool:
        return any(value is output for output in self._outputs)

    def values(self) -> Iterator[Value]:
        """Every value: inputs, parameters, then results in topological order."""
        yield from self.inputs
        yield from self.parameters
        for node in self.nodes:
            yield from node.outputs

    def value_named(self, name: str) -> Value | None:
        """The value of this name, or None."""
        return self._names.get(name)

    def unique_name(self, stem: str, *, besides: Sequence[str] = ()) -> str:
        """`stem` after the graph's prefix, or the first `stem.N`, that no value has and that is not among `besides`."""
        stem = stem or "value"
        if not stem.startswith(self.prefix):
            stem = self.prefix + stem
        candidates = itertools.chain([stem], (f"{stem}.{n}" for n in itertools.count(1)))
        return next(name for name in candidates if name not in self._names and name not in besides)

    def unique_names(self, stems: Iterable[str]) -> list[str]:
        """A name for each, none like another; see `unique_name`."""
        names: list[str] = []
        for stem in stems:
            names.append(self.unique_name(stem, besides=names))
        return names

    # ------------------------------------------------------------------ changing

    def add_input(self, name: str, type: Type) -> Value:
        value = self._named(Value(self._claim(name), type))
        self.inputs.append(value)
        return value

    def add_parameter(
        self, name: str, type: Type, load: Callable[[], np.ndarray[Any, Any]], *, is_constant: bool = False
    ) -> Value:
        value = self._named(Value(self._claim(name), type))
        value.parameter = Parameter(value, load, is_constant=is_constant)
        self.parameters[value] = value.parameter
        return value

    def add_node(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        outputs: Sequence[str] = ("",),
        domain: str = "",
        name: str = "",
        version: int | None = None,
    ) -> Node:
        """A new node. An output named "" gets a name made from the node's; types are left to inference."""
        number = next(self._counter)
        version = version if version is not None else self.opsets.get(domain, 1)
        node = Node(number, op_type, domain, version, attributes or {}, name or f"{self.prefix}{op_type}_{number}")
        self._topology.add_node(node)
        node._outputs = tuple(
            self._named(Value(self._claim(output or self.unique_name(f"{node.name}.out")), producer=node, index=index))
            for index, output in enumerate(outputs)
        )
        node._inputs = tuple(inputs)
        for index, value in enumerate(inputs):
            self._connect(node, index, value)
        self._order = None
        return node

    def remove_node(self, node: Node) -> None:
        """Takes out a node none of whose outputs is used."""
        for output in node.outputs:
            if self._uses.get(output) or self.is_output(output):
                raise ValueError(f"{node!r} cannot be removed: {output.name!r} is still used")
        for index, value in enumerate(node.inputs):
            self._disconnect(node, index, value)
        self._topology.remove_node(node)
        for output in node.outputs:
            self._names.pop(output.name, None)
            self._uses.pop(output, None)
        self._order = None

    def remove_parameter(self, value: Value) -> None:
        """Takes out a parameter that nothing reads."""
        if self._uses.get(value) or self.is_output(value):
            raise ValueError(f"parameter {value.name!r} cannot be removed: it is still used")
        del self.parameters[value]
        self._names.pop(value.name, None)

    def remove_input(self, value: Value) -> None:
        """Takes out an input that nothing reads; a node that holds this graph must give up the operand behind it."""
        if self._uses.get(value) or self.is_output(value):
            raise ValueError(f"input {value.name!r} cannot be removed: it is still used")
        self.inputs.remove(value)
        self._names.pop(value.name, None)

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Makes `value` the operand `index` of `node`; the list of operands grows with absent ones as needed."""
        inputs = list(node.inputs) + [None] * (index + 1 - len(node.inputs))
        self._disconnect(node, index, inputs[index])
        inputs[index] = value
        node._inputs = tuple(inputs)
        self._connect(node, index, value)
        self._order = None

    def set_inputs(self, node: Node, inputs: Iterable[Value | None]) -> None:
        """Replaces all operands of `node`."""
        for index, value in enumerate(node.inputs):
            self._disconnect(node, index, value)
        node._inputs = tuple(inputs)
        for index, value in enumerate(node.inputs):
            self._connect(node, index, value)
        self._order = None

    def set_outputs(self, outputs: Iterable[Value]) -> None:
        """Declares the graph's outputs: any values, also inputs, parameters and repeated ones."""
        self._outputs = list(outputs)

    def add_output(self, node: Node, name: str = "") -> Value:
        """One more result of `node`."""
        fresh = self._claim(name or self.unique_name(f"{node.name}.out"))
        value = self._named(Value(fresh, producer=node, index=len(node.outputs)))
        node._outputs = (*node.outputs, value)
        return value

    def replace_uses(self, old: Value, new: Value) -> None:
        """Lets every reader of `old`, the graph's outputs included, read `new`."""
        for node, index in self.uses(old):
            self.set_input(node, index, new)
        self._outputs = [new if output is old else output for output in self._outputs]

    def replace_node(self, node: Node, values: Sequence[Value | None]) -> None:
        """Takes out `node` and lets the readers of its outputs read `values`; None stands for an output that nothing
        reads. The graph's outputs keep their names: where a value cannot take the name over, as it is an input, a
        parameter or an output itself, an Identity carries it."""
        named: list[tuple[Value, str]] = []
        for old, new in zip(node.outputs, values, strict=True):
            if new is None:
                continue
            if self.is_output(old):
                carrier = new
                if new.producer is None or self.is_output(new):
                    carrier = self.add_node("Identity", [new]).output
                    carrier.type, carrier.known = new.type, new.known
                self._outputs = [carrier if output is old else output for output in self._outputs]
                named.append((carrier, old.name))
            self.replace_uses(old, new)
        self.remove_node(node)
        for value, name in named:
            self.rename(value, name)

    def rename(self, value: Value, name: str) -> None:
        """Gives `value` another name, made unique."""
        self._names.pop(value.name, None)
        value.name = self._claim(self.unique_name(name))
        self._named(value)

    def _claim(self, name: str) -> str:
        if name in self._names:
            raise ValueError(f"the name {name!r} is taken")
        self._names[name] = None
        return name

    def _named(self, value: Value) -> Value:
        self._names[value.name] = value
        return value

    def _connect(self, node: Node, index: int, value: Value | None) -> None:
        if value is None:
            return
        self._uses.setdefault(value, {})[(node, index)] = None
        if value.producer is not None:
            self._topology.add_edge(value.producer, node, key=(value.index, index))

    def _disconnect(self, node: Node, index: int, value: Value | None) -> None:
        if value is None:
            return
        del self._uses[value][(node, index)]
        if value.producer is not None:
            self._topology.remove_edge(value.producer, node, key=(value.index, index))
