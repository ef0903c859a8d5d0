"""What the trained networks are for: recognizing digits, and knowing which sentences mean the same."""

import numpy as np
import onnxruntime as ort
import pytest
from accuracy import assert_accurate

import partita
from benchmarks import zoo_digits, zoo_minilm

SENTENCES = [
    "A cat sleeps on the warm roof.",
    "The kitten is napping on top of the house.",
    "The central bank raised its interest rates.",
]


def test_digits_are_recognized_as_by_onnx_runtime(zoo_entry):
    entry = zoo_entry("digits")
    split = zoo_digits.digits()[1]
    module = partita.compile(entry.path())
    session = ort.InferenceSession(entry.path())
    ours, peers = [], []
    for image in split.images:
        inputs = {"input": image[None]}
        ours.append(module.run(inputs)["logits"].argmax())
        peers.append(session.run(None, inputs)[0].argmax())
    assert ours == peers
    assert np.mean(np.array(ours) == split.labels) > 0.95


def test_similar_sentences_are_closer_than_unrelated_ones(zoo_entry):
    module = partita.compile(zoo_entry("minilm-dynamic").path())
    vectors = module.run(zoo_minilm.tokenize(SENTENCES))["sentence_embedding"]
    alike, unlike, other = vectors[0] @ vectors[1], vectors[0] @ vectors[2], vectors[1] @ vectors[2]
    assert alike > 0.5 > 0.3 > max(unlike, other)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_one_dynamic_module_serves_every_shape(zoo_entry):
    """Batches `[B, S]` of different sizes, with padding, through one compiled module."""
    entry = zoo_entry("minilm-dynamic")
    batches = [(SENTENCES[:1], 7), (SENTENCES, None), (SENTENCES[:2], 33), ([" ".join(SENTENCES * 4)], 128)]
    assert_accurate(entry, entry.model(), [zoo_minilm.tokenize(texts, size) for texts, size in batches])


@pytest.mark.parametrize("seed", [0, 1])
def test_export_agrees_with_torch_in_float64(seed, zoo_entry):
    """The exported model and the yardstick together, against the module they came from."""
    torch = pytest.importorskip("torch")
    from benchmarks.float64 import run_float64

    entry = zoo_entry("minilm")
    inputs = entry.inputs(seed)
    with torch.no_grad():
        expected = zoo_minilm.encoder().double()(*map(torch.from_numpy, inputs.values()))
    for value, result in zip(expected, run_float64(entry.model(), inputs).values(), strict=True):
        np.testing.assert_allclose(result, value.numpy(), atol=1e-6)


def test_tokens_are_those_of_the_published_tokenizer(zoo_entry):
    """Ids checked by hand in the vocabulary: lower case, accents dropped, punctuation apart, word pieces."""
    zoo_entry("minilm")
    ids = zoo_minilm.tokenize(["Café, kitten naps!", "a"])
    words = (zoo_minilm.files() / "vocab.txt").read_text("utf-8").split("\n")
    first = [words[i] for i in ids["input_ids"][0]]
    assert first == ["[CLS]", "cafe", ",", "kitten", "nap", "##s", "!", "[SEP]"]
    assert [words[i] for i in ids["input_ids"][1]] == ["[CLS]", "a", "[SEP]"] + ["[PAD]"] * 5
    assert ids["attention_mask"].sum(1).tolist() == [8, 3]
