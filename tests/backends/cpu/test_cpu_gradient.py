"""Gradient: the derivatives that PyTorch finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from harness import BUILD, array
from onnx import helper

import partita
from partita.errors import UnsupportedOperatorError

torch = pytest.importorskip("torch")
DOMAIN = "ai.onnx.preview.training"
TEXTS: dict[str, tuple[str, Any]] = {
    "arithmetic": ("p = Mul(a, b)\n q = Sub(p, a)\n r = Neg(q)\n y = Add(r, b)", lambda a, b: -(a * b - a) + b),
    "broadcast": ("s = ReduceSum <keepdims = 0> (b)\n y = Mul(a, s)", lambda a, b: a * b.sum()),
    "functions": ("e = Exp(a)\n t = Tanh(b)\n s = Sigmoid(t)\n y = Mul(e, s)",
                  lambda a, b: torch.exp(a) * torch.sigmoid(torch.tanh(b))),
    "relu": ("r = Relu(a)\n y = Mul(r, b)", lambda a, b: torch.relu(a) * b),
    "roots": ("p = Mul(a, a)\n q = Mul(b, b)\n s = Add(p, q)\n r = Sqrt(s)\n l = Log(r)\n y = Div(l, r)",
              lambda a, b: torch.log(torch.sqrt(a * a + b * b)) / torch.sqrt(a * a + b * b)),
    "product": ("t = Transpose <perm = [1, 0]> (b)\n m = MatMul(a, t)\n y = ReduceMean(m)",
                lambda a, b: (a @ b.T).mean()),
    "one of both": ("y = Mul(a, a)", lambda a, b: a * a + 0 * b),
    "itself": ("y = Identity(a)", lambda a, b: a + 0 * b),
}  # fmt: skip


def differentiated(text: str) -> onnx.ModelProto:
    kind = "float[1, 1]" if "ReduceMean" in text else "float[3, 4]"
    head = f'<ir_version: 10, opset_import: ["" : 21]> g (float[3, 4] a, float[3, 4] b) => ({kind} y)'
    model = onnx.parser.parse_model(f"{head} {{ {text} }}")
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    model.graph.node.append(helper.make_node("Gradient", ["a", "b"], ["da", "db"], domain=DOMAIN, xs=["a", "b"], y="y"))
    model.graph.output.extend(helper.make_tensor_value_info(name, 1, [3, 4]) for name in ("da", "db"))
    return model


@pytest.mark.parametrize("name", TEXTS)
def test_gradients_are_pytorchs(name):
    text, function = TEXTS[name]
    given = {"a": array(3, 4, seed=1), "b": array(3, 4, seed=2)}
    with partita.compile(differentiated(text), build=BUILD) as module:
        found = module.run(given)
    tensors = [torch.tensor(given[name], requires_grad=True) for name in ("a", "b")]
    result = function(*tensors)
    result.sum().backward()
    np.testing.assert_allclose(found["y"].reshape(result.shape), result.detach().numpy(), rtol=1e-4, atol=1e-5)
    for tensor, key in zip(tensors, ("da", "db"), strict=True):
        np.testing.assert_allclose(found[key], tensor.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_what_has_no_rule_is_refused_by_name():
    with pytest.raises(UnsupportedOperatorError, match=r"no rule to differentiate .*Softmax"):
        partita.compile(differentiated("s = Softmax(a)\n y = Mul(s, b)"), build=BUILD)


def test_other_operands_than_those_named_are_refused():
    model = differentiated("y = Mul(a, b)")
    model.graph.node[-1].input[:] = ["b", "a"]
    with pytest.raises(UnsupportedOperatorError, match="xs and zs name"):
        partita.compile(model, build=BUILD)
