"""RNN, GRU and LSTM in generated C, against ONNX Runtime, and against each other where it lacks a form."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import partita

STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 4, 6
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LENGTHS = np.asarray([5, 2, 1], np.int32)


def values(*shape):
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def model(op_type, *, given=(), weights=("W", "R", "B"), steps=STEPS, batch=BATCH, layout=0, **attributes):
    """A layer on x, with the operands named in `given` as inputs too. Gives the model and the inputs."""
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    gates = GATES[op_type]
    state = values(count, BATCH, HIDDEN)
    arrays = {
        "x": values(STEPS, BATCH, INPUTS),
        "W": values(count, gates * HIDDEN, INPUTS),
        "R": values(count, gates * HIDDEN, HIDDEN),
        "B": values(count, 2 * gates * HIDDEN),
        "lengths": LENGTHS,
        "h": state / 2,
        "c": state / 3,
        "P": values(count, 3 * HIDDEN),
    }
    names = list(arrays)[: 6 if op_type != "LSTM" else 8]
    operands = [name if name in ("x", *weights, *given) else "" for name in names]
    if layout:
        arrays |= {name: np.ascontiguousarray(arrays[name].swapaxes(0, 1)) for name in ("x", "h", "c")}
    inputs = {name: arrays[name] for name in operands if name and name not in weights}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in inputs.items()
    ]
    infos[0] = helper.make_tensor_value_info(
        "x", TensorProto.FLOAT, (batch, steps, INPUTS) if layout else (steps, batch, INPUTS)
    )
    outputs = ["y", "last", "memory"][: 3 if op_type == "LSTM" else 2]
    node = helper.make_node(op_type, operands, outputs, hidden_size=HIDDEN, layout=layout, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        infos,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(arrays[name], name) for name in weights if name in operands],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), inputs


def run(proto, inputs):
    module = partita.compile(proto, build=partita.BuildOptions(optimization="-O0"))
    first = module.run(inputs)
    for name, array in module.run(inputs).items():
        np.testing.assert_array_equal(array, first[name])
    return first


def check(op_type, **options):
    onnxruntime = pytest.importorskip("onnxruntime")
    proto, inputs = model(op_type, **options)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for wanted, found in zip(session.run(None, inputs), run(proto, inputs).values(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


KINDS = pytest.mark.parametrize("op_type", list(GATES))


@KINDS
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_directions(op_type, direction):
    check(op_type, direction=direction, given=("h", "c"))


@KINDS
def test_sequences_of_different_lengths_both_ways(op_type):
    check(op_type, direction="bidirectional", given=("lengths", "h"))


@KINDS
def test_without_a_bias_and_with_symbolic_steps_and_batch(op_type):
    check(op_type, weights=("W", "R"), steps="T", batch="N")


@KINDS
def test_weights_that_are_inputs(op_type):
    check(op_type, weights=(), given=("W", "R", "B"))


@KINDS
def test_clipped_gates(op_type):
    check(op_type, clip=0.3)


@pytest.mark.parametrize("weights", [("W", "R", "B"), ("W", "R")])
def test_a_gru_that_multiplies_first(weights):
    check("GRU", linear_before_reset=1, direction="bidirectional", weights=weights)


def test_an_lstm_with_peepholes():
    check("LSTM", given=("P", "c"), direction="bidirectional")


def test_an_lstm_whose_gates_are_coupled():
    check("LSTM", input_forget=1)


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["Affine", "Relu"], {"activation_alpha": [0.5], "activation_beta": [0.1]}),
        (["HardSigmoid", "LeakyRelu"], {"activation_alpha": [0.3, 0.2], "activation_beta": [0.4]}),
        (["Softsign", "ScaledTanh"], {"activation_alpha": [0.7], "activation_beta": [0.9]}),
        (["Elu", "ThresholdedRelu"], {"activation_alpha": [0.8, 0.6]}),
        (["Softplus", "Sigmoid"], {}),
    ],
    ids=lambda case: "+".join(case) if isinstance(case, list) else "",
)
def test_activations_of_each_direction(names, options):
    check("RNN", activations=names, direction="bidirectional", **options)


@KINDS
def test_the_batch_may_come_first(op_type):
    """Which ONNX Runtime does not have: the same as the other layout, transposed."""
    options = {"given": ("lengths", "h", "c"), "direction": "bidirectional"}
    y, *states = run(*model(op_type, **options)).values()
    batched, *found = run(*model(op_type, layout=1, **options)).values()
    np.testing.assert_allclose(batched, y.transpose(2, 0, 1, 3), rtol=1e-5)
    for first, second in zip(states, found, strict=True):
        np.testing.assert_allclose(second, first.swapaxes(0, 1), rtol=1e-5)


def test_weights_are_packed_when_they_are_bound():
    """Nothing of a step but the product itself touches the recurrent weights; new ones need no compiler."""
    proto, inputs = model("LSTM")
    module = partita.compile(proto, build=partita.BuildOptions(optimization="-O0"))
    y = module.run(inputs)["y"]
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert not {"W", "R"} & set(module.params)
    np.testing.assert_array_equal(module.bind(weights).run(inputs)["y"], y)
    still = module.bind({name: np.zeros_like(weight) for name, weight in weights.items()})
    np.testing.assert_array_equal(still.run(inputs)["y"], np.zeros_like(y))
