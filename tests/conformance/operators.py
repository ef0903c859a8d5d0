"""What runs of every operator of the standard: compiles a model for each of its versions and element types, and writes
docs/operators.md with `python tests/conformance/operators.py --update`."""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import defs, numpy_helper
from operator_samples import cases, parameters, sample

import partita
from partita.backends.base import Accept, Backend
from partita.backends.cpu.sequences import SEQUENCE_OPERATORS
from partita.backends.dnnl import BACKEND as DNNL
from partita.backends.reference import BACKEND as REFERENCE
from partita.errors import PartitaError
from partita.ir.operators import Operator, definitions
from partita.ir.read_onnx import read_onnx
from partita.passes import pipeline

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"
COMMAND = "python tests/conformance/operators.py --update"
BUILD = partita.BuildOptions(cache=False)
GROUPS = {
    "floats": ("float16", "bfloat16", "float", "double"),
    "ints": ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    "float8": ("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz"),
    "narrow": ("float8e8m0", "float4e2m1", "int4", "uint4", "int2", "uint2"),
    "complex": ("complex64", "complex128"),
    "float6": ("float6e2m3", "float6e3m2"),
}
PREAMBLE = f"""# Operators

Every operator of the standard's domains in onnx {onnx.__version__}. The page is made by

```sh
{COMMAND}
```

which compiles a model of one node for each version of an operator, and for each element type that its newest version
allows. That results are right is shown elsewhere: by the ONNX suite ([conformance.md](conformance.md)) and the tests.
What happens at the edges of numbers is in [semantics.md](semantics.md).

- **versions**: the opsets that changed the operator. Those that are listed compile; nodes of older ones come to mean
  what the newest opset says, which the other columns are about.
- **types**: by parameter of the operator's signature, in groups. What follows "not" is in the signature, and refused
  with an error that names it.
{chr(10).join(f"  - *{name}*: {', '.join(members)}" for name, members in GROUPS.items())}
  - *any*: the first four of these, bool and string
- **cpu**: an *expression*, *procedure* or *routine*, as [backends.md](backends.md#cpu-the-host) tells them apart; a
  *view*, which moves no data; *others*, which it becomes; ONNX's own *function*, others too; a *list* operation, on
  sequences and optional values; *control flow*. What has an expression is done when compiling where it reads sizes
  alone.
- **dnnl** takes the operator where it is of float32 and of known sizes, with weights that are parameters.
- **reference** interprets it; what becomes others before a backend is asked, by those.
"""


@dataclass(frozen=True)
class Row:
    """What is known of an operator; refusals with their reasons."""

    schema: defs.OpSchema
    versions: tuple[int, ...]
    refused_versions: dict[int, str]
    types: dict[str, list[str]]
    refused_types: dict[str, str]
    cpu: str
    dnnl: bool
    reference: bool


def schemas() -> dict[tuple[str, str], list[defs.OpSchema]]:
    """The versions of each operator, the newest first."""
    found: dict[tuple[str, str], list[defs.OpSchema]] = {}
    for schema in sorted(defs.get_all_schemas_with_history(), key=lambda s: (s.domain, s.name, -s.since_version)):
        found.setdefault((schema.domain, schema.name), []).append(schema)
    return found


def refusal(model: onnx.ModelProto) -> str:
    """Why a model is refused; "" where it compiles."""
    try:
        partita.compile(model, name="sample", build=BUILD)
    except PartitaError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def row(history: Sequence[defs.OpSchema]) -> Row:
    """Tries all there is of an operator."""
    current = [schema for schema in history if not schema.deprecated]
    newest = current[0]
    by_version = {schema.since_version: refusal(sample(schema)) for schema in reversed(current)}
    types: dict[str, list[str]] = {}
    refused: dict[str, str] = {}
    for name, allowed in parameters(newest).items() if not by_version[newest.since_version] else ():
        for text in allowed:
            reason = refusal(sample(newest, {name: text}))
            if reason:
                refused[text] = reason
            else:
                types.setdefault(name, []).append(text)
    return Row(
        newest,
        tuple(version for version, reason in by_version.items() if not reason),
        {version: reason for version, reason in by_version.items() if reason},
        types,
        refused,
        how(newest),
        any(is_claimed(newest, DNNL(), with_parameters(model)) for model in models(newest)),
        any(is_claimed(newest, REFERENCE(), model) for model in models(newest)),
    )


def how(schema: defs.OpSchema) -> str:
    """In which way the host computes the operator."""
    found: dict[tuple[str, str], Operator] = {(each.domain, each.name): each for each in definitions()}
    operator = found.get((schema.domain, schema.name), Operator(schema.name))
    if schema.name in ("If", "Loop"):
        return "control flow"
    if schema.name in SEQUENCE_OPERATORS:
        return "list"
    ways = {
        "view": operator.is_view,
        "expression": operator.compute,
        "procedure": operator.procedure,
        "routine": operator.routine,
        "others": operator.decompose or (operator.sized_by_data and not operator.structure),
        "function": schema.has_function or schema.has_context_dependent_function,
        "constant": schema.name == "Constant",
    }
    return next((name for name, has in ways.items() if has), "others")


def models(schema: defs.OpSchema) -> list[onnx.ModelProto]:
    """The operator in some of its forms."""
    found = cases().get((schema.domain, schema.name), [])
    return [sample(schema), *(case.model for case in found[1:8])]


def is_claimed(schema: defs.OpSchema, backend: Backend, model: onnx.ModelProto) -> bool:
    """Whether a backend takes the operator's node in a model; where it is others by then, all of those."""
    try:
        graph = read_onnx(model)
        pipeline.prepare(graph)
    except PartitaError:
        return False
    own = [node for node in graph.nodes if (node.domain, node.op_type) == (schema.domain, schema.name)]
    asked = own or graph.nodes
    return bool(asked) and all(isinstance(backend.claims(node), Accept) for node in asked)


def with_parameters(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with weights in place of all inputs but the first."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for info in list(graph.input)[1:]:
        kind = info.type.tensor_type
        if info.type.HasField("tensor_type") and kind.elem_type == onnx.TensorProto.FLOAT:
            shape = [dim.dim_value for dim in kind.shape.dim]
            graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), info.name))
            graph.input.remove(info)
    return copy


# ---------------------------------------------------------------------- the page


def page(rows: Iterable[Row]) -> str:
    """docs/operators.md."""
    lines, domain = [PREAMBLE], None
    for each in rows:
        if each.schema.domain != domain:
            domain = each.schema.domain
            lines += ["", f"## {domain or 'ai.onnx'}", ""]
            lines += ["| operator | versions | types | cpu | dnnl | reference |", "|---|---|---|---|---|---|"]
        lines.append(line(each))
    return "\n".join(lines) + "\n"


def line(each: Row) -> str:
    versions = ", ".join(map(str, each.versions)) or "none"
    if each.refused_versions and each.versions:
        versions += f", not {', '.join(map(str, each.refused_versions))}"
    newest = defs.get_schema(each.schema.name, each.schema.domain)
    if newest.deprecated:
        versions += f"; deprecated since {newest.since_version}"
    types = "; ".join(f"{name}: {grouped(found)}" for name, found in each.types.items())
    if each.refused_types:
        types += f"; not {grouped(each.refused_types)}"
    cpu = each.cpu if each.versions else f"refused: {reason(next(iter(each.refused_versions.values())))}"
    marks = ["yes" if claimed else "" for claimed in (each.dnnl, each.reference)]
    return f"| {each.schema.name} | {versions} | {types} | {cpu} | {' | '.join(marks)} |"


def grouped(types: Iterable[str]) -> str:
    """Types of a signature, shorter: `seq(tensor(float))` is "seq of float"."""
    kinds: dict[str, list[str]] = {}
    for text in types:
        outer, _, inner = text.rpartition("tensor(")
        kinds.setdefault(outer.replace("(", " of "), []).append(inner.rstrip(")") if "tensor(" in text else text)
    return ", ".join(f"{outer}{_grouped(names)}" for outer, names in kinds.items())


def _grouped(names: Sequence[str]) -> str:
    left, texts = list(names), []
    for group, members in GROUPS.items():
        if set(members) <= set(left):
            left = [name for name in left if name not in members]
            texts.append(group)
    every = [*list(GROUPS)[:4], "bool", "string"]
    texts += left
    if set(every) <= set(texts):
        texts = ["any", *(text for text in texts if text not in every)]
    return " ".join(texts)


def reason(text: str) -> str:
    """The last part of an error's message, which says why."""
    return text.splitlines()[-1].rpartition("): ")[2].rpartition(": ")[2].replace("|", "\\|")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/conformance/operators.py", description=__doc__)
    parser.add_argument("-k", metavar="PATTERN", default="", help="only the operators whose name matches")
    parser.add_argument("--update", action="store_true", help="write docs/operators.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [row(history) for (_, name), history in schemas().items() if re.search(options.k, name)]
    for each in rows:
        for what, problem in {**each.refused_versions, **each.refused_types}.items():
            print(f"{each.schema.name} {what}: {problem}")
    if options.update and not options.k:
        PAGE.write_text(page(rows))
    else:
        sys.stdout.write(page(rows))


if __name__ == "__main__":
    main()
