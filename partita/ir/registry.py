"""One definition per operator: what ONNX's schemas and function bodies do not say.

Rules that are declared here may name more than the node: further parameters are its operands, in order (None where one
is absent), `*rest` those after them, and keyword-only ones its attributes, defaulting to what an absent one means.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from partita.ir.contents import Known
from partita.ir.expression import Computation
from partita.ir.graph import Node, Value
from partita.ir.procedure import Procedure
from partita.ir.routine import Routine
from partita.ir.types import Type

# Of a node, or of a builder and a node; then of operands and attributes.
Compute = Callable[..., Computation | Sequence[Computation]]
Perform = Callable[..., Procedure]
Call = Callable[..., Routine]
Infer = Callable[..., Type | Sequence[Type]]
Declared = TypeVar("Declared", bound=Callable[..., Any])
Decompose = Callable[..., Value | Sequence[Value]]
Replace = Callable[..., Value | Sequence[Value] | None]
Propagate = Callable[..., Known | None]
Upgrade = Callable[..., Value | Sequence[Value | None] | None]


@dataclass(slots=True)
class Operator:
    """What Partita knows of an operator beyond its ONNX schema."""

    name: str
    domain: str = ""
    compute: Compute | None = None  # the outputs as expressions; shape and type follow from them
    procedure: Perform | None = None  # the outputs step by step, where no expression can say them element by element
    routine: Call | None = None  # the outputs, and their types, by one call of a function that a backend brings
    infer: Infer | None = None  # the output types; without a rule, ONNX tells those that no expression gives
    decompose: Decompose | None = None  # the operator in terms of others, when no backend claims it whole
    propagate: Propagate | None = None  # the content of a small output of sizes, where no expression tells it
    upgrades: list[tuple[int, Upgrade]] = field(default_factory=list)  # steps from older opsets' meanings to the newest
    sized_by_data: Replace | None = None  # in terms of others and of observed sizes, where operands of these places,
    structure: tuple[int, ...] = ()  # which are expected to be known, depend on the inputs
    is_view: bool = False  # the first output is the first operand under another shape: no data need move

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


def of_node(rule: Declared) -> Declared:
    """The rule as a function of a builder, if it takes one, and a node: these give it all else that it names."""
    parameters = inspect.signature(rule, follow_wrapped=False).parameters.values()
    if not any(p.name == "node" for p in parameters):
        return rule  # it stands below another declaration
    count = len([p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in ("build", "node")])
    takes_rest = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

    @functools.wraps(rule)
    def filled(*leading: Any) -> Any:
        node: Node = leading[-1]
        operands = [*map(node.input, range(count)), *(node.inputs[count:] if takes_rest else ())]
        attributes = {key: node.attributes[key] for key in keywords if key in node.attributes}
        return rule(*leading, *operands, **attributes)

    return cast(Declared, filled)


@dataclass(frozen=True)
class Declare(Generic[Declared]):
    """A decorator: puts the decorated function into a slot of the operators named."""

    slot: str

    def __call__(self, *names: str, domain: str = "") -> Callable[[Declared], Declared]:
        def register(function: Declared) -> Declared:
            rule = of_node(function)
            for name in names:
                setattr(operator(name, domain), self.slot, rule)
            return rule

        return register


computes = Declare[Compute]("compute")
performs = Declare[Perform]("procedure")
infers = Declare[Infer]("infer")
calls = Declare[Call]("routine")
decomposes = Declare[Decompose]("decompose")
propagates = Declare[Propagate]("propagate")
becomes = Declare[Replace]("sized_by_data")
"""What all nodes become when they are brought to one meaning, before any backend is asked; None: it stays. Of older
versions of the operator too, where the domain is not ONNX's own."""


def upgrades(*names: str, before: int, domain: str = "") -> Callable[[Upgrade], Upgrade]:
    """Declares what nodes of opsets older than `before` need to mean the same in `before`. The step changes the node in
    place, or gives the values that take the place of its outputs. Steps run from the oldest on."""

    def register(function: Upgrade) -> Upgrade:
        for name in names:
            steps = operator(name, domain).upgrades
            steps.append((before, of_node(function)))
            steps.sort(key=lambda step: step[0])
        return function

    return register


def sized_by_data(*names: str, operands: Sequence[int]) -> Callable[[Replace], Replace]:
    """Declares what nodes become whose `operands`, which shape the result, are not known when compiling."""
    for name in names:
        operator(name).structure = tuple(operands)
    return becomes(*names)


def value_renamed(*names: str, before: int, attribute: str, values: dict[Any, Any]) -> None:
    """Values of an attribute that are spelled otherwise now; None stands for its absence."""

    def step(build: object, node: Node) -> None:
        old = node.attributes.get(attribute)
        node.attributes.update({attribute: values[old]} if old in values else {})

    upgrades(*names, before=before)(step)
