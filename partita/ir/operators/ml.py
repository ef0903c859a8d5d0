"""The domain `ai.onnx.ml`, but for trees and support vectors: features, labels, linear models. All become operators of
ONNX's own, before any backend is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from partita.errors import ModelError, ShapeError, UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.registry import becomes, decomposes
from partita.ir.operators.strings import find, words
from partita.ir.types import DType

DOMAIN = "ai.onnx.ml"
FLOAT32, INT64, STRING = DType.FLOAT32, DType.INT64, DType.STRING
LAST = -1


def to_float(build: Builder, x: Value) -> Value:
    """As the models compute: double stays, all other numbers become float."""
    return x if x.tensor.dtype in (FLOAT32, DType.FLOAT64) else build("Cast", x, to=FLOAT32.onnx)


def features(build: Builder, node: Node) -> Value:
    """Rows [N, F] of numbers, of which one may be given as a vector."""
    x = to_float(build, node.operand(0))
    return x if len(x.shape) == 2 else build("Unsqueeze", x, build.ints([0]))


def table(build: Builder, content: Sequence[Any], dtype: DType) -> Value:
    return words(build, content) if dtype is STRING else build.constant(list(content), dtype)


def one_of(node: Node, names: dict[str, DType]) -> tuple[Any, DType]:
    """The attribute of the given names that is there and not empty, and its type; `ModelError` where none is."""
    for name, dtype in names.items():
        content = node.attributes.get(name)
        if content is not None and len(content):
            return content, dtype
    raise ModelError(f"{node.describe()}: none of the attributes {', '.join(names)} is given")


# ---------------------------------------------------------------------- labels

KEYS = {"keys_strings": STRING, "keys_int64s": INT64, "keys_floats": FLOAT32}
VALUES = {"values_strings": STRING, "values_int64s": INT64, "values_floats": FLOAT32}
DEFAULTS = {STRING: "_Unused", INT64: -1, FLOAT32: -0.0}


@becomes("LabelEncoder", domain=DOMAIN)
def label_encoder(build: Builder, node: Node) -> Value:
    attributes = node.attributes
    if "classes_strings" in attributes:  # version 1
        return _by_classes(build, node, attributes["classes_strings"], range(len(attributes["classes_strings"])))
    keys = attributes["keys_tensor"].reshape(-1) if "keys_tensor" in attributes else one_of(node, KEYS)[0]
    if "values_tensor" in attributes:
        array = attributes["values_tensor"].reshape(-1)
        values, dtype = array.tolist(), DType.of(array.dtype)
        default = attributes["default_tensor"].item() if "default_tensor" in attributes else DEFAULTS.get(dtype, 0)
    else:
        values, dtype = one_of(node, VALUES)
        name = {STRING: "default_string", INT64: "default_int64"}.get(dtype, "default_float")
        default = attributes.get(name, DEFAULTS[dtype])
    if len(keys) != len(values):
        raise ModelError(f"{node.describe()}: {len(keys)} keys have {len(values)} values")
    return looked_up(build, node.operand(0), keys, [*values, default], dtype)


@becomes("CategoryMapper", domain=DOMAIN)
def category_mapper(build: Builder, node: Node) -> Value:
    return _by_classes(build, node, node.attributes.get("cats_strings", ()), node.attributes.get("cats_int64s", ()))


def _by_classes(build: Builder, node: Node, names: Sequence[str], numbers: Sequence[int]) -> Value:
    """From names to numbers, or from numbers to names."""
    if node.operand(0).tensor.dtype is STRING:
        values: list[Any] = [*numbers, node.attributes.get("default_int64", -1)]
        return looked_up(build, node.operand(0), names, values, INT64)
    values = [*names, node.attributes.get("default_string", "_Unused")]
    return looked_up(build, node.operand(0), np.asarray(numbers), values, STRING)


def looked_up(build: Builder, x: Value, keys: Any, values: Sequence[Any], dtype: DType) -> Value:
    """What stands at the place of each element's key; the last of the values where there is no such key."""
    places, order = find(build, x, keys)
    return build("Gather", table(build, [*(values[n] for n in order), values[-1]], dtype), places)


@decomposes("OneHotEncoder", domain=DOMAIN)
def strict_one_hot_encoder(build: Builder, node: Node) -> Value:
    raise UnsupportedOperatorError(f"{node.describe()}: zeros=0 fails on unknown categories; set it to 1")


@becomes("OneHotEncoder", domain=DOMAIN)
def one_hot_encoder(build: Builder, node: Node) -> Value | None:
    x = node.operand(0)
    cats, _ = one_of(node, {"cats_strings": STRING} if x.tensor.dtype is STRING else {"cats_int64s": INT64})
    if not node.attributes.get("zeros", 1):
        return None
    x = x if x.tensor.dtype is STRING else build("Cast", x, to=INT64.onnx)
    places, order = find(build, x, cats if x.tensor.dtype is STRING else np.asarray(cats))
    column = build("Gather", build.ints([*order, -1]), places)
    is_one = build("Equal", build("Unsqueeze", column, build.ints([LAST])), build.ints(range(len(cats))))
    return build("Cast", is_one, to=FLOAT32.onnx)


# ---------------------------------------------------------------------- features


@becomes("ArrayFeatureExtractor", domain=DOMAIN)
def array_feature_extractor(build: Builder, node: Node) -> Value:
    x, places = node.operand(0), build("Reshape", node.operand(1), build.ints([-1]))
    chosen = build("Gather", x, places, axis=LAST)
    return chosen if len(x.shape) > 1 else build("Unsqueeze", chosen, build.ints([0]))


@becomes("Binarizer", domain=DOMAIN)
def binarizer(build: Builder, node: Node) -> Value:
    x = node.operand(0)
    wide = x if x.tensor.dtype is DType.FLOAT64 else build("Cast", x, to=DType.FLOAT64.onnx)
    above = build("Greater", wide, build.constant(node.attributes.get("threshold", 0.0), DType.FLOAT64))
    return build("Cast", above, to=x.tensor.dtype.onnx)


@becomes("Scaler", domain=DOMAIN)
def scaler(build: Builder, node: Node) -> Value:
    """In float, or in double where that is given; the result is float."""
    x = to_float(build, node.operand(0))
    for op_type, name in (("Sub", "offset"), ("Mul", "scale")):
        if node.attributes.get(name):
            x = build(op_type, x, build.constant(node.attributes[name], x.tensor.dtype))
    return build("Cast", x, to=FLOAT32.onnx)


@becomes("Normalizer", domain=DOMAIN)
def normalizer(build: Builder, node: Node) -> Value:
    """Each row over its norm; a row of zeros stays."""
    x, axes = to_float(build, node.operand(0)), build.ints([LAST])
    norm = node.attributes.get("norm", "MAX")
    if norm == "MAX":
        size = build("ReduceMax", build("Abs", x), axes)
    else:
        size = build({"L1": "ReduceL1", "L2": "ReduceL2"}[norm], x, axes)
    is_zero = build("Equal", size, build.scalar(0, size))
    return build("Cast", build("Div", x, build("Where", is_zero, build.scalar(1, size), size)), to=FLOAT32.onnx)


@becomes("Imputer", domain=DOMAIN)
def imputer(build: Builder, node: Node) -> Value:
    x, attributes = node.operand(0), node.attributes
    is_float = x.tensor.dtype.is_float
    values, _ = one_of(node, {"imputed_value_floats": FLOAT32} if is_float else {"imputed_value_int64s": INT64})
    replaced = attributes.get("replaced_value_float", 0.0) if is_float else attributes.get("replaced_value_int64", 0)
    is_missing = build("IsNaN", x) if is_float and np.isnan(replaced) else build("Equal", x, build.scalar(replaced, x))
    return build("Where", is_missing, build.constant(list(values), x.tensor.dtype), x)


@becomes("FeatureVectorizer", domain=DOMAIN)
def feature_vectorizer(build: Builder, node: Node) -> Value:
    """The operands beside each other, each cut or filled up with zeros to its number of columns."""
    widths = node.attributes.get("inputdimensions", ())
    if len(widths) != len(node.operands):
        raise ModelError(
            f"{node.describe()}: {len(widths)} inputdimensions are given for {len(node.operands)} operands"
        )
    columns = []
    for x, width in zip(node.operands, widths, strict=True):
        if len(x.shape) not in (1, 2) or not dims.is_static(x.shape[-1] if len(x.shape) == 2 else 1):
            raise ShapeError(f"{node.describe()}: operands must be vectors, or matrices of known width")
        value = build("Cast", x, to=FLOAT32.onnx)
        value = value if len(x.shape) == 2 else build("Unsqueeze", value, build.ints([1]))
        given = int(value.shape[1])
        if given > width:
            value = build("Slice", value, build.ints([0]), build.ints([width]), build.ints([1]))
        elif given < width:
            value = build("Pad", value, build.ints([0, 0, 0, width - given]))
        columns.append(value)
    return build("Concat", *columns, axis=1)


# ---------------------------------------------------------------------- scores and labels


def finished(build: Builder, node: Node, scores: Value) -> Value:
    """Scores [.., classes] after the node's post_transform, as float."""
    scores = transformed(build, node, scores, node.attributes.get("post_transform", "NONE"))
    return build("Cast", scores, to=FLOAT32.onnx)


def transformed(build: Builder, node: Node, scores: Value, name: str) -> Value:
    """Scores [.., classes] after a post_transform."""
    match name:
        case "NONE":
            return scores
        case "LOGISTIC":
            return build("Sigmoid", scores)
        case "SOFTMAX":
            return build("Softmax", scores, axis=LAST)
        case "SOFTMAX_ZERO":
            return _softmax_zero(build, scores)
        case "PROBIT":
            return _probit(build, scores)
    raise ModelError(f"{node.describe()}: post_transform is {name!r}, which ONNX does not know")


def _softmax_zero(build: Builder, scores: Value) -> Value:
    """Softmax, where scores of zero stay zero."""
    axes = build.ints([LAST])
    highest = build("ReduceMax", scores, axes)
    is_zero = build("LessOrEqual", build("Abs", scores), build.scalar(1e-7, scores))
    small = build("Mul", scores, build("Exp", build("Neg", highest)))
    terms = build("Where", is_zero, small, build("Exp", build("Sub", scores, highest)))
    total = build("ReduceSum", terms, axes)
    none = build("Equal", total, build.scalar(0, total))
    shares = build("Div", terms, build("Where", none, build.scalar(1, total), total))
    return build("Where", none, build.scalar(0.5, terms), shares)


def _probit(build: Builder, scores: Value) -> Value:
    """The quantile of the normal distribution, by Winitzki's approximation, which ONNX Runtime uses too."""

    def number(content: float) -> Value:
        return build.scalar(content, scores)

    x = build.affine(scores, 2, -1)
    log = build("Log", build("Mul", build("Sub", number(1), x), build("Add", number(1), x)))
    half = build.affine(log, 0.5, 2 / (np.pi * 0.147))
    root = build("Sqrt", build("Sub", build("Mul", half, half), build.affine(log, 1 / 0.147)))
    size = build("Sqrt", build("Sub", root, half))
    sign = build("Where", build("Less", x, number(0)), number(-1.41421356), number(1.41421356))
    return build("Mul", sign, size)


def labels_of(node: Node, integers: str) -> tuple[Sequence[Any], DType]:
    """A classifier's labels; () where it has none."""
    names = node.attributes.get("classlabels_strings", ())
    return (names, STRING) if names else (node.attributes.get(integers, ()), INT64)


def chosen_labels(build: Builder, node: Node, integers: str, places: Value) -> Value:
    """The labels at places; the places themselves where there are no labels."""
    labels, dtype = labels_of(node, integers)
    return build("Gather", table(build, labels, dtype), places) if labels else places


def doubled(build: Builder, scores: Value, *, by_complement: bool) -> Value:
    """From the score [.., 1] of the second of two classes the scores of both: 1 - s or -s for the first."""
    other = build("Sub", build.scalar(1, scores), scores) if by_complement else build("Neg", scores)
    return build("Concat", other, scores, axis=LAST)


def is_above(build: Builder, scores: Value, limit: float) -> Value:
    """1 where the only score [.., 1] is above a limit, else 0."""
    above = build("Greater", build("Squeeze", scores, build.ints([1])), build.scalar(limit, scores))
    return build("Cast", above, to=INT64.onnx)


# ---------------------------------------------------------------------- linear models


def linear(build: Builder, node: Node) -> Value:
    """x @ coefficients^T + intercepts, one column for each row of coefficients."""
    x = features(build, node)
    coefficients, intercepts = node.attributes["coefficients"], node.attributes.get("intercepts", ())
    rows = len(intercepts) or node.attributes.get("targets", 1)
    weights = np.reshape(coefficients, (rows, -1)).T
    scores = build("MatMul", x, build.constant(weights, x.tensor.dtype))
    return build("Add", scores, build.constant(list(intercepts), x.tensor.dtype)) if intercepts else scores


@becomes("LinearRegressor", domain=DOMAIN)
def linear_regressor(build: Builder, node: Node) -> Value:
    return finished(build, node, linear(build, node))


@becomes("LinearClassifier", domain=DOMAIN)
def linear_classifier(build: Builder, node: Node) -> list[Value]:
    scores, classes = linear(build, node), len(labels_of(node, "classlabels_ints")[0])
    if dims.is_one(scores.shape[1]):
        places = is_above(build, scores, 0.0)
        scores = doubled(build, scores, by_complement=False) if classes == 2 else scores
    else:
        places = build("ArgMax", scores, axis=1, keepdims=0)
    return [chosen_labels(build, node, "classlabels_ints", places), finished(build, node, scores)]


# ---------------------------------------------------------------------- maps, as the tensors that they became


@becomes("ZipMap", domain="partita")
def zip_map(build: Builder, node: Node) -> Value:
    """The rows of the maps' values; the keys are known outside."""
    x, count = (
        node.operand(0),
        max(len(node.attributes.get(f"classlabels_{kind}", ())) for kind in ("strings", "int64s")),
    )
    if len(x.shape) not in (1, 2) or (dims.is_static(x.shape[-1]) and x.shape[-1] != count):
        raise ShapeError(f"{node.describe()}: rows of {count} values are needed, one for each label")
    return build("Identity", x) if len(x.shape) == 2 else build("Unsqueeze", x, build.ints([0]))


def under_keys(build: Builder, wanted: Value, keys: Value, values: Value) -> Value:
    """What is found under each of the keys `wanted`, as a row [1, n]; zero, or an empty string, where there is none."""
    found = build("Equal", build("Unsqueeze", wanted, build.ints([1])), build("Unsqueeze", keys, build.ints([0])))
    always = build.constant(np.ones((wanted.shape[0], 1)), DType.INT32)
    columns = build("Concat", build("Cast", found, to=DType.INT32.onnx), always, axis=1)
    kind = values.tensor.dtype
    absent = words(build, [""]) if kind is DType.STRING else build.constant([0], kind)
    places = build("ArgMax", columns, axis=1, keepdims=0)
    row = build("Gather", build("Concat", values, absent, axis=0), places)
    return build("Unsqueeze", row, build.ints([0]))


@becomes("DictVectorizer", domain="partita")
def dict_vectorizer(build: Builder, node: Node) -> Value:
    keys, values = node.operands
    if keys.tensor.dtype is DType.STRING:
        vocabulary = words(build, node.attributes.get("string_vocabulary", ()))
    else:
        vocabulary = build.constant(np.array(node.attributes.get("int64_vocabulary", ()), np.int64), INT64)
    return under_keys(build, vocabulary, keys, values)


@becomes("CastMap", domain="partita")
def cast_map(build: Builder, node: Node) -> Value:
    """The values, cast: in the order of their keys or, where the form is SPARSE, at the places that these are."""
    keys, values = node.operands
    target = {"TO_FLOAT": FLOAT32, "TO_STRING": DType.STRING, "TO_INT64": INT64}[
        node.attributes.get("cast_to", "TO_FLOAT")
    ]
    values = build("Cast", values, to=target.onnx)
    if node.attributes.get("map_form", "DENSE") == "SPARSE":
        count = node.attributes.get("max_map", 1)
        return under_keys(build, build.constant(np.arange(count), INT64), keys, values)
    _, order = build.node("TopK", keys, build("Shape", keys), outputs=2, largest=0)
    return build("Unsqueeze", build("Gather", values, order), build.ints([0]))


@becomes("ZipMap", "DictVectorizer", "CastMap", domain=DOMAIN)
def inner_maps(build: Builder, node: Node) -> None:
    raise UnsupportedOperatorError(
        f"{node.describe()}: maps are taken where they are inputs or outputs of the model; leave this node out, and "
        "use the tensors beside it (skl2onnx does so with the option zipmap=False)"
    )
