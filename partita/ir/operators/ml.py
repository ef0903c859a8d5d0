"""The domain `ai.onnx.ml`, but for trees and support vectors: features, labels, linear models. All become operators of
ONNX's own, before any backend is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from partita.errors import ModelError, ShapeError, UnsupportedOperatorError
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.graph import Node, Value
from partita.ir.operators.strings import looked_up
from partita.ir.registry import becomes, decomposes
from partita.ir.types import DType

DOMAIN = "ai.onnx.ml"
FLOAT32, INT64, STRING = DType.FLOAT32, DType.INT64, DType.STRING
LAST = -1


def to_float(build: Builder, x: Value) -> Value:
    """As the models compute: double stays, all other numbers become float."""
    return build.cast(x, DType.FLOAT64 if x.tensor.dtype is DType.FLOAT64 else FLOAT32)


def features(build: Builder, node: Node) -> Value:
    """Rows [N, F] of numbers, of which one may be given as a vector."""
    x = to_float(build, node.operand(0))
    return x if len(x.shape) == 2 else build("Unsqueeze", x, [0])


def given(node: Node, name: str, *kinds: DType) -> np.ndarray:
    """The attribute of a name that is there and not empty, of those for these types; `ModelError` where none is."""
    names = {f"{name}_{NAMES[kind]}s": kind.numpy for kind in kinds}
    for full, kind in {f"{name}_tensor": None, **names}.items():
        content = node.attributes.get(full)
        if content is not None and len(content):
            return np.asarray(content, kind).reshape(-1)
    raise ModelError(f"{node.describe()}: none of the attributes {', '.join(names)} is given")


# ---------------------------------------------------------------------- labels

NAMES = {STRING: "string", INT64: "int64", FLOAT32: "float"}
DEFAULTS = {STRING: "_Unused", INT64: -1, FLOAT32: -0.0}


def default_of(node: Node, kind: DType) -> Any:
    """What stands for keys that are not found."""
    tensor = node.attributes.get("default_tensor")
    name = f"default_{NAMES.get(kind, 'float')}"
    return node.attributes.get(name, DEFAULTS.get(kind, 0)) if tensor is None else tensor.item()


@becomes("LabelEncoder", "CategoryMapper", domain=DOMAIN)
def label_encoder(
    build: Builder, node: Node, x: Value, *,
    cats_strings: Any = (), cats_int64s: Any = (), classes_strings: Any = (),
) -> Value:  # fmt: skip
    """By keys, each with its value; or from names to numbers and from numbers to names, as CategoryMapper does, and as
    LabelEncoder did, whose numbers were the places of its classes."""
    if categories := cats_strings or classes_strings:
        names, numbers = np.asarray(categories, object), np.asarray(cats_int64s or range(len(categories)))
        keys, values = (names, numbers) if x.tensor.dtype is STRING else (numbers, names)
    else:
        keys, values = (given(node, name, *NAMES) for name in ("keys", "values"))
    if len(keys) != len(values):
        raise ModelError(f"{node.describe()}: {len(keys)} keys have {len(values)} values")
    kind = DType.of(values.dtype)
    return looked_up(build, x, keys, [*values, default_of(node, kind)], kind)


@decomposes("OneHotEncoder", domain=DOMAIN)
def strict_one_hot_encoder(build: Builder, node: Node) -> Value:
    raise UnsupportedOperatorError(f"{node.describe()}: zeros=0 fails on unknown categories; set it to 1")


@becomes("OneHotEncoder", domain=DOMAIN)
def one_hot_encoder(build: Builder, node: Node, x: Value, *, zeros: int = 1) -> Value | None:
    kind = STRING if x.tensor.dtype is STRING else INT64
    cats = given(node, "cats", kind)
    if not zeros:
        return None
    places = looked_up(build, build.cast(x, kind), cats, range(len(cats) + 1), INT64)
    return build("OneHot", places, [len(cats)], build.constant([0, 1], FLOAT32))


# ---------------------------------------------------------------------- features


@becomes("ArrayFeatureExtractor", domain=DOMAIN)
def array_feature_extractor(build: Builder, node: Node, x: Value, places: Value) -> Value:
    chosen = build("Gather", x, build("Reshape", places, [-1]), axis=LAST)
    return chosen if len(x.shape) > 1 else build("Unsqueeze", chosen, [0])


@becomes("Binarizer", domain=DOMAIN)
def binarizer(build: Builder, node: Node, x: Value, *, threshold: float = 0.0) -> Value:
    return build.cast(build("Greater", build.cast(x, DType.FLOAT64), threshold), x.tensor.dtype)


@becomes("Scaler", domain=DOMAIN)
def scaler(build: Builder, node: Node, x: Value, *, offset: Sequence[float] = (), scale: Sequence[float] = ()) -> Value:
    """In float, or in double where that is given; the result is float."""
    x = to_float(build, x)
    x = build("Sub", x, np.asarray(offset)) if offset else x
    x = build("Mul", x, np.asarray(scale)) if scale else x
    return build.cast(x, FLOAT32)


@becomes("Normalizer", domain=DOMAIN)
def normalizer(build: Builder, node: Node, x: Value, *, norm: str = "MAX") -> Value:
    """Each row over its norm; a row of zeros stays."""
    x = to_float(build, x)
    reduce = {"MAX": "ReduceMax", "L1": "ReduceSum", "L2": "ReduceL2"}[norm]
    size = build(reduce, build("Abs", x), [LAST])
    return build.cast(build("Div", x, build("Where", build("Equal", size, 0), 1, size)), FLOAT32)


@becomes("Imputer", domain=DOMAIN)
def imputer(build: Builder, node: Node, x: Value) -> Value:
    kind = FLOAT32 if x.tensor.dtype.is_float else INT64
    values, replaced = given(node, "imputed_value", kind), node.attributes.get(f"replaced_value_{NAMES[kind]}", 0)
    is_missing = build("IsNaN", x) if np.isnan(replaced) else build("Equal", x, replaced)
    return build("Where", is_missing, values, x)


@becomes("FeatureVectorizer", domain=DOMAIN)
def feature_vectorizer(build: Builder, node: Node, *operands: Value, inputdimensions: Sequence[int] = ()) -> Value:
    """The operands beside each other, each cut or filled up with zeros to its number of columns."""
    if len(inputdimensions) != len(operands):
        raise ModelError(
            f"{node.describe()}: {len(inputdimensions)} inputdimensions are given for {len(operands)} operands"
        )
    columns = []
    for x, width in zip(operands, inputdimensions, strict=True):
        if len(x.shape) not in (1, 2) or not dims.all_static(x.shape[1:]):
            raise ShapeError(f"{node.describe()}: operands must be vectors, or matrices of known width")
        value = build("Flatten", build.cast(x, FLOAT32))  # a vector is a column
        columns.append(build("Pad", value, [0, 0, 0, width - int(value.shape[1])]))  # a negative one cuts
    return build("Concat", *columns, axis=1)


# ---------------------------------------------------------------------- scores and labels


def _softmax_zero(build: Builder, scores: Value) -> Value:
    """Softmax, where scores of zero stay zero."""
    highest = build("ReduceMax", scores, [LAST])
    small = build("Mul", scores, build("Exp", build("Neg", highest)))
    is_zero = build("LessOrEqual", build("Abs", scores), 1e-7)
    terms = build("Where", is_zero, small, build("Exp", build("Sub", scores, highest)))
    total = build("ReduceSum", terms, [LAST])
    return build("Where", build("Equal", total, 0), 0.5, build("Div", terms, total))


def _probit(build: Builder, scores: Value) -> Value:
    """The quantile of the normal distribution, by Winitzki's approximation, which ONNX Runtime uses too."""
    x = build.affine(scores, 2, -1)
    log = build("Log", build("Mul", build("Sub", 1, x), build("Add", 1, x)))
    half = build.affine(log, 0.5, 2 / (np.pi * 0.147))
    root = build("Sqrt", build("Sub", build("Mul", half, half), build.affine(log, 1 / 0.147)))
    return build("Mul", build.affine(build("Sign", x), 2**0.5), build("Sqrt", build("Sub", root, half)))


TRANSFORMS: dict[str, Callable[[Builder, Value], Value]] = {
    "NONE": lambda build, scores: scores,
    "SOFTMAX": lambda build, scores: build("Softmax", scores, axis=LAST),
    "LOGISTIC": lambda build, scores: build("Sigmoid", scores),
    "SOFTMAX_ZERO": _softmax_zero,
    "PROBIT": _probit,
}


def finished(build: Builder, node: Node, scores: Value) -> Value:
    """Scores [.., classes] after the node's post_transform, as float."""
    name = node.attributes.get("post_transform", "NONE")
    if name not in TRANSFORMS:
        raise ModelError(f"{node.describe()}: post_transform is {name!r}, which ONNX does not know")
    return build.cast(TRANSFORMS[name](build, scores), FLOAT32)


def labels_of(node: Node) -> Sequence[Any]:
    """A classifier's labels; () where it has none."""
    found = (node.attributes.get(f"classlabels_{kind}") for kind in ("strings", "ints", "int64s"))
    return next(filter(None, found), ())


def classified(build: Builder, node: Node, scores: Value, votes: Value) -> list[Value]:
    """The label that has most votes [N, classes], or its place where there are no labels; and the scores."""
    label, labels = build("ArgMax", votes, axis=1, keepdims=0), labels_of(node)
    if labels:
        label = build("Gather", build.constant(labels, STRING if isinstance(labels[0], str) else INT64), label)
    return [label, finished(build, node, scores)]


def doubled(build: Builder, scores: Value, *, by_complement: bool) -> Value:
    """From the score [.., 1] of the second of two classes the scores of both: 1 - s or -s for the first."""
    other = build("Sub", 1, scores) if by_complement else build("Neg", scores)
    return build("Concat", other, scores, axis=LAST)


# ---------------------------------------------------------------------- linear models


def linear(build: Builder, x: Value, coefficients: Any, rows: int, offsets: Sequence[float] = ()) -> Value:
    """x @ coefficients^T + offsets, one column for each of the `rows` of coefficients."""
    scores = build("MatMul", x, np.reshape(coefficients, (rows, -1)).T)
    return build("Add", scores, np.asarray(offsets)) if len(offsets) else scores


@becomes("LinearRegressor", domain=DOMAIN)
def linear_regressor(
    build: Builder, node: Node, *, coefficients: Sequence[float], intercepts: Sequence[float] = (), targets: int = 1
) -> Value:
    rows = len(intercepts) or targets
    return finished(build, node, linear(build, features(build, node), coefficients, rows, intercepts))


@becomes("LinearClassifier", domain=DOMAIN)
def linear_classifier(
    build: Builder, node: Node, *, coefficients: Sequence[float], intercepts: Sequence[float] = ()
) -> list[Value]:
    scores = votes = linear(build, features(build, node), coefficients, len(intercepts) or 1, intercepts)
    if dims.is_one(scores.shape[1]):
        votes = doubled(build, scores, by_complement=False)
        scores = votes if len(labels_of(node)) == 2 else scores
    return classified(build, node, scores, votes)


# ---------------------------------------------------------------------- maps, as the tensors that they became


@becomes("ZipMap", domain="partita")
def zip_map(build: Builder, node: Node, x: Value) -> Value:
    """The rows of the maps' values; the keys are known outside."""
    count = len(labels_of(node))
    if len(x.shape) not in (1, 2) or (dims.is_static(x.shape[-1]) and x.shape[-1] != count):
        raise ShapeError(f"{node.describe()}: rows of {count} values are needed, one for each label")
    return build("Identity", x) if len(x.shape) == 2 else build("Unsqueeze", x, [0])


def under_keys(build: Builder, wanted: Value, keys: Value, values: Value) -> Value:
    """What is found under each of the keys `wanted`, as a row [1, n]; zero, or an empty string, where there is none."""
    found = build("Equal", build("Unsqueeze", wanted, [1]), build("Unsqueeze", keys, [0]))
    columns = build("Pad", build.cast(found, DType.INT32), [0, 0, 0, 1], 1)  # the last is always found
    kind = values.tensor.dtype
    values = build("Concat", values, build.constant([""] if kind is STRING else [0], kind), axis=0)
    return build("Unsqueeze", build("Gather", values, build("ArgMax", columns, axis=1, keepdims=0)), [0])


@becomes("DictVectorizer", domain="partita")
def dict_vectorizer(build: Builder, node: Node, keys: Value, values: Value) -> Value:
    name = "string_vocabulary" if keys.tensor.dtype is STRING else "int64_vocabulary"
    return under_keys(build, build.constant(node.attributes.get(name, ()), keys.tensor.dtype), keys, values)


@becomes("CastMap", domain="partita")
def cast_map(
    build: Builder, node: Node, keys: Value, values: Value, *,
    cast_to: str = "TO_FLOAT", map_form: str = "DENSE", max_map: int = 1,
) -> Value:  # fmt: skip
    """The values, cast: in the order of their keys or, where the form is SPARSE, at the places that these are."""
    values = build.cast(values, {"TO_FLOAT": FLOAT32, "TO_STRING": STRING, "TO_INT64": INT64}[cast_to])
    if map_form == "SPARSE":
        return under_keys(build, build.ints(range(max_map)), keys, values)
    _, order = build.node("TopK", keys, build("Shape", keys), outputs=2, largest=0)
    return build("Unsqueeze", build("Gather", values, order), [0])


@becomes("ZipMap", "DictVectorizer", "CastMap", domain=DOMAIN)
def inner_maps(build: Builder, node: Node) -> None:
    raise UnsupportedOperatorError(
        f"{node.describe()}: maps are taken where they are inputs or outputs of the model; leave this node out, and "
        "use the tensors beside it (skl2onnx does so with the option zipmap=False)"
    )
