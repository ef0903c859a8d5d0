"""One meaning per operator: every node comes to mean what the newest opset says, and every value gets a type.

    before: <ir_version: 8, opset_import: ["" : 11]>
            model (float[2, 3] x) => (float[3, 2] y) {
                a = Unsqueeze <axes = [0]> (x)
                b = Softmax <axis = 2> (a)
                c = Squeeze <axes = [0]> (b)
                y = Transpose <perm = [1, 0]> (c)
            }
    after:  model (float[2, 3] x) => (float[3, 2] y)
                <int64[1] axes = {0}, int64[1] again = {0}> {
                a = Unsqueeze (x, axes)
                b = Softmax <axis = 2> (a)
                c = Squeeze (b, again)
                y = Transpose <perm = [1, 0]> (c)
            }

How each operator changed stands beside its definition, in `partita/ir/operators`. Composite operators stay whole: a
backend may know better than their decomposition (`partita.passes.decompose`).
"""

from __future__ import annotations

import networkx as nx

from partita.errors import ModelError, PartitaError, ShapeError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Graph, Node, Value
from partita.ir.inference import infer_node
from partita.ir.nested import bodies
from partita.ir.operators import definition, known
from partita.ir.operators.control_flow import chosen_branch, enter
from partita.ir.operators.internal import is_observation, observe, vector_of
from partita.ir.opsets import attributes_to_operands, write_defaults
from partita.ir.schema import NEWEST_OPSET, form_problems, type_problems
from partita.ir.subgraph import inline, sink
from partita.ir.types import DType, TensorType, UndeterminedTypeError


def canonicalize(graph: Graph) -> bool:
    """Upgrades and types all nodes, those of subgraphs too. `ModelError` lists every node that has not the form its
    operator set asks for; `ShapeError`, the first whose operands do not fit."""
    problems = _form(graph)
    if problems:
        raise ModelError("\n".join(problems))
    return _copy_text(graph) | _canonicalize(graph)


def _copy_text(graph: Graph) -> bool:
    """A node for each output that is a parameter of strings: a table holds these packed."""
    found = {value: value.parameter for value in graph.outputs if value.parameter is not None and is_text(value)}
    for value, parameter in found.items():
        build = Builder(graph, value.name)
        copy = build("Identity", build.constant(parameter.array, DType.STRING))
        graph.set_outputs(copy if output is value else output for output in graph.outputs)
        name = value.name
        graph.rename(value, f"{name}.text")
        graph.rename(copy, name)
    return bool(found)


def is_text(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype is DType.STRING


def _form(graph: Graph) -> list[str]:
    problems: list[str] = []
    for node in graph.nodes:
        problems += form_problems(node)
        for body in bodies(node).values():
            problems += _form(body)
    return problems


def _canonicalize(graph: Graph) -> bool:
    changed = graph.opsets.get("") != NEWEST_OPSET
    graph.opsets[""] = NEWEST_OPSET
    for node in graph.nodes:
        if node in graph.topology:  # else it went into branches
            changed |= _enter_branches(graph, node) or upgrade(graph, node)
    return changed


def _enter_branches(graph: Graph, node: Node) -> bool:
    """Moves a node into the branches of the If whose result it reads, where that has another rank in each: inside of
    them it is known. What lies between the two goes along."""
    branching = next((value.producer for value in node.operands if value.producer and _has_no_rank(value)), None)
    if branching is None or branching.op_type != "If" or branching.domain:
        return False
    between = nx.descendants(graph.topology, branching) & nx.ancestors(graph.topology, node)
    followers = [each for each in graph.nodes if each in between] + [node]
    if any(map(is_observation, followers)):
        return False
    upgrade(graph, sink(graph, branching, followers))
    return True


def _has_no_rank(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape is None


def upgrade(graph: Graph, node: Node) -> bool:
    """Brings one node, whose operands are typed, to the newest opset, and types what it gives."""
    try:
        return _upgrade(graph, node)
    except PartitaError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise ModelError(f"{node.describe()}: {error}") from error


def _upgrade(graph: Graph, node: Node) -> bool:
    old = node.version
    changed = False
    if node.domain == "" and old < NEWEST_OPSET:
        write_defaults(node)
        operator = definition(node)
        for before, step in operator.upgrades if operator is not None else ():
            values = step(Builder(graph, node.name), node) if old < before else None
            if values is not None:
                results = [values] if isinstance(values, Value) else list(values)
                graph.replace_node(node, results + [None] * (len(node.outputs) - len(results)))
                return True
        attributes_to_operands(Builder(graph, node.name), node)
        node.version = NEWEST_OPSET
        changed = True
    if bodies(node):
        chosen = chosen_branch(node)
        if chosen is not None:
            for fresh in inline(graph, node, chosen):
                upgrade(graph, fresh)
            return True
        changed |= _canonicalize_bodies(graph, node)
    values = _sized_by_data(graph, node)
    if values is not None:
        graph.replace_node(node, values)
        return True
    untyped = [output.type for output in node.outputs]
    infer_node(node)
    changed |= untyped != [output.type for output in node.outputs]
    problems = type_problems(node)
    if problems:
        raise ModelError("\n".join(problems))
    return changed


def _canonicalize_bodies(graph: Graph, node: Node) -> bool:
    """The bodies of one node. Branches are written for sizes that others need not have (`Squeeze` where an axis is 1):
    one whose sizes contradict each other fails when a run takes it, as long as there is another."""
    enter(node)
    changed, broken = False, dict[str, ShapeError]()
    with dims.equations():  # told again where the node is typed
        for name, body in bodies(node).items():
            try:
                changed |= _canonicalize(body)
            except ShapeError as error:
                broken[name] = error
    if len(broken) == 1 and node.op_type == "If":
        _give_up(graph, node, *broken.popitem())
    if broken:
        raise ShapeError("\n".join(map(str, broken.values())))
    return changed


def _give_up(graph: Graph, node: Node, name: str, problem: ShapeError) -> None:
    """Puts a graph in the place of a branch that fails with what is wrong with that: it observes that the condition is
    not what led there. What it gives has the types of what the other branch gives."""
    (other,) = (body for key, body in bodies(node).items() if key != name)
    if not all(isinstance(output.type, TensorType) and output.type.shape is not None for output in other.outputs):
        raise problem
    body = Graph(other.name, f"{graph.unique_name(f'{node.name}.{name}')}.", graph.opsets)
    for inner in (body, other):
        for value in [*node.operands[1:], node.operand(0)][len(inner.inputs) :]:
            inner.add_input(inner.unique_name(value.name), value.type)
    graph.set_inputs(node, [*node.inputs, node.operand(0)])
    node.attributes = {**node.attributes, name: body, "captures": len(body.inputs)}
    build = Builder(body, node.name)
    holds = body.inputs[-1] if name == "else_branch" else build("Not", body.inputs[-1])
    shapes = [value.type.shape or () for value in node.operands if isinstance(value.type, TensorType)]
    outside = {symbol for shape in shapes for dim in shape for symbol in dims.symbols_of(dim)}
    message, results = f"its {name} cannot run: {problem}", []
    for output in other.outputs:
        own = [n for n, dim in enumerate(output.shape) if not outside.issuperset(dims.symbols_of(dim))]
        sizes = observe(build, build.ints([0] * (len(own) + 1)), holds, message)
        parts = [
            build("Gather", sizes, [own.index(n)]) if n in own else vector_of(build, [dim])
            for n, dim in enumerate(output.shape)
        ]
        shape = build("Concat", *parts, axis=0) if parts else build.ints([])
        results.append(
            build(
                "Expand",
                build.cast(build("Gather", sizes, build.constant(len(own), DType.INT64)), output.tensor.dtype),
                shape,
            )
        )
    body.set_outputs(results)


def _sized_by_data(graph: Graph, node: Node) -> list[Value] | None:
    """What takes the place of a node's outputs where an operand that shapes them depends on the inputs."""
    operator = definition(node)
    if operator is None or operator.sized_by_data is None:
        return None
    shaping = [node.input(index) for index in operator.structure]
    if operator.structure and all(value is None or _is_empty(value) or known(value) is not None for value in shaping):
        return None
    try:
        result = operator.sized_by_data(Builder(graph, node.name), node)
    except UndeterminedTypeError:  # told when nobody claims the node, beside what gave no type
        return None
    if result is None:
        return None
    return [result] if isinstance(result, Value) else list(result)


def _is_empty(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.shape == (0,)
