"""Models of scikit-learn as skl2onnx exports them: what they predict, and how likely each class is."""

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction import DictVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, Normalizer, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, SVR

import partita

skl2onnx = pytest.importorskip("skl2onnx")
types = pytest.importorskip("skl2onnx.common.data_types")

QUICK = partita.BuildOptions(optimization="-O0")
X, KINDS = load_iris(return_X_y=True)
X = X.astype(np.float32)
NAMES = load_iris().target_names[KINDS]
TUMORS, IS_BENIGN = load_breast_cancer(return_X_y=True)
CATEGORIES = np.array([["red", "s"], ["green", "l"], ["blue", "s"], ["red", "l"], ["green", "s"]] * 4, object)
CHOICES = np.array([0, 1, 1, 0, 1] * 4)

FLOWERS = types.FloatTensorType([None, 4])
CLASSIFIERS = {
    "zip map": (LogisticRegression(max_iter=500), X, KINDS, FLOWERS),
    "names": (LogisticRegression(max_iter=500), X, NAMES, FLOWERS),
    "two classes": (
        make_pipeline(StandardScaler(), LogisticRegression()),
        TUMORS.astype(np.float32),
        IS_BENIGN,
        types.FloatTensorType([None, 30]),
    ),
    "forest": (RandomForestClassifier(10, random_state=0), X, NAMES, FLOWERS),
    "boosted trees": (GradientBoostingClassifier(n_estimators=5, random_state=0), X, KINDS, FLOWERS),
    "support vectors": (SVC(probability=True, random_state=0), X, KINDS, FLOWERS),
    "neighbors": (KNeighborsClassifier(), X, KINDS, FLOWERS),
    "network": (MLPClassifier(max_iter=50, random_state=0), X, NAMES, FLOWERS),
    "bins": (make_pipeline(KBinsDiscretizer(3, encode="onehot-dense"), LogisticRegression()), X, KINDS, FLOWERS),
    "categories": (
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        CATEGORIES,
        CHOICES,
        types.StringTensorType([None, 2]),
    ),
}


def exported(model, given, target, kind, **options):
    model.fit(given, target)
    return skl2onnx.convert_sklearn(model, initial_types=[("x", kind)], **options)


def results(proto, given):
    """Partita's, and ONNX Runtime's."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(partita.compile(proto, build=QUICK).run({"x": given}).values()), session.run(None, {"x": given})


def table(rows, names):
    return np.array([[row[name] for name in names] for row in rows])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers(name):
    model, given, target, kind = CLASSIFIERS[name]
    (labels, shares), (their_labels, their_shares) = results(exported(model, given, target, kind), given)
    np.testing.assert_array_equal(labels, model.predict(given))
    np.testing.assert_array_equal(labels, their_labels)
    assert [list(row) for row in shares] == [list(row) for row in their_shares]
    shares, their_shares = table(shares, model.classes_), table(their_shares, model.classes_)
    np.testing.assert_allclose(shares, model.predict_proba(given), atol=1e-5)
    np.testing.assert_allclose(shares, their_shares, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_classifiers_without_maps():
    """Exported with its domain imported twice."""
    model = make_pipeline(SimpleImputer(), Normalizer(), RidgeClassifier())
    (labels, scores), theirs = results(exported(model, X, KINDS, FLOWERS), X)
    np.testing.assert_array_equal(labels, model.predict(X))
    np.testing.assert_allclose(scores, theirs[1], atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "model", [RandomForestRegressor(10, random_state=0), SVR(), make_pipeline(PolynomialFeatures(2), SVR())]
)
def test_regressors(model):
    target = KINDS.astype(np.float32)
    (found,), (theirs,) = results(exported(model, X, target, FLOWERS), X)
    np.testing.assert_allclose(found[:, 0], model.predict(X), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_a_dict_at_a_time():
    rows = [{"width": float(n % 5), "height": float(n)} for n in range(30)]
    kind = types.DictionaryType(types.StringTensorType([1]), types.FloatTensorType([]))
    model = make_pipeline(DictVectorizer(sparse=False), StandardScaler(), LogisticRegression())
    proto = exported(model, rows, CHOICES.repeat(2)[:30], kind)
    for row in rows[:4]:
        (label, [shares]), (their_label, [their_shares]) = results(proto, row)
        assert label.tolist() == their_label.tolist() == model.predict([row]).tolist()
        np.testing.assert_allclose(list(shares.values()), model.predict_proba([row])[0], atol=1e-5)
        np.testing.assert_allclose(list(shares.values()), list(their_shares.values()), atol=1e-5)
