"""Partita on whole networks: the largest error against a float64 run is at most four times ONNX Runtime's.

Networks are compared up to their logits, on several inputs. By default the large ones take small images, which
keeps every layer and needs little time; the same networks at full size are marked slow:

    pytest tests/models                   # minutes
    pytest -m slow tests/models           # the full sizes; VGG-19 needs about 6 GB for its float64 run
"""

import numpy as np
import pytest
from accuracy import assert_accurate

import partita
from benchmarks import zoo

SEEDS = (0, 1, 2)

QUICK = [
    "ds-cnn",
    "autoencoder",
    "digits",
    "squeezenet",
    "mobilenet-v2",
    "shufflenet",
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

FULL = ["inception-v1", "inception-v2", "resnet50", "densenet121", "alexnet", "zfnet512", "vgg19"]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in FULL)])
def test_error_against_float64(name, zoo_entry):
    entry = zoo_entry(name)
    assert_accurate(entry, zoo.cut_softmax(entry.model()), [entry.inputs(seed) for seed in SEEDS])


@pytest.mark.parametrize("name", ["ds-cnn", "squeezenet@64"])
def test_probabilities_behind_the_softmax(name, zoo_entry):
    entry = zoo_entry(name)
    assert_accurate(entry, entry.model(), [entry.inputs(seed) for seed in SEEDS])


def test_exported_artifact_computes_the_same(tmp_path, zoo_entry):
    entry = zoo_entry("ds-cnn")
    inputs = entry.inputs(0)
    module = partita.compile(entry.path())
    module.export_library(tmp_path / "model.so")
    loaded = partita.load_module(tmp_path / "model.so")
    for name, value in module.run(inputs).items():
        np.testing.assert_array_equal(loaded.run(inputs)[name], value)
