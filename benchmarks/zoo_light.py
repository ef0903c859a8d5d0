"""The networks that ship inside the onnx package: as they are, and with random weights in place of constants.

The package stores each network without its weights: every large parameter is a `ConstantOfShape` node that
fills its shape with 0.02. `with_random_weights` replaces these nodes (and the small float initializers) by
initializers drawn from a seeded generator, scaled so that activations keep their size through the depth.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

#: name in the zoo -> file name inside the onnx package
FILES = {
    "alexnet": "light_bvlc_alexnet.onnx",
    "densenet121": "light_densenet121.onnx",
    "inception-v1": "light_inception_v1.onnx",
    "inception-v2": "light_inception_v2.onnx",
    "resnet50": "light_resnet50.onnx",
    "shufflenet": "light_shufflenet.onnx",
    "squeezenet": "light_squeezenet.onnx",
    "vgg19": "light_vgg19.onnx",
    "zfnet512": "light_zfnet512.onnx",
}

#: operators that hand their first input on with its scale roughly kept
POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool"}
TRANSPARENT = POOLS | {"Dropout", "Concat", "Reshape", "Transpose", "LRN"}


def light_path(name: str) -> Path:
    """The file of one network, as the onnx package ships it."""
    return Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / FILES[name]


def random_light(name: str, size: int = 224, seed: int = 0) -> ModelProto:
    """One network with random weights, for images `[1, 3, size, size]`."""
    model = onnx.load(light_path(name))
    if size != 224:
        _resize(model, size)
    return with_random_weights(model, seed)


def data_input(model: ModelProto) -> onnx.ValueInfoProto:
    """The only graph input that is no parameter."""
    parameters = {tensor.name for tensor in model.graph.initializer}
    [data] = [value for value in model.graph.input if value.name not in parameters]
    return data


def with_random_weights(model: ModelProto, seed: int) -> ModelProto:
    """Replace constant fills and float initializers by random ones, each drawn for the role it plays."""
    graph = model.graph
    data = data_input(model)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    fills = {node.output[0]: node for node in graph.node if node.op_type == "ConstantOfShape"}
    shapes = {name: tuple(int(d) for d in constants[node.input[0]]) for name, node in fills.items()}
    shapes |= {name: value.shape for name, value in constants.items() if value.dtype == np.float32}
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]

    draw = _Draw(nodes, shapes, np.random.default_rng(seed))
    used = {name for node in nodes for name in node.input}
    tensors = []
    for name in sorted(used & (shapes.keys() | constants.keys())):
        value = draw(name, shapes[name]) if name in shapes else constants[name]
        tensors.append(numpy_helper.from_array(value, name))

    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    graph.input.append(data)
    model.ir_version = 8  # from 4 on an initializer need not be an input
    return model


class _Draw:
    """Draws a parameter's values by the role it plays where it is used first."""

    def __init__(self, nodes: list[NodeProto], shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> None:
        self.shapes = shapes
        self.rng = rng
        self.producer = {output: node for node in nodes for output in node.output}
        self.users: dict[str, list[tuple[NodeProto, int]]] = {}
        for node in nodes:
            for index, name in enumerate(node.input):
                self.users.setdefault(name, []).append((node, index))

    def __call__(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        node, index = self.users[name][0]
        while node.op_type in {"Unsqueeze", "Reshape"}:  # Caffe's scale layer, and one Gemm's weight
            node, index = self.users[node.output[0]][0]
        match node.op_type, index:
            case ("Conv", 1) | ("Gemm", 1):
                return self.weight(node, shape)
            case ("BatchNormalization", 1) | ("Mul", _):
                scale = 0.5 if self.feeds_sum(node) else 1.0
                return self.uniform(0.8 * scale, 1.2 * scale, shape)
            case ("BatchNormalization", 4):
                return self.uniform(0.8, 1.25, shape)
            case ("Conv", 2) | ("Gemm", 2) | ("BatchNormalization", 2 | 3) | ("Add", _):
                return self.normal(0.1, shape)
        raise ValueError(f"no role known for {name!r}: input {index} of {node.op_type} {node.name!r}")

    def weight(self, node: NodeProto, shape: tuple[int, ...]) -> np.ndarray:
        """He's rule: variance 2 / fan-in behind a Relu (which halves the second moment), else 1 / fan-in."""
        [outputs] = self.shapes[node.input[2]] if node.op_type == "Gemm" else shape[:1]
        fan_in = int(np.prod(shape)) // outputs
        gain = 2.0 if self.rectified(node.input[0]) else 1.0
        return self.normal(np.sqrt(gain / fan_in), shape)

    def rectified(self, value: str) -> bool:
        node = self.producer.get(value)
        while node is not None and node.op_type in TRANSPARENT:
            node = self.producer.get(node.input[0])
        return node is not None and node.op_type == "Relu"

    def feeds_sum(self, node: NodeProto) -> bool:
        """Whether the result is the end of a residual branch: damped, so that depth does not add up."""
        return any(user.op_type == "Sum" for user, _ in self.users.get(node.output[0], []))

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.uniform(low, high, shape).astype(np.float32)

    def normal(self, deviation: float, shape: tuple[int, ...]) -> np.ndarray:
        values = self.rng.standard_normal(shape, dtype=np.float32)
        values *= np.float32(deviation)
        return values


def _resize(model: ModelProto, size: int) -> None:
    """Make the network take `[1, 3, size, size]`.

    The last pooling and the first Gemm follow the smaller maps; every other layer stays as it is.
    """
    graph = model.graph
    data = data_input(model)
    for axis in (2, 3):
        data.type.tensor_type.shape.dim[axis].dim_value = size
    del graph.value_info[:]
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    _scale_shuffles(model, tensors, size)
    _pool_whole_map(model)

    flatten = [node for node in graph.node if node.op_type == "Reshape" and node.input[0] not in tensors]
    gemm = next((node for node in graph.node if node.op_type == "Gemm"), None)
    flatten = [node for node in flatten if gemm is not None and node.output[0] == gemm.input[0]]
    for node in flatten:
        features = int(np.prod(_inferred(model, node)[node.input[0]]))
        _set(tensors[node.input[1]], np.array([1, features], np.int64))
        fills = {n.output[0]: n for n in graph.node if n.op_type == "ConstantOfShape"}
        if gemm.input[1] in fills:
            shape = tensors[fills[gemm.input[1]].input[0]]
            _set(shape, np.array([numpy_helper.to_array(shape)[0], features], np.int64))


def _scale_shuffles(model: ModelProto, tensors: dict[str, TensorProto], size: int) -> None:
    """Channel shuffles name the map's size in their Reshape targets `[1, (G,) C, H, W]`."""
    names = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for name in sorted(names):
        target = numpy_helper.to_array(tensors[name]).copy()
        if len(target) >= 4:
            target[-2:] = target[-2:] * size // 224
            _set(tensors[name], target)


def _pool_whole_map(model: ModelProto) -> None:
    """The pooling in front of the classifier covers its whole padded map, whatever that is now."""
    for node in model.graph.node:
        attributes = {a.name: a for a in node.attribute}
        if node.op_type == "AveragePool" and list(attributes["kernel_shape"].ints) == [7, 7]:
            height, width = _inferred(model, node)[node.input[0]][2:]
            pads = list(attributes["pads"].ints) if "pads" in attributes else [0] * 4
            attributes["kernel_shape"].ints[:] = [height + pads[0] + pads[2], width + pads[1] + pads[3]]


def _inferred(model: ModelProto, end: NodeProto) -> dict[str, tuple[int, ...]]:
    """The shapes of all values in front of one node: what follows may not fit yet."""
    trunk = ModelProto()
    trunk.CopyFrom(model)
    del trunk.graph.node[list(model.graph.node).index(end) :], trunk.graph.output[:]
    inferred = onnx.shape_inference.infer_shapes(trunk, data_prop=True)
    values = [*inferred.graph.value_info, *inferred.graph.input]
    return {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}


def _set(tensor: TensorProto, value: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
