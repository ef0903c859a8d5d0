"""The text and the weights of the model that these tests run."""

import numpy as np

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[N, 4] x) => (float[N, 3] y, float[N, 3] z) {
  h = Gemm (x, w, b)
  y = Relu (h)
  z = Softmax <axis = -1> (h)
}
"""


def weights(scale: float = 1.0) -> dict[str, np.ndarray]:
    return {
        "w": scale * np.arange(12, dtype=np.float32).reshape(4, 3),
        "b": np.array([1, 2, 3], np.float32),
    }
