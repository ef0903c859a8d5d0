"""Layout: convolutional parts of a region compute on blocked tensors, `[N, C / B, H, W, B]`.

    before: y = Relu(Conv(x, w))
    after:  xb = Transpose(Reshape(x)); yb = Relu(BlockedConv(xb, packed w)); y = Reshape(Transpose(yb))

Convolutions start it; what follows stays blocked as long as it can: pointwise operators, pools, reductions over the
whole image, concatenation of whole blocks. Packing of weights is ordinary nodes on parameters, so it runs when weights
are bound. Conversions appear where a plain reader meets a blocked value, and each value is converted once.
"""

from __future__ import annotations

from collections.abc import Callable

from partita.backends.cpu.blocked_operators import DOMAIN, block_count
from partita.backends.cpu.pack_weights import Packer
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.expression import Reduce, walk
from partita.ir.graph import Graph, Node, Value
from partita.ir.operators.contents import known
from partita.ir.operators.registry import definition
from partita.ir.subgraph import depends_on_parameters
from partita.ir.types import DType, TensorType
from partita.passes.fuse import is_pointwise

# Pointwise operators that keep the padding channels finite: 0 stays finite through any chain of them.
FINITE = frozenset(
    "Add Sub Mul Sum Mean Max Min Relu Clip LeakyRelu PRelu Sigmoid Tanh HardSigmoid HardSwish Elu Selu Identity "
    "Softsign Abs Neg Gelu Mish Swish".split()
)
GLOBAL = {"GlobalAveragePool": "AveragePool", "GlobalMaxPool": "MaxPool"}
LONGEST = 256  # elements of a mean in one pool: the error of a longer sum is less where it is taken row by row


def assign_layouts(graph: Graph, block: int) -> bool:
    """Rewrites a region in place; whether anything is blocked."""
    return _Layout(graph, block).run()


class _Layout:
    def __init__(self, graph: Graph, block: int) -> None:
        self.graph = graph
        self.block = block
        self.blocked: dict[Value, Value] = {}
        self.plain: dict[Value, Value] = {}
        self.replaced: list[Node] = []

    def run(self) -> bool:
        for node in self.graph.nodes:
            convert = self._conversion(node)
            if convert is not None:
                self.blocked[node.output] = convert(node)
                self.replaced.append(node)
            else:
                for index, value in enumerate(node.inputs):
                    if value is not None and value in self.blocked:
                        self.graph.set_input(node, index, self._unblock(value))
        for value in self.graph.outputs:
            if value in self.blocked:
                self.graph.replace_uses(value, self._unblock(value))
        for node in reversed(self.replaced):
            self.graph.remove_node(node)
        return bool(self.replaced)

    def _conversion(self, node: Node) -> Callable[[Node], Value] | None:
        """How a node becomes blocked; None where it stays as it is."""
        if node.domain or len(node.outputs) != 1 or not _is_image(node.output):
            return None
        if node.op_type == "Conv":
            return self._convolution if self._is_convolution(node) else None
        if node.op_type in ("MaxPool", "AveragePool") and self._is_wide(node.operand(0)):
            return self._pool
        if not any(value in self.blocked for value in node.operands):
            return None
        if node.op_type in GLOBAL:
            return self._global_pool
        if node.op_type == "Concat":
            return self._concat if self._is_concat(node) else None
        return self._pointwise if self._is_pointwise(node) else None

    # ------------------------------------------------------------------ between layouts

    def _block(self, value: Value) -> Value:
        """`[N, C, H, W]` as `[N, Cb, H, W, B]`, padded with zeros."""
        if value not in self.blocked:
            build = Builder(self.graph, f"{value.name}.blocked")
            batch, channels, *spatial = value.shape
            blocks = block_count(channels, self.block)
            padding = blocks * self.block - channels
            source = value
            if padding:
                source = build("Pad", value, build.ints([0, 0, 0, 0, 0, padding, 0, 0]))
            split = build("Reshape", source, build.ints([batch, blocks, self.block, *spatial]))
            self.blocked[value] = build("Transpose", split, perm=(0, 1, 3, 4, 2))
        return self.blocked[value]

    def _unblock(self, value: Value) -> Value:
        """The plain tensor behind a value that was computed blocked."""
        if value not in self.plain:
            build = Builder(self.graph, f"{value.name}.plain")
            source = self.blocked[value]
            batch, channels, *spatial = value.shape
            padded = source.shape[1] * self.block
            if dims.product(spatial) != 1:
                source = build("Transpose", source, perm=(0, 1, 4, 2, 3))
            result = build("Reshape", source, build.ints([batch, padded, *spatial]))
            if padded != channels:
                ends = (build.ints([0]), build.ints([channels]), build.ints([1]))
                result = build("Slice", result, *ends)
            self.plain[value] = result
        return self.plain[value]

    # ------------------------------------------------------------------ operators

    def _is_convolution(self, node: Node) -> bool:
        x, w, bias = node.operand(0), node.operand(1), node.input(2)
        if not _is_image(x) or not depends_on_parameters(w) or (bias is not None and not depends_on_parameters(bias)):
            return False
        group, per_group, outputs = node.attributes.get("group", 1), w.shape[1], w.shape[0]
        if group == 1:
            return bool(outputs >= self.block // 2)
        if group == outputs and per_group == 1:
            return True
        return bool(per_group % self.block == 0 and (outputs // group) % self.block == 0)

    def _convolution(self, node: Node) -> Value:
        x, w = node.operand(0), node.operand(1)
        packer = Packer(Builder(self.graph, node.name), self.block)
        keys = ("strides", "pads", "dilations", "auto_pad")
        attributes = {key: node.attributes[key] for key in keys if key in node.attributes}
        attributes["kernel_shape"] = tuple(w.shape[2:])
        choice = packer.choose(node)
        source = x if choice.op_type == "PlanarConv" and x not in self.blocked else self._block(x)
        build = Builder(self.graph, node.name)
        return build(
            choice.op_type, source, choice.weights(), choice.bias(), domain=DOMAIN, **attributes, **choice.attributes
        )

    def _is_wide(self, value: Value) -> bool:
        """Whether a value has channels enough to be worth blocking where it is not: a pool of vectors saves more than
        the conversion takes."""
        return value in self.blocked or (_is_image(value) and value.shape[1] >= self.block)

    def _pool(self, node: Node) -> Value:
        """A pool whose window has a third axis, of one lane."""
        attributes = dict(node.attributes)
        for key in ("kernel_shape", "strides", "dilations"):
            if key in attributes:
                attributes[key] = (*attributes[key], 1)
        if "pads" in attributes:
            top, left, bottom, right = attributes["pads"]
            attributes["pads"] = (top, left, 0, bottom, right, 0)
        return Builder(self.graph, node.name)(node.op_type, self._block(node.operand(0)), **attributes)

    def _global_pool(self, node: Node) -> Value:
        """A pool whose window is the image, or a row and then a column."""
        build = Builder(self.graph, node.name)
        height, width = (int(dim) for dim in node.operand(0).shape[2:])
        windows = [(height, width, 1)] if height * width <= LONGEST else [(1, width, 1), (height, 1, 1)]
        result = self._block(node.operand(0))
        for window in windows:
            result = build(GLOBAL[node.op_type], result, kernel_shape=window)
        return result

    def _is_concat(self, node: Node) -> bool:
        whole = all(value.shape[1] % self.block == 0 for value in node.operands[:-1])
        return bool(node.attributes["axis"] in (1, -3) and whole and all(map(_is_image, node.operands)))

    def _concat(self, node: Node) -> Value:
        return Builder(self.graph, node.name)("Concat", *map(self._block, node.operands), axis=1)

    def _is_pointwise(self, node: Node) -> bool:
        operator = definition(node)
        if node.op_type not in FINITE or operator is None or operator.compute is None:
            return False
        (computation,) = operator.computations(node)
        if any(isinstance(e, Reduce) for e in walk(computation.body)):
            return False
        shape = node.output.shape
        return all(
            is_pointwise(computation, value)
            and (dims.same_shape(value.shape, shape) or self._is_channelwise(value, shape[1]))
            for value in node.operands
        )

    def _is_channelwise(self, value: Value, channels: int) -> bool:
        """Whether a value has one element, or one for each channel (of each image, where it is blocked)."""
        if dims.product(value.shape) == 1:
            return True
        shape = (1,) * (4 - len(value.shape)) + tuple(value.shape)
        return shape[1:] == (channels, 1, 1) and (shape[0] == 1 or value in self.blocked)

    def _pointwise(self, node: Node) -> Value:
        operands = [None if value is None else self._operand(node, value) for value in node.inputs]
        return Builder(self.graph, node.name)(node.op_type, *operands, **node.attributes)

    def _operand(self, node: Node, value: Value) -> Value:
        if dims.same_shape(value.shape, node.output.shape) or value in self.blocked:
            return self._block(value)
        if dims.product(value.shape) == 1:
            return value if len(value.shape) == 0 or known(value) is not None else self._scalar(value)
        packer = Packer(Builder(self.graph, f"{value.name}.blocked"), self.block)
        return packer.channels(value, (1, block_count(node.output.shape[1], self.block), 1, 1, self.block))

    def _scalar(self, value: Value) -> Value:
        build = Builder(self.graph, f"{value.name}.scalar")
        return build("Reshape", value, build.ints([1]))


def _is_image(value: Value) -> bool:
    """Whether a value is a float tensor `[N, C, H, W]` of known size."""
    kind = value.type
    return (
        isinstance(kind, TensorType)
        and kind.dtype is DType.FLOAT32
        and dims.all_static(kind.shape)
        and len(kind.dims) == 4
        and all(dim > 0 for dim in kind.dims)
    )
