"""The zoo itself: deterministic models, sane numbers, an honest cache."""

import dataclasses

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks import extras, zoo, zoo_digits

SMALL = [
    "ds-cnn",
    "autoencoder",
    "digits",
    "squeezenet@64",
    "mobilenet-v2@64",
    "shufflenet@64",
    "inception-v1@64",
    "inception-v2@64",
    "resnet50@64",
    "densenet121@64",
    "alexnet@128",
    "zfnet512@128",
    "vgg19@64",
    "minilm",
    "minilm-dynamic",
]


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    return ort.InferenceSession(model.SerializeToString()).run(None, inputs)


@pytest.mark.parametrize("name", SMALL)
def test_model_is_valid_and_its_numbers_are_sane(name, zoo_entry):
    entry = zoo_entry(name)
    model = zoo.cut_softmax(entry.model())
    onnx.checker.check_model(model, full_check=True)
    [first, *_], [second, *_] = (run(model, entry.inputs(seed)) for seed in (0, 1))
    assert np.isfinite(first).all()
    assert 0.1 < first.std() < 100
    assert np.abs(first - second).max() > 0.01 * np.abs(first).max()  # the input reaches the output


@pytest.mark.parametrize("name", ["ds-cnn", "squeezenet@64"])
def test_building_twice_gives_equal_bytes(name):
    first, second = (zoo.get(name).build().SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["squeezenet@64", "resnet50@64"])
def test_a_batch_is_what_its_samples_are_alone(name):
    [several] = run(zoo.get(f"{name}*3").model(), zoo.get(f"{name}*3").inputs(5))
    for number, result in enumerate(several):
        [alone] = run(zoo.get(name).model(), zoo.get(name).inputs(5 + 2 * number))
        np.testing.assert_allclose(result, alone[0], rtol=1e-4, atol=1e-5 * np.abs(alone).max())


def test_training_twice_gives_equal_weights(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(zoo_digits, "EPOCHS", 1)
    first, second = (zoo_digits.train(zoo_digits.digits()[0], seed=3) for _ in range(2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])


def test_inputs_depend_on_the_seed_alone():
    entry = zoo.get("resnet50@64")
    [first], [same], [other] = (entry.inputs(seed).values() for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_shipped_models_come_from_the_onnx_package():
    names = [name for name in zoo.names() if name.startswith("light-")]
    assert len(names) == 9
    assert all(zoo.get(name).path().parent.name == "light" for name in names)


def test_random_models_keep_the_shipped_structure():
    random, shipped = zoo.get("resnet50").model(), zoo.get("light-resnet50").model()
    kinds = [node.op_type for node in shipped.graph.node if node.op_type != "ConstantOfShape"]
    assert [node.op_type for node in random.graph.node] == kinds
    assert [value.name for value in random.graph.input] == ["gpu_0/data_0"]


def test_cut_softmax_leaves_the_logits():
    entry = zoo.get("ds-cnn")
    inputs = entry.inputs(0)
    [logits], [probabilities] = run(zoo.cut_softmax(entry.model()), inputs), run(entry.model(), inputs)
    powers = np.exp(logits - logits.max())
    np.testing.assert_allclose(powers / powers.sum(), probabilities, rtol=1e-5)
    without = zoo.get("autoencoder").model()
    assert zoo.cut_softmax(without) is without


def test_unknown_names_and_sizes_say_what_there_is():
    with pytest.raises(KeyError, match=r"no model 'resnet'.*resnet50"):
        zoo.get("resnet")
    with pytest.raises(KeyError, match="not made for size 63; possible: 64, 96"):
        zoo.get("resnet50@63")
    with pytest.raises(KeyError, match="possible: none"):
        zoo.get("minilm@64")


def test_missing_package_is_named():
    with pytest.raises(extras.MissingExtraError, match="install wheel-of-fortune"):
        extras.need("no_such_module", "wheel-of-fortune")


def test_cache_builds_once_and_again_for_other_code(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "builder.py"
    source.write_text("one")
    built = []
    original = zoo.get("ds-cnn")

    def build() -> onnx.ModelProto:
        built.append(1)
        return original.build()

    entry = dataclasses.replace(original, build=build, sources=(source,))
    first = entry.path()
    assert entry.path() == first
    assert len(built) == 1
    source.write_text("two")
    second = entry.path()
    assert len(built) == 2
    assert list(second.parent.iterdir()) == [second]  # the old file went


def test_failed_build_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def build() -> onnx.ModelProto:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        dataclasses.replace(zoo.get("ds-cnn"), build=build).path()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_tolerance_is_a_multiple_of_the_peers_error_with_a_floor():
    exact = np.array([1.0, -2.0])
    tolerance = zoo.Tolerance()
    assert tolerance.allowed(exact + 0.01, exact) == pytest.approx(0.04)
    assert tolerance.allowed(exact, exact) == pytest.approx(4 * np.finfo(np.float32).eps)


@pytest.mark.parametrize("result", [np.array([1.0]), np.array([1.0, np.nan]), np.array([np.inf, 1.0])])
def test_wrong_shapes_and_not_a_number_are_infinitely_wrong(result):
    assert zoo.largest_error(result, np.array([1.0, 2.0])) == float("inf")
