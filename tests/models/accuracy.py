"""The comparison that every accuracy test makes."""

import numpy as np
import onnx
import onnxruntime as ort

import partita
from benchmarks import zoo
from benchmarks.float64 import Float64Model


def assert_accurate(entry: zoo.Entry, model: onnx.ModelProto, samples: list[dict[str, np.ndarray]]) -> None:
    """Compare all outputs on all samples; the peer's largest error over all of them is the measure."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    module = partita.compile(model)
    yardstick = Float64Model(model)
    worst = dict.fromkeys(names, 0.0)
    allowed = dict(worst)
    for inputs in samples:
        exact = yardstick.run(inputs)
        peer = dict(zip(names, session.run(names, inputs), strict=True))
        ours = module.run(inputs)
        assert list(ours) == names
        for name in names:
            assert ours[name].dtype == np.float32
            worst[name] = max(worst[name], zoo.largest_error(ours[name], exact[name]))
            allowed[name] = max(allowed[name], entry.tolerance.allowed(peer[name], exact[name]))
    assert {n: e for n, e in worst.items() if e > allowed[n]} == {}, f"errors allowed: {allowed}"
