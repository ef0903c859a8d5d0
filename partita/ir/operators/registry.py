"""One definition per operator: what ONNX's schemas and function bodies do not say.

A definition gives any of
- `compute(node)`: the outputs as expressions; shape and type follow from them;
- `procedure(node)`: the outputs step by step, where no expression can say them element by element;
- `routine(node)`: the outputs, and their types, by one call of a function that a backend brings;
- `infer(node)`: the output types, for operators that no expression describes;
- `decompose(builder, node)`: the operator in terms of others, when no backend claims it whole;
- `propagate(node)`: the content of a small output of sizes, where no expression tells it (`shape.content`);
- `upgrades`: the steps from older opsets' meanings to the newest one;
- `sized_by_data`: the operator in terms of others and of observed sizes, for operands that are expected to be known
  but depend on the inputs;
- `is_view`: the first output is the first operand under another shape, so that no data need move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from partita.ir.builder import Builder
from partita.ir.expression import Computation
from partita.ir.graph import Node, Value
from partita.ir.operators.contents import Known
from partita.ir.procedure import Procedure
from partita.ir.routine import Routine
from partita.ir.types import Type

Compute = Callable[[Node], Computation | Sequence[Computation]]
Perform = Callable[[Node], Procedure]
Call = Callable[[Node], Routine]
Infer = Callable[[Node], Type | Sequence[Type]]
Rule = TypeVar("Rule", bound=Infer)  # one that says which of these types it gives
Declared = TypeVar("Declared")
Decompose = Callable[[Builder, Node], Value | Sequence[Value]]
Replace = Callable[[Builder, Node], Value | Sequence[Value] | None]
Propagate = Callable[[Node], Known | None]
Upgrade = Callable[[Builder, Node], Value | Sequence[Value | None] | None]


@dataclass(slots=True)
class Operator:
    """What Partita knows of an operator beyond its ONNX schema."""

    name: str
    domain: str = ""
    compute: Compute | None = None
    procedure: Perform | None = None
    routine: Call | None = None
    infer: Infer | None = None
    decompose: Decompose | None = None
    propagate: Propagate | None = None
    upgrades: list[tuple[int, Upgrade]] = field(default_factory=list)
    structure: tuple[int, ...] = ()
    sized_by_data: Replace | None = None
    is_view: bool = False

    def computations(self, node: Node) -> tuple[Computation, ...]:
        """The outputs of `node` as expressions, one each."""
        assert self.compute is not None
        result = self.compute(node)
        return (result,) if isinstance(result, Computation) else tuple(result)


_OPERATORS: dict[tuple[str, str], Operator] = {}


def operator(name: str, domain: str = "") -> Operator:
    """The definition of an operator, made empty at the first call."""
    return _OPERATORS.setdefault((domain, name), Operator(name, domain))


def definition(node: Node) -> Operator | None:
    """The definition behind `node`, or None."""
    return _OPERATORS.get((node.domain, node.op_type))


def definitions() -> Iterable[Operator]:
    return _OPERATORS.values()


def _declare(slot: str, names: Sequence[str], domain: str) -> Callable[[Declared], Declared]:
    """Puts the decorated function into a slot of these operators."""

    def register(function: Declared) -> Declared:
        for name in names:
            setattr(operator(name, domain), slot, function)
        return function

    return register


def computes(*names: str, domain: str = "") -> Callable[[Compute], Compute]:
    """Declares the decorated function as the expression of these operators."""
    return _declare("compute", names, domain)


def performs(*names: str, domain: str = "") -> Callable[[Perform], Perform]:
    """Declares the decorated function as the procedure of these operators; their types come from `infers`."""
    return _declare("procedure", names, domain)


def calls(*names: str, domain: str = "") -> Callable[[Call], Call]:
    """Declares the decorated function as the routine of these operators, which tells their types too."""
    return _declare("routine", names, domain)


def infers(*names: str, domain: str = "") -> Callable[[Rule], Rule]:
    return _declare("infer", names, domain)


def keeps_type(*names: str, domain: str = "") -> None:
    """Declares operators whose only output has the type of the first operand."""
    infers(*names, domain=domain)(lambda node: node.operand(0).type)


def decomposes(*names: str, domain: str = "") -> Callable[[Decompose], Decompose]:
    return _declare("decompose", names, domain)


def propagates(*names: str, domain: str = "") -> Callable[[Propagate], Propagate]:
    return _declare("propagate", names, domain)


def upgrades(*names: str, before: int, domain: str = "") -> Callable[[Upgrade], Upgrade]:
    """Declares what nodes of opsets older than `before` need to mean the same in `before`. The step changes the node in
    place, or gives the values that take the place of its outputs. Steps run from the oldest on."""

    def register(function: Upgrade) -> Upgrade:
        for name in names:
            steps = operator(name, domain).upgrades
            steps.append((before, function))
            steps.sort(key=lambda step: step[0])
        return function

    return register


def sized_by_data(*names: str, operands: Sequence[int]) -> Callable[[Replace], Replace]:
    """Declares what nodes become whose `operands`, which shape the result, are not known when compiling."""
    for name in names:
        operator(name).structure = tuple(operands)
    return _declare("sized_by_data", names, "")


def becomes(*names: str, domain: str = "") -> Callable[[Replace], Replace]:
    """Declares what all nodes become when they are brought to one meaning, before any backend is asked; None: it stays.
    Of older versions of the operator too, where the domain is not ONNX's own."""
    return _declare("sized_by_data", names, domain)
