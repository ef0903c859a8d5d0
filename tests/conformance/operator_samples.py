"""A model of one operator, for every operator of the standard, at any of its versions and element types.

Most are cases of the ONNX suite with another opset or other types. The texts here are for operators that the suite
lacks, that hold graphs, or whose types stand in attributes. In a text `$T` is a type of the parameter T (`$T[2, 3]`
with that shape, `$T'` the tensors in it), `#T` the number of its elements' type, `%T` a tensor of one element.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_suite
from onnx import TensorProto, TypeProto, defs, helper

ML, TRAINING = "ai.onnx.ml", "ai.onnx.preview.training"
Key = tuple[str, str]  # domain and name

TREE = """nodes_featureids = [0, 0, 0], nodes_modes = ["BRANCH_LEQ", "LEAF", "LEAF"], nodes_values = [1.0, 0.0, 0.0],
    nodes_treeids = [0, 0, 0], nodes_nodeids = [0, 1, 2], nodes_truenodeids = [1, 0, 0], nodes_falsenodeids = [2, 0, 0],
    {0}_treeids = [0, 0], {0}_nodeids = [1, 2], {0}_ids = [0, 1], {0}_weights = [1.0, 2.0]"""
SVM = 'kernel_type = "RBF", kernel_params = [0.5, 0.0, 3.0], support_vectors = [0.0, 1.0, 1.0, 0.0]'
LABELS = {"int64": "classlabels_ints = [1, 2]", "string": 'classlabels_strings = ["a", "b"]'}
INTEGERS, FLOATS = "imputed_value_int64s = [1]", "imputed_value_floats = [1.0]"
NUMBERS, WORDS = "pool_int64s = [1, 2]", 'pool_strings = ["a", "b"]'
# What stands for `@T`, by the type.
CHOICES: dict[str, Mapping[str, str]] = {
    "LinearClassifier": LABELS,
    "SVMClassifier": LABELS,
    "TreeEnsembleClassifier": {**LABELS, "int64": "classlabels_int64s = [1, 2]"},
    "Imputer": {"int64": INTEGERS, "int32": INTEGERS, "float": FLOATS, "double": FLOATS},
    "TfIdfVectorizer": {"int64": NUMBERS, "int32": NUMBERS, "string": WORDS},
}

TEXTS: dict[Key, str] = {
    ("", "BitCast"): "($T1 x) => (y) { y = BitCast <to = #T1> (x) }",
    ("", "ConcatFromSequence"): "(seq($T) s) => (y) { y = ConcatFromSequence <axis = 0> (s) }",
    ("", "Constant"): "(float[1] x) => (y, z) { c = Constant <value = %T> () y = Identity (c) z = Neg (x) }",
    ("", "ConstantOfShape"): "(int64[2] x) => (y) { y = ConstantOfShape <value = %T2> (x) }",
    ("", "GlobalLpPool"): "($T[1, 2, 3, 3] x) => (y) { y = GlobalLpPool (x) }",
    ("", "If"): """($B[1] c, $V x) => (y) { y = If (c) <
        then_branch = a () => ($V t) { t = Identity (x) }, else_branch = b () => ($V e) { e = Identity (x) }> }""",
    ("", "Loop"): """($I[] n, $B[] c, $V x) => (y) { y = Loop (n, c, x) <
        body = b (int64 i, bool on, $V u) => (bool again, $V v) { again = Identity (on) v = Identity (u) }> }""",
    ("", "MaxRoiPool"): "($T[1, 2, 5, 5] x, $T[1, 5] r) => (y) { y = MaxRoiPool <pooled_shape = [2, 2]> (x, r) }",
    ("", "Multinomial"): "($T1[2, 3] x) => (y) { y = Multinomial <dtype = #T2, sample_size = 4> (x) }",
    ("", "Optional"): "($V x) => (y) { y = Optional (x) }",
    ("", "OptionalGetElement"): "($O x) => (y) { y = OptionalGetElement (x) }",
    ("", "OptionalHasElement"): "($O x) => (y) { y = OptionalHasElement (x) }",
    ("", "RandomNormal"): "(float[1] x) => (y, z) { y = RandomNormal <dtype = #T, shape = [2, 3]> () z = Neg (x) }",
    ("", "RandomNormalLike"): "($T1[2] x) => (y) { y = RandomNormalLike <dtype = #T2> (x) }",
    ("", "RandomUniform"): "(float[1] x) => (y, z) { y = RandomUniform <dtype = #T, shape = [2, 3]> () z = Neg (x) }",
    ("", "RandomUniformLike"): "($T1[2] x) => (y) { y = RandomUniformLike <dtype = #T2> (x) }",
    ("", "Scan"): """($V s, $V[3, 2] x) => (y, z) { y, z = Scan <num_scan_inputs = 1,
        body = b (a, e) => (t, f) { t = Identity (a) f = Identity (e) }> (s, x) }""",
    ("", "SequenceAt"): "($S s, $I[] i) => (y) { y = SequenceAt (s, i) }",
    ("", "SequenceConstruct"): "($T a, $T b) => (y) { y = SequenceConstruct (a, b) }",
    ("", "SequenceEmpty"): "($S' x) => (y) { s = SequenceEmpty <dtype = #S> () y = SequenceInsert (s, x) }",
    ("", "SequenceErase"): "($S s, $I[] i) => (y) { y = SequenceErase (s, i) }",
    ("", "SequenceInsert"): "($S s, $S' x, $I[] i) => (y) { y = SequenceInsert (s, x, i) }",
    ("", "SequenceLength"): "($S s) => (y) { y = SequenceLength (s) }",
    ("", "SequenceMap"): """($S s, $V v) => (y) { y = SequenceMap (s, v) <
        body = b ($S' e, $V' w) => ($S' f) { f = Identity (e) }> }""",
    ("", "SplitToSequence"): "($T[4] x, $I[] n) => (y) { y = SplitToSequence (x, n) }",
    ("", "TfIdfVectorizer"): """($T[4] x) => (y) { y = TfIdfVectorizer <max_gram_length = 1, max_skip_count = 0,
        min_gram_length = 1, mode = "TF", ngram_counts = [0], ngram_indexes = [0, 1], @T> (x) }""",
    (ML, "CastMap"): '($T1 x) => (y) { y = ai.onnx.ml.CastMap <cast_to = "TO_FLOAT"> (x) }',
    (ML, "CategoryMapper"): """($T1 x) => (y) { y = ai.onnx.ml.CategoryMapper
        <cats_int64s = [1, 2], cats_strings = ["a", "b"]> (x) }""",
    (ML, "DictVectorizer"): """($T1 x) => (y) { y = ai.onnx.ml.DictVectorizer
        <int64_vocabulary = [1, 2], string_vocabulary = ["a", "b"]> (x) }""",
    (ML, "FeatureVectorizer"): "($T1[2, 2] x) => (y) { y = ai.onnx.ml.FeatureVectorizer <inputdimensions = [2]> (x) }",
    (ML, "Imputer"): "($T[2, 2] x) => (y) { y = ai.onnx.ml.Imputer <@T> (x) }",
    (ML, "LabelEncoder"): """($T1[1] x) => (y) { y = ai.onnx.ml.LabelEncoder
        <keys_tensor = %T1, values_tensor = %T2> (x) }""",
    (ML, "LinearClassifier"): """($T1[3, 2] x) => (y, z) { y, z = ai.onnx.ml.LinearClassifier
        <coefficients = [1.0, 2.0, 3.0, 4.0], intercepts = [0.0, 1.0], @T2> (x) }""",
    (ML, "LinearRegressor"): "($T[3, 2] x) => (y) { y = ai.onnx.ml.LinearRegressor <coefficients = [1.0, 2.0]> (x) }",
    (ML, "Normalizer"): '($T[3, 2] x) => (y) { y = ai.onnx.ml.Normalizer <norm = "L2"> (x) }',
    (ML, "OneHotEncoder"): """($T[3] x) => (y) { y = ai.onnx.ml.OneHotEncoder
        <cats_int64s = [1, 2], cats_strings = ["a", "b"]> (x) }""",
    (ML, "Scaler"): "($T[3, 2] x) => (y) { y = ai.onnx.ml.Scaler <offset = [1.0], scale = [2.0]> (x) }",
    (ML, "SVMClassifier"): f"""($T1[3, 2] x) => (y, z) {{ y, z = ai.onnx.ml.SVMClassifier
        <{SVM}, coefficients = [1.0, -1.0], vectors_per_class = [1, 1], rho = [0.5], @T2> (x) }}""",
    (ML, "SVMRegressor"): f"""($T[3, 2] x) => (y) {{ y = ai.onnx.ml.SVMRegressor
        <{SVM}, coefficients = [1.0, -1.0], n_supports = 2, rho = [0.5]> (x) }}""",
    (ML, "TreeEnsembleClassifier"): f"""($T1[3, 2] x) => (y, z) {{ y, z = ai.onnx.ml.TreeEnsembleClassifier
        <{TREE.format("class")}, @T2> (x) }}""",
    (ML, "TreeEnsembleRegressor"): f"""($T[3, 2] x) => (y) {{ y = ai.onnx.ml.TreeEnsembleRegressor
        <{TREE.format("target")}, n_targets = 2> (x) }}""",
    (ML, "ZipMap"): "(float[3, 2] x) => (y) { y = ai.onnx.ml.ZipMap <classlabels_int64s = [1, 2]> (x) }",
    (TRAINING, "Gradient"): """($T2 a, $T2 b) => (d, e) { y = Mul (a, b)
        d, e = ai.onnx.preview.training.Gradient <xs = ["a", "b"], y = "y"> (a, b) }""",
}  # fmt: skip

TEXTS_OF_OLD: dict[tuple[str, str, int], str] = {
    ("", "BatchNormalization", 1): """($T[2, 3, 4] x, $T[3] s, $T[3] b, $T[3] m, $T[3] v) => (y) {
        y = BatchNormalization <consumed_inputs = [0, 0, 0, 1, 1], is_test = 1> (x, s, b, m, v) }""",
    ("", "Pad", 1): "($T[2, 3] x) => (y) { y = Pad <paddings = [0, 1, 1, 0]> (x) }",
    ("", "Resize", 10): "($T[1, 1, 2, 2] x, float[4] s) => (y) { y = Resize (x, s) }",
    ("", "Resize", 11): "($T1[1, 1, 2, 2] x, $T2[8] r, float[4] s) => (y) { y = Resize (x, r, s) }",
    ("", "Reshape", 1): "($T[2, 3] x) => (y) { y = Reshape <shape = [3, -1]> (x) }",
    ("", "Scan", 8): """($V[2, 3] s, $V[2, 4, 3] x) => (y, z) { y, z = Scan <num_scan_inputs = 1,
        body = b (a, e) => (t, f) { t = Identity (a) f = Identity (e) }> (, s, x) }""",
    ("", "PRelu", 1): "($T[2, 3, 4] x, $T[3] s) => (y) { y = PRelu (x, s) }",
    ("", "PRelu", 6): "($T[2, 3, 4] x, $T[3] s) => (y) { y = PRelu (x, s) }",
    ("", "Tile", 1): "($T[2, 3] x) => (y) <$T[] n = {2}, $T[] a = {1}> { y = Tile (x, n, a) }",
    ("", "TopK", 1): "($T[2, 3] x) => (y, i) { y, i = TopK <k = 2> (x) }",
    ("", "Upsample", 1): """($T[1, 1, 2, 2] x) => (y) { y = Upsample
        <height_scale = 2.0, width_scale = 2.0> (x) }""",
    ("", "Upsample", 7): "($T[1, 1, 2, 2] x) => (y) { y = Upsample <scales = [1.0, 1.0, 2.0, 2.0]> (x) }",
    ("", "Upsample", 9): "($T[1, 1, 2, 2] x, float[4] s) => (y) { y = Upsample (x, s) }",
    (ML, "LabelEncoder", 1): '($T1[2] x) => (y) { y = ai.onnx.ml.LabelEncoder <classes_strings = ["a"]> (x) }',
    (ML, "LabelEncoder", 2): """($T1[2] x) => (y) { y = ai.onnx.ml.LabelEncoder
        <keys_floats = [1.0], values_floats = [2.0]> (x) }""",
}

PREFERRED = ("tensor(float)", "tensor(int64)", "tensor(bool)", "seq(tensor(float))", "optional(tensor(float))")
TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype", "stash_type")
PLACEHOLDER = re.compile(r"([$#%@])(\w+)('?)(\[[^\]]*\])?")


def parameters(schema: defs.OpSchema) -> dict[str, list[str]]:
    """The types of each type parameter that a model of the operator can be made for."""
    text = TEXTS.get((schema.domain, schema.name))
    if text is not None:
        free = {name for _, name, _, _ in PLACEHOLDER.findall(text)}
    else:
        free = {formal.type_str for formal in schema.inputs}
        if any(name in schema.attributes for name in TYPE_ATTRIBUTES):
            free |= {formal.type_str for formal in schema.outputs}
    types = {c.type_param_str: list(c.allowed_type_strs) for c in schema.type_constraints if c.type_param_str in free}
    if any(attribute.type == defs.OpSchema.AttrType.GRAPH for attribute in schema.attributes.values()):
        passed = set(defs.get_schema("Identity").type_constraints[0].allowed_type_strs)  # by the bodies here
        types = {name: [text for text in each if text in passed] for name, each in types.items()}
    return types


def sample(schema: defs.OpSchema, changed: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """A model of the operator at the schema's version, with the given types of its parameters."""
    text = TEXTS_OF_OLD.get((schema.domain, schema.name, schema.since_version)) or TEXTS.get(
        (schema.domain, schema.name)
    )
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    if text is not None:
        types = {name: _preferred(each) for name, each in allowed.items()}
        types |= changed or {}
        return onnx.parser.parse_model(
            _header(schema) + "g " + PLACEHOLDER.sub(lambda found: _written(schema.name, found, types), text)
        )
    return _of_case(schema, allowed, changed or {})


def _preferred(types: Sequence[str]) -> str:
    return next((text for text in PREFERRED if text in types), types[0])


def _header(schema: defs.OpSchema) -> str:
    own = "" if schema.domain == "" else f', "{schema.domain}" : {schema.since_version}'
    plain = schema.since_version if schema.domain == "" else defs.onnx_opset_version()
    return f'<ir_version: 10, opset_import: ["" : {plain}{own}]>\n'


def _written(operator: str, found: re.Match[str], types: Mapping[str, str]) -> str:
    """What a placeholder stands for."""
    sign, name, element, shape = found.groups()
    inner = re.sub(r".*tensor\((\w+)\).*", r"\1", types[name])
    if sign == "@":
        return CHOICES[operator][inner]
    if sign == "#":
        return str(getattr(TensorProto, inner.upper()))
    if sign == "%":
        content = '"a"' if inner == "string" else 1
        return f"{inner}[1] {{{content}}}"
    if element or shape is not None:
        return inner + (shape if shape is not None else "[2]").replace("[]", "")
    return re.sub(r"tensor\((\w+)\)", r"\1[2]", types[name])


@functools.cache
def cases() -> dict[Key, list[onnx_suite.Case]]:
    """The cases of the suite that are one node, by operator."""
    found: dict[Key, list[onnx_suite.Case]] = {}
    for case in onnx_suite.cases().values():
        nodes = case.model.graph.node if case.kind == "node" else ()
        if len(nodes) == 1:
            found.setdefault((nodes[0].domain, nodes[0].op_type), []).append(case)
    return found


def _of_case(schema: defs.OpSchema, allowed: Mapping[str, list[str]], changed: Mapping[str, str]) -> onnx.ModelProto:
    """A case of the suite with the operator at the schema's version, and other types."""
    case = cases()[schema.domain, schema.name][0]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for entry in model.opset_import:
        if entry.domain == schema.domain:
            entry.version = schema.since_version
    (node,) = model.graph.node
    values, _ = next(case.data())
    _move_operands(schema, node, values)
    _fit_attributes(schema, node)
    _set_types(schema, node, model.graph, allowed, changed)
    return model


def _move_operands(schema: defs.OpSchema, node: onnx.NodeProto, values: Mapping[str, np.ndarray]) -> None:
    """Operands that were attributes once become them again; those that did not exist are left out."""
    newest = defs.get_schema(schema.name, schema.domain)
    kept = list(node.input)[: schema.max_input]
    for place, name in enumerate(node.input):
        formal = newest.inputs[min(place, len(newest.inputs) - 1)].name
        if place >= len(kept) and name and formal in schema.attributes:
            kind = schema.attributes[formal].type
            content = values[name].tolist()
            content = content if str(kind).endswith("S") else np.ravel(content)[0]
            node.attribute.extend([helper.make_attribute(formal, content)] if np.size(content) else [])
    node.input[:] = kept
    node.output[:] = list(node.output)[: schema.max_output]


def _fit_attributes(schema: defs.OpSchema, node: onnx.NodeProto) -> None:
    known = [attribute for attribute in node.attribute if attribute.name in schema.attributes]
    for attribute in known:
        if attribute.name == "to" and str(schema.attributes["to"].type).endswith("STRING"):
            attribute.CopyFrom(helper.make_attribute("to", TensorProto.DataType.Name(attribute.i)))
    del node.attribute[:]
    node.attribute.extend(known)


def _set_types(
    schema: defs.OpSchema,
    node: onnx.NodeProto,
    graph: onnx.GraphProto,
    allowed: Mapping[str, list[str]],
    changed: Mapping[str, str],
) -> None:
    """Inputs of the graph get the types that are wanted, or that the schema knows; outputs are left to inference."""
    inputs = {info.name: info for info in graph.input}
    used = [inputs[name] for name in dict.fromkeys(node.input) if name in inputs]
    for place, name in enumerate(node.input):
        formal = schema.inputs[min(place, len(schema.inputs) - 1)].type_str
        if name not in inputs or formal not in allowed:
            continue
        text = changed.get(formal) or _text(inputs[name].type)
        text = text if text in allowed[formal] else _preferred(allowed[formal])
        inputs[name].type.CopyFrom(_retyped(inputs[name].type, text))
    names = [name for name in node.output if name]
    for formal in schema.outputs:
        attribute = next((name for name in TYPE_ATTRIBUTES if name in schema.attributes), None)
        if formal.type_str in changed and attribute and formal.type_str not in {f.type_str for f in schema.inputs}:
            inner = re.sub(r".*tensor\((\w+)\).*", r"\1", changed[formal.type_str])
            others = [other for other in node.attribute if other.name != attribute]
            del node.attribute[:]
            node.attribute.extend([*others, helper.make_attribute(attribute, getattr(TensorProto, inner.upper()))])
    del graph.input[:]
    graph.input.extend(used)
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    del graph.value_info[:]


def _text(kind: TypeProto) -> str:
    """The schema's name of a type."""
    if kind.HasField("sequence_type"):
        return f"seq({_text(kind.sequence_type.elem_type)})"
    if kind.HasField("optional_type"):
        return f"optional({_text(kind.optional_type.elem_type)})"
    name = TensorProto.DataType.Name(kind.tensor_type.elem_type).lower()
    return f"tensor({name})"


def _retyped(kind: TypeProto, text: str) -> TypeProto:
    """A type by its schema's name; a tensor keeps its shape."""
    result = TypeProto()
    outer, _, inner = text.partition("(")
    if outer == "seq":
        result.sequence_type.elem_type.CopyFrom(_retyped(kind, inner[:-1]))
    elif outer == "optional":
        result.optional_type.elem_type.CopyFrom(_retyped(kind, inner[:-1]))
    else:
        result.tensor_type.elem_type = getattr(TensorProto, inner[:-1].upper())
        if kind.tensor_type.HasField("shape"):
            result.tensor_type.shape.CopyFrom(kind.tensor_type.shape)
    return result
