"""The models that tests and benchmarks share: one name each, deterministic, with inputs to run them on.

    entry = zoo.get("resnet50")        # or "resnet50@64" for images of 64×64 where the network permits it
                                       # or "resnet50*8" for eight samples at once
    entry.model()                      # an onnx.ModelProto
    entry.path()                       # its file: built once, kept in the user's cache folder
    entry.inputs(seed=0)               # {"gpu_0/data_0": float32 [1, 3, 224, 224]}
    zoo.cut_softmax(entry.model())     # the same network up to its logits

`zoo.names()` lists everything. A model whose packages are missing raises `MissingExtraError`.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from benchmarks import zoo_batch, zoo_digits, zoo_light, zoo_minilm, zoo_mobile
from benchmarks.extras import MissingExtraError

__all__ = ["Entry", "MissingExtraError", "Tolerance", "cut_softmax", "get", "largest_error", "names"]

Inputs = dict[str, np.ndarray]

#: networks for images, smallest first
IMAGE_MODELS = [
    "squeezenet",
    "mobilenet-v2",
    "shufflenet",
    "inception-v1",
    "inception-v2",
    "resnet50",
    "densenet121",
    "alexnet",
    "zfnet512",
    "vgg19",
]


@dataclass(frozen=True)
class Tolerance:
    """How far from a float64 run a result may lie: `times` ONNX Runtime's own largest error.

    `floor` is a least allowance, in units of float32's epsilon times the largest reference value: where ONNX
    Runtime happens to be almost exact, a multiple of its error would ask for more than float32 holds.
    """

    times: float = 4.0
    floor: float = 2.0

    def allowed(self, peer: np.ndarray, exact: np.ndarray) -> float:
        """The largest error permitted, given a peer's result and the float64 run's."""
        least = self.floor * np.finfo(np.float32).eps * np.abs(exact).max()
        return max(self.times * largest_error(peer, exact), float(least))


def largest_error(result: np.ndarray, exact: np.ndarray) -> float:
    """The largest distance from a float64 run; infinite where shapes differ or a result is not finite."""
    if result.shape != exact.shape or not np.isfinite(result).all():
        return float("inf")
    return float(np.abs(result.astype(np.float64) - exact).max(initial=0.0))


@dataclass(frozen=True)
class Entry:
    """One model of the zoo."""

    name: str
    build: Callable[[], ModelProto]
    make_inputs: Callable[[int], Inputs]
    sources: tuple[Path, ...] = ()
    shipped: Path | None = None
    sizes: tuple[int, ...] = ()
    costly: bool = False
    tolerance: Tolerance = Tolerance()

    def model(self) -> ModelProto:
        """The model; one that takes seconds to train or export is kept in the cache folder."""
        return onnx.load(self.path()) if self.costly or self.shipped else self.build()

    def path(self) -> Path:
        """The model's file; built on first use, and again when the code that builds it has changed."""
        if self.shipped:
            return self.shipped
        code = b"".join(source.read_bytes() for source in self.sources) + onnx.__version__.encode()
        digest = hashlib.sha256(code).hexdigest()[:12]
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "partita-zoo"
        stem = self.name.replace("*", "x")
        path = folder / f"{stem}-{digest}.onnx"
        if not path.exists():
            _write(path, self.build().SerializeToString(deterministic=True))
            for old in folder.glob(f"{stem}-{'?' * 12}.onnx"):
                if old != path:
                    old.unlink(missing_ok=True)
        return path

    def inputs(self, seed: int = 0) -> Inputs:
        """Something to run the model on; equal seeds give equal inputs."""
        return self.make_inputs(seed)


def names() -> list[str]:
    """Every model, the ones as shipped by onnx last."""
    return list(_registry())


def get(name: str) -> Entry:
    """The model of this name; `name@size` takes smaller images, `name*8` eight samples at once."""
    name, _, batch = name.partition("*")
    if batch:
        return _batched(get(name), int(batch))
    base, _, size = name.partition("@")
    if base not in _registry():
        raise KeyError(f"no model {base!r} in the zoo; there are {', '.join(names())}")
    if not size:
        return _registry()[base]
    sizes = _registry()[base].sizes
    if int(size) not in sizes:
        possible = ", ".join(map(str, sizes)) or "none"
        raise KeyError(f"{base!r} is not made for size {size}; possible: {possible}")
    return _image_model(base, int(size))


def cut_softmax(model: ModelProto) -> ModelProto:
    """The model without the Softmax in front of its output, or the model itself where there is none.

    Random weights give logits far apart: behind a Softmax nearly every error is multiplied by zero.
    """
    outputs = {output.name: output for output in model.graph.output}
    found = [n for n in model.graph.node if n.op_type == "Softmax" and n.output[0] in outputs]
    if not found:
        return model
    cut = ModelProto()
    cut.CopyFrom(model)
    for node in found:
        cut.graph.node.remove(node)
        for output in cut.graph.output:
            if output.name == node.output[0]:
                output.name = node.input[0]
    return cut


@cache
def _registry() -> dict[str, Entry]:
    digits = _entry("digits", zoo_digits.digits_cnn, partial(_digits, 1))
    tiny = [
        _entry("ds-cnn", zoo_mobile.ds_cnn, partial(_noise, "input", (1, 1, 49, 10))),
        _entry("autoencoder", zoo_mobile.autoencoder, partial(_noise, "input", (1, 640))),
        replace(digits, costly=True),
    ]
    images = [_image_model(name, 224) for name in IMAGE_MODELS]
    text = [
        _entry("minilm", zoo_minilm.minilm, zoo_minilm.token_inputs),
        _entry("minilm-dynamic", partial(zoo_minilm.minilm, dynamic=True), zoo_minilm.token_inputs),
    ]
    shipped = [_shipped(name) for name in zoo_light.FILES]
    torch_code = Path(zoo_minilm.__file__).with_name("minilm_torch.py")
    text = [replace(entry, sources=(*entry.sources, torch_code), costly=True) for entry in text]
    return {entry.name: entry for entry in [*tiny, *images, *text, *shipped]}


def _entry(name: str, build: Callable[[], ModelProto], make_inputs: Callable[[int], Inputs]) -> Entry:
    function = build.func if isinstance(build, partial) else build
    return Entry(name, build, make_inputs, (Path(function.__code__.co_filename),))


def _image_model(name: str, size: int) -> Entry:
    """A network for images `[1, 3, size, size]`."""
    data = "input"
    if name == "mobilenet-v2":
        build = partial(zoo_mobile.mobilenet_v2, size)
    else:
        build = partial(zoo_light.random_light, name, size)
        data = _light_data(name)
    sizes = (128, 224) if name in {"alexnet", "zfnet512"} else (64, 96, 128, 160, 192, 224)
    title = name if size == 224 else f"{name}@{size}"
    return replace(_entry(title, build, partial(_images, data, size)), sizes=sizes)


def _batched(entry: Entry, batch: int) -> Entry:
    """The same network for several samples, each of them another."""

    def inputs(seed: int) -> Inputs:
        samples = [entry.inputs(seed + 2 * number) for number in range(batch)]
        return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}

    sources = (*entry.sources, Path(zoo_batch.__file__))
    build = partial(_batched_model, entry, batch)
    return replace(entry, name=f"{entry.name}*{batch}", build=build, make_inputs=inputs, sources=sources, shipped=None)


def _batched_model(entry: Entry, batch: int) -> ModelProto:
    return zoo_batch.batched(entry.model(), batch)


def _shipped(name: str) -> Entry:
    path = zoo_light.light_path(name)
    inputs = partial(_images, _light_data(name), 224)
    return Entry(f"light-{name}", partial(onnx.load, path), inputs, shipped=path)


@cache
def _light_data(name: str) -> str:
    return zoo_light.data_input(onnx.load(zoo_light.light_path(name))).name


def _noise(name: str, shape: tuple[int, ...], seed: int) -> Inputs:
    return {name: np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)}


def _images(name: str, size: int, seed: int) -> Inputs:
    """Noise `[1, 3, size, size]`, coarse and fine as in photographs: fine noise alone averages out."""
    rng = np.random.default_rng(seed)
    image = np.zeros((1, 3, size, size), np.float32)
    for step in (1, 4, 16, 32):
        grain = rng.standard_normal((1, 3, size // step, size // step), dtype=np.float32)
        image += grain.repeat(step, 2).repeat(step, 3) / 2
    return {name: image}


def _digits(batch: int, seed: int) -> Inputs:
    images = zoo_digits.digits()[1].images
    chosen = np.random.default_rng(seed).choice(len(images), batch, replace=False)
    return {"input": images[chosen]}


def _write(path: Path, content: bytes) -> None:
    """All or nothing: a reader sees the old file, the new one or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
