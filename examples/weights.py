"""Other weights in a compiled model, with no C compiler: on disk, and in memory.

A model's parameters are never part of its code. What is computed from them alone (here: layouts that the kernels
want) is a program of its own in the artifact, and runs again when the weights change.
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import partita
from partita.runtime import rebind_artifact

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
classifier (float[N, 64] x) => (float[N, 10] y) <int64[2] shape = {-1, 64}> {
  r = Reshape (x, shape)
  h = Gemm <transB = 1> (r, w1, b1)
  a = Relu (h)
  l = Gemm <transB = 1> (a, w2, b2)
  y = Softmax (l)
}
"""
SHAPES = {"w1": (32, 64), "b1": (32,), "w2": (10, 32), "b2": (10,)}


def weights(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def model(values: dict[str, np.ndarray]) -> onnx.ModelProto:
    made = onnx.parser.parse_model(TEXT)
    made.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    return made


def main() -> None:
    first, second = weights(1), weights(2)
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    expected = partita.compile(model(second)).run({"x": x})["y"]

    with tempfile.TemporaryDirectory() as folder:
        file = partita.compile(model(first)).export_library(Path(folder) / "classifier.so")
        os.environ["PARTITA_CC"] = "/no/compiler/from/here/on"

        loaded = partita.load_module(file)
        print("first weights           ", loaded.run({"x": x})["y"].argmax(axis=1))

        in_memory = loaded.bind(second)  # a module of its own, which shares the code
        np.testing.assert_array_equal(in_memory.run({"x": x})["y"], expected)
        print("second, bound in memory ", in_memory.run({"x": x})["y"].argmax(axis=1))

        on_disk = rebind_artifact(file, second, Path(folder) / "second.so")
        np.testing.assert_array_equal(partita.load_module(on_disk).run({"x": x})["y"], expected)
        print("second, bound on disk   ", partita.load_module(on_disk).run({"x": x})["y"].argmax(axis=1))

        try:
            loaded.bind(second | {"w1": second["w1"][:16]})
        except partita.errors.ParameterError as error:
            print("weights that do not fit:", error)


if __name__ == "__main__":
    main()
