"""ai.onnx.ml in generated C: what ONNX Runtime gives for the same node, and scikit-learn for the same model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from harness import BUILD
from onnx import helper, numpy_helper

import partita
from partita.errors import ModelError, PartitaError, ShapeError, UnsupportedOperatorError

Array = np.ndarray[Any, Any]
DOMAIN = "ai.onnx.ml"
X = np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)
WORDS = np.array([["a", "b", "?"], ["ä", "a", ""]], object)


def model(
    op: str, given: Sequence[Array], outputs: int, version: int, attributes: Mapping[str, Any]
) -> onnx.ModelProto:
    names = [f"x{n}" for n in range(len(given))]
    results = [f"y{n}" for n in range(outputs)]
    infos = [
        helper.make_tensor_value_info(
            name, 8 if a.dtype.kind == "O" else helper.np_dtype_to_tensor_dtype(a.dtype), a.shape
        )
        for name, a in zip(names, given, strict=True)
    ]
    tensors = {k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in attributes.items()}
    node = helper.make_node(op, names, results, domain=DOMAIN, **tensors)
    graph = helper.make_graph([node], "g", infos, [onnx.ValueInfoProto(name=name) for name in results])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def run(op: str, *given: Array, outputs: int = 1, version: int = 3, **attributes: Any) -> list[Array]:
    proto = model(op, given, outputs, version, attributes)
    with partita.compile(proto, build=BUILD) as module:
        return list(module.run({f"x{n}": array for n, array in enumerate(given)}).values())


def same(
    op: str, *given: Array, outputs: int = 1, version: int = 3, tolerance: float = 1e-5, **attributes: Any
) -> None:
    """Both give the same."""
    found = run(op, *given, outputs=outputs, version=version, **attributes)
    proto = model(op, given, outputs, version, attributes)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {f"x{n}": array for n, array in enumerate(given)})
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        if one.dtype == object:
            assert one.tolist() == other.tolist()
        else:
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------- features and labels


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
def test_normalizer(norm):
    positive = np.abs(X) if norm == "MAX" else X  # of negative numbers ONNX Runtime takes the largest, not its size
    same("Normalizer", np.concatenate([positive, np.zeros((1, 4), np.float32)]), norm=norm)
    same("Normalizer", np.arange(6).reshape(2, 3), norm=norm)


def test_scaler():
    same("Scaler", X, offset=[0.5, 1.0, 0.0, -2.0], scale=[2.0, 1.0, 0.0, 3.0])
    same("Scaler", X, offset=[0.5], scale=[2.0])
    same("Scaler", np.arange(8).reshape(2, 4), offset=[0.5], scale=[2.0])


def test_binarizer():
    same("Binarizer", X, threshold=0.25)
    assert run("Binarizer", np.array([[1, 2, 3]]), threshold=1.5)[0].tolist() == [[0, 1, 1]]


def test_imputer():
    holes = np.where(np.arange(160).reshape(40, 4) % 3 == 0, np.nan, X).astype(np.float32)
    same("Imputer", holes, imputed_value_floats=[1.0, 2.0, 3.0, 4.0], replaced_value_float=float("nan"))
    same("Imputer", np.array([[1.0, -1.0, 2.0]], np.float32), imputed_value_floats=[9.0], replaced_value_float=-1.0)
    same("Imputer", np.array([[1, 7, 2]]), imputed_value_int64s=[9], replaced_value_int64=7)


def test_feature_vectorizer():
    found = run("FeatureVectorizer", X[:3], np.array([1.0, 2.0, 3.0], np.float32), inputdimensions=[2, 2])[0]
    np.testing.assert_array_equal(found, np.concatenate([X[:3, :2], [[1, 0], [2, 0], [3, 0]]], axis=1))
    same("FeatureVectorizer", X, X[:, :2], inputdimensions=[4, 2])


def test_array_feature_extractor():
    same("ArrayFeatureExtractor", X, np.array([[3, 0]]))
    same("ArrayFeatureExtractor", X[0], np.array([1]))
    assert run("ArrayFeatureExtractor", WORDS, np.array([2, 0]))[0].tolist() == WORDS[:, [2, 0]].tolist()


KEYS = {
    "keys_strings": (["a", "b", "ä"], WORDS),
    "keys_int64s": ([3, -1, 2**62], np.array([[3, 0, 2**62], [-1, -1, 3]])),
    "keys_floats": ([0.5, 3.0, -1.0], np.array([[0.5, np.nan, 0], [-1, 1, 3.0]], np.float32)),
}
VALUES = {
    "values_strings": (["x", "", "ö"], {"default_string": "none"}),
    "values_int64s": ([7, 8, 9], {"default_int64": -3}),
    "values_floats": ([1.5, 2.5, 3.5], {"default_float": -0.5}),
}


@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("values", VALUES)
def test_label_encoder(keys, values):
    same(
        "LabelEncoder",
        KEYS[keys][1],
        version=2,
        **{keys: KEYS[keys][0], values: VALUES[values][0]},
        **VALUES[values][1],
    )


def test_label_encoder_with_tensors():
    given = np.array([1.0, 3.0, 2.0, 9.0])
    attributes = {"keys_tensor": np.array([1.0, 2.0, 3.0]), "values_tensor": np.array([0.5, 20, 30])}
    same("LabelEncoder", given, version=4, **attributes, default_tensor=np.array([-7.0]))


def test_label_encoder_finds_nan():
    given = np.array([1.0, np.nan], np.float32)
    found = run("LabelEncoder", given, version=2, keys_floats=[float("nan"), 0.0], values_strings=["nan", "0"])[0]
    assert found.tolist() == ["_Unused", "nan"]


def test_label_encoder_takes_the_last_of_equal_keys():
    found = run("LabelEncoder", np.array([1, 2]), version=2, keys_int64s=[1, 1, 2], values_int64s=[5, 6, 7])[0]
    assert found.tolist() == [6, 7]


def test_label_encoder_of_version_1():
    same("LabelEncoder", WORDS, version=1, classes_strings=["a", "b"], default_int64=-5)
    same("LabelEncoder", np.array([0, 1, 2]), version=1, classes_strings=["a", "b"], default_string="?")


def test_category_mapper():
    same("CategoryMapper", WORDS, cats_strings=["a", "ä"], cats_int64s=[5, 6], default_int64=-1)
    same("CategoryMapper", np.array([5, 6, 7]), cats_strings=["a", "ä"], cats_int64s=[5, 6], default_string="?")


def test_one_hot_encoder():
    same("OneHotEncoder", WORDS, cats_strings=["a", "", "z", "ä"])
    same("OneHotEncoder", np.array([3, 1, 9]), cats_int64s=[1, 2, 3])
    same("OneHotEncoder", np.array([3.0, 1.0, 9.0], np.float32), cats_int64s=[1, 2, 3])


def test_what_fails_on_unknown_categories_is_refused():
    with pytest.raises(UnsupportedOperatorError, match="zeros=0"):
        run("OneHotEncoder", np.array([3]), cats_int64s=[1], zeros=0)


# ---------------------------------------------------------------------- linear models

TRANSFORMS = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"]
WEIGHTS = [round(float(w), 3) for w in np.random.default_rng(1).normal(size=12) / 9]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_linear_models(transform):
    shift = [0.5, 0.4, 0.6]  # so that PROBIT gets probabilities
    x = X / 4
    same("LinearRegressor", x, coefficients=WEIGHTS, intercepts=shift, targets=3)
    same("LinearClassifier", x, outputs=2, coefficients=WEIGHTS, intercepts=shift, classlabels_strings=["a", "b", "ö"],
         post_transform=transform, tolerance=1e-4)  # fmt: skip
    same("LinearClassifier", x, outputs=2, coefficients=WEIGHTS[:8], intercepts=shift[:2], classlabels_ints=[5, -7],
         post_transform=transform, tolerance=1e-4)  # fmt: skip


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC"])
def test_linear_classifier_of_one_score(transform):
    labels, scores = run("LinearClassifier", X, outputs=2, coefficients=WEIGHTS[:4], intercepts=[0.1],
                         classlabels_ints=[3, 4], post_transform=transform)  # fmt: skip
    score = X @ np.float32(WEIGHTS[:4]) + np.float32(0.1)
    assert labels.tolist() == np.where(score > 0, 4, 3).tolist()
    wanted = np.stack([-score, score], axis=1)
    np.testing.assert_allclose(
        scores, 1 / (1 + np.exp(-wanted)) if transform == "LOGISTIC" else wanted, rtol=1e-4, atol=1e-6
    )


# ---------------------------------------------------------------------- trees


def tree_attributes(
    trees: Sequence[Any], scale: float = 1.0, *, kind: str, column: int | None = None
) -> dict[str, Any]:
    """The attributes of scikit-learn's trees. Leaves have the values of all columns, or of one."""
    names = ("treeids", "nodeids", "modes", "featureids", "values", "truenodeids", "falsenodeids")
    nodes: dict[str, list[Any]] = {f"nodes_{name}": [] for name in names}
    leaves: dict[str, list[Any]] = {f"{kind}_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")}
    for number, tree in enumerate(trees):
        for place in range(tree.node_count):
            is_leaf = tree.children_left[place] < 0
            row = (number, place, "LEAF" if is_leaf else "BRANCH_LEQ", 0 if is_leaf else int(tree.feature[place]),
                   float(np.float32(tree.threshold[place])), max(int(tree.children_left[place]), 0),
                   max(int(tree.children_right[place]), 0))  # fmt: skip
            for name, content in zip(names, row, strict=True):
                nodes[f"nodes_{name}"].append(content)
            values = tree.value[place].reshape(-1) if is_leaf else []
            for target, value in enumerate(values):
                for name, content in zip(leaves, (number, place, column or target, float(value) * scale), strict=True):
                    leaves[name].append(content)
    return {**nodes, **leaves}


CLASSES = (X[:, 0] > 0).astype(int) + (X[:, 1] + X[:, 2] > 0.5)


def test_random_forest_regressor():
    from sklearn.ensemble import RandomForestRegressor

    learned = RandomForestRegressor(7, max_depth=4, random_state=0).fit(X, X[:, 0] * X[:, 1])
    attributes = tree_attributes([tree.tree_ for tree in learned.estimators_], 1 / 7, kind="target")
    same("TreeEnsembleRegressor", X, n_targets=1, **attributes)
    found = run("TreeEnsembleRegressor", X, n_targets=1, base_values=[2.0], **attributes)[0]
    np.testing.assert_allclose(found[:, 0], learned.predict(X) + 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("aggregate", ["SUM", "AVERAGE", "MIN", "MAX"])
def test_trees_are_combined(aggregate):
    from sklearn.ensemble import RandomForestRegressor

    learned = RandomForestRegressor(5, max_depth=3, random_state=0).fit(X, X[:, :2])
    attributes = tree_attributes([tree.tree_ for tree in learned.estimators_], kind="target")
    same("TreeEnsembleRegressor", X, n_targets=2, aggregate_function=aggregate, **attributes)


@pytest.mark.parametrize("labels", [["a", "b", "ö"], ["n", "p"]])
def test_random_forest_classifier(labels):
    from sklearn.ensemble import RandomForestClassifier

    learned = RandomForestClassifier(6, max_depth=3, random_state=1).fit(X, np.minimum(CLASSES, len(labels) - 1))
    attributes = tree_attributes([tree.tree_ for tree in learned.estimators_], 1 / 6, kind="class")
    found, scores = run("TreeEnsembleClassifier", X, outputs=2, classlabels_strings=labels, **attributes)
    np.testing.assert_allclose(scores, learned.predict_proba(X), atol=1e-5)
    assert found.tolist() == [labels[n] for n in learned.predict(X)]
    if len(labels) > 2:  # of two classes ONNX Runtime takes the second as soon as it has any score
        same("TreeEnsembleClassifier", X, outputs=2, classlabels_strings=labels, **attributes)


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC"])
@pytest.mark.parametrize("is_positive", [True, False])
@pytest.mark.parametrize("column", [0, 1])
def test_trees_of_one_class_of_two(transform, is_positive, column):
    from sklearn.ensemble import RandomForestRegressor

    goal = X[:, 0] if not is_positive else CLASSES > 0
    learned = RandomForestRegressor(4, max_depth=3, random_state=1).fit(X, goal)
    attributes = tree_attributes([tree.tree_ for tree in learned.estimators_], 1 / 4, kind="class", column=column)
    same("TreeEnsembleClassifier", X, outputs=2, classlabels_int64s=[3, 9], post_transform=transform, **attributes)


@pytest.mark.parametrize("mode", ["LEQ", "LT", "GTE", "GT", "EQ", "NEQ"])
def test_comparisons_and_missing_values(mode):
    given = np.array([[0.5], [1.0], [1.5], [np.nan]], np.float32)
    for tracks in (0, 1):
        same("TreeEnsembleRegressor", given, n_targets=1, nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2],
             nodes_modes=[f"BRANCH_{mode}", "LEAF", "LEAF"], nodes_featureids=[0, 0, 0], nodes_values=[1.0, 0.0, 0.0],
             nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0], nodes_missing_value_tracks_true=[tracks, 0, 0],
             target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[10.0, 20.0])  # fmt: skip


def ensemble(**changed: Any) -> dict[str, Any]:
    """Two comparisons and three leaves."""
    return {
        "n_targets": 2, "tree_roots": [0], "nodes_modes": np.array([0, 0], np.uint8), "nodes_featureids": [0, 3],
        "nodes_splits": np.array([0.0, 0.5], np.float32), "nodes_truenodeids": [0, 1], "nodes_trueleafs": [1, 1],
        "nodes_falsenodeids": [1, 2], "nodes_falseleafs": [0, 1], "leaf_targetids": [0, 1, 1],
        "leaf_weights": np.array([1.0, 2.0, 3.0], np.float32), **changed,
    }  # fmt: skip


def test_tree_ensemble():
    same("TreeEnsemble", X, version=5, **ensemble())
    shares = np.exp(run("TreeEnsemble", X, version=5, **ensemble())[0])
    found = run("TreeEnsemble", X, version=5, **ensemble(post_transform=1))[0]  # SOFTMAX, which ONNX Runtime mistakes
    np.testing.assert_allclose(found, shares / shares.sum(axis=1, keepdims=True), rtol=1e-5)
    alone = {"nodes_truenodeids": [2, 1], "nodes_falsenodeids": [2, 2], "nodes_falseleafs": [1, 1]}
    assert run("TreeEnsemble", X, version=5, **ensemble(**alone))[0].tolist() == [[0, 3]] * 40


@pytest.mark.parametrize(
    "changed",
    [{"nodes_falsenodeids": [0, 2]}, {"nodes_falsenodeids": [9, 2]}, {"leaf_targetids": [0, 1, 2]},
     {"tree_roots": [-1]},
     {"nodes_featureids": [-1, 0]}, {"nodes_featureids": [0]}, {"nodes_modes": np.array([0, 6], np.uint8)},
     {"nodes_modes": np.array([0, 9], np.uint8)}],
    ids=["loop", "outside", "target", "root", "feature", "length", "set", "mode"],
)  # fmt: skip
def test_trees_that_do_not_hold_together_are_refused(changed):
    with pytest.raises(ModelError):
        run("TreeEnsemble", X, version=5, **ensemble(**changed))


def test_too_few_features_are_refused():
    with pytest.raises(ShapeError, match="look at 4 features, but there are 2"):
        run("TreeEnsemble", X[:, :2].copy(), version=5, **ensemble())


def test_too_few_features_fail_the_run():
    proto = model("TreeEnsemble", [X], 1, 5, ensemble())
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "F"
    with partita.compile(proto, build=BUILD) as module:
        np.testing.assert_array_equal(module.run({"x0": X})["y0"], run("TreeEnsemble", X, version=5, **ensemble())[0])
        with pytest.raises(PartitaError, match="look at 4 features, but there are fewer"):
            module.run({"x0": X[:, :2].copy()})


def test_members_are_found():
    sets = np.array([5, 1, 9, 3, 7, np.nan, np.nan], np.float32)
    given = np.arange(12, dtype=np.float32).reshape(12, 1)
    attributes = ensemble(nodes_modes=np.array([6, 6], np.uint8), nodes_featureids=[0, 0], membership_values=sets)
    found = run("TreeEnsemble", given, version=5, **attributes)[0]
    is_member = np.isin(given[:, 0], sets)
    np.testing.assert_array_equal(found, np.where(is_member[:, None], [[1, 0]], [[0, 3]]))


# ---------------------------------------------------------------------- support vectors


def machine(learned: Any) -> dict[str, Any]:
    kernel = {"rbf": "RBF", "linear": "LINEAR", "poly": "POLY", "sigmoid": "SIGMOID"}[learned.kernel]
    parameters = [float(learned._gamma), float(learned.coef0), float(learned.degree)]
    return {"kernel_type": kernel, "kernel_params": parameters,
            "support_vectors": learned.support_vectors_.reshape(-1).tolist(),
            "coefficients": learned.dual_coef_.reshape(-1).tolist()}  # fmt: skip


@pytest.mark.parametrize("kernel", ["rbf", "linear", "poly", "sigmoid"])
def test_support_vector_regression(kernel):
    from sklearn.svm import SVR

    learned = SVR(kernel=kernel, coef0=0.5, gamma=0.2).fit(X, X[:, 0] - X[:, 1])
    attributes = {**machine(learned), "n_supports": len(learned.support_vectors_), "rho": learned.intercept_.tolist()}
    same("SVMRegressor", X, tolerance=1e-4, **attributes)
    np.testing.assert_allclose(run("SVMRegressor", X, **attributes)[0][:, 0], learned.predict(X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_support_vector_classification(kernel):
    from sklearn.svm import SVC

    learned = SVC(kernel=kernel, gamma=0.3).fit(X, CLASSES)
    attributes = {**machine(learned), "vectors_per_class": learned.n_support_.tolist(),
                  "rho": learned._intercept_.tolist(), "classlabels_strings": ["a", "b", "c"]}  # fmt: skip
    same("SVMClassifier", X, outputs=2, tolerance=1e-4, **attributes)
    assert run("SVMClassifier", X, outputs=2, **attributes)[0].tolist() == ["abc"[n] for n in learned.predict(X)]
    same(
        "SVMClassifier", X, outputs=2, tolerance=1e-3, **attributes, prob_a=[-1.5, -2.0, -1.0], prob_b=[0.1, 0.0, -0.2]
    )


@pytest.mark.parametrize("with_probabilities", [True, False])
def test_support_vector_classification_of_two(with_probabilities):
    from sklearn.svm import SVC

    learned = SVC(gamma=0.3).fit(X, CLASSES > 0)
    # libsvm's pair is (first, second); scikit-learn turns the signs of two classes round.
    attributes = {**machine(learned), "coefficients": (-learned.dual_coef_).reshape(-1).tolist(),
                  "vectors_per_class": learned.n_support_.tolist(), "rho": (-learned.intercept_).tolist(),
                  "classlabels_ints": [0, 1]}  # fmt: skip
    assert run("SVMClassifier", X, outputs=2, **attributes)[0].tolist() == learned.predict(X).astype(int).tolist()
    if with_probabilities:
        same("SVMClassifier", X, outputs=2, tolerance=1e-4, **attributes, prob_a=[-1.5], prob_b=[0.1])


def test_linear_support_vector_classification():
    labels, scores = run("SVMClassifier", X, outputs=2, coefficients=WEIGHTS, rho=[0.25], classlabels_ints=[1, 2, 3])
    wanted = X @ np.float32(WEIGHTS).reshape(3, 4).T + 0.25
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-6)
    assert labels.tolist() == (wanted.argmax(axis=1) + 1).tolist()
