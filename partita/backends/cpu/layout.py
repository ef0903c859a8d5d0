"""Layout: convolutional parts of a region compute on blocked tensors, `[N, C / B, H, W, B]`.

    before: y = Relu(Conv(x, w))
    after:  xb = Transpose(Reshape(x)); yb = Relu(BlockedConv(xb, packed w)); y = Reshape(Transpose(yb))

Convolutions start it; what follows stays blocked as long as it can: pointwise operators, pools, LRN, resizing, what
joins, shuffles or interleaves channels (see `lanes`). Packing of weights is ordinary nodes on parameters, so it runs
when weights are bound. Conversions appear where a plain reader meets a blocked value, and each value is converted once.
"""

from __future__ import annotations

from collections.abc import Callable

from partita.backends.cpu.blocked_normalization import blocked_response
from partita.backends.cpu.blocked_operators import DOMAIN
from partita.backends.cpu.lanes import Lanes, in_order, interleaved, is_in_order, joined, places, shuffles
from partita.backends.cpu.pack_weights import Packer
from partita.ir import dims
from partita.ir.builder import Builder
from partita.ir.contents import known
from partita.ir.expression import Reduce, walk
from partita.ir.graph import Graph, Node, Value
from partita.ir.operators import definition
from partita.ir.subgraph import depends_on_parameters
from partita.ir.types import DType, TensorType
from partita.passes.fuse import is_pointwise

# Pointwise operators that keep the padding channels finite: 0 stays finite through any chain of them.
FINITE = frozenset(
    "Add Sub Mul Sum Mean Max Min Relu Clip LeakyRelu PRelu Sigmoid Tanh HardSigmoid HardSwish Elu Selu Identity "
    "Softsign Abs Neg Gelu Mish Swish".split()
)
GLOBAL = {"GlobalAveragePool": "AveragePool", "GlobalMaxPool": "MaxPool"}
SAME = 0  # what Reshape takes for the size that an axis has
FEW = 4  # channels of an image that a kernel reads as they are
PADDED = 1 / 8  # of a concatenation's lanes that may be padding between its operands
LONGEST = 256  # elements of a mean in one pool: the error of a longer sum is less where it is taken row by row


def assign_layouts(graph: Graph, block: int) -> bool:
    """Rewrites a region in place; whether anything is blocked."""
    return _Layout(graph, block).run()


class _Layout:
    def __init__(self, graph: Graph, block: int) -> None:
        self.graph = graph
        self.block = block
        self.blocked: dict[Value, tuple[Value, Lanes]] = {}
        self.converted: dict[tuple[Value, Lanes], Value] = {}
        self.plain: dict[Value, Value] = {}
        self.replaced: list[Node] = []
        self.shuffles = shuffles(graph)
        self.shuffled = {node: shuffle.value for shuffle in self.shuffles.values() for node in shuffle.inner}

    def run(self) -> bool:
        for node in self.graph.nodes:
            convert = self._conversion(node)
            if convert is not None:
                self.blocked[node.output] = convert(node)
                self.replaced.append(node)
            elif self.shuffled.get(node) not in self.blocked:  # else a part of a shuffle, which takes it away
                for index, value in enumerate(node.inputs):
                    if value is not None and value in self.blocked:
                        self.graph.set_input(node, index, self._unblock(value))
        for value in self.graph.outputs:
            if value in self.blocked and self._unblock(value) is not value:
                self.graph.replace_uses(value, self._unblock(value))
        for node in reversed(self.replaced):
            self.graph.remove_node(node)
        return bool(self.replaced)

    def _conversion(self, node: Node) -> Callable[[Node], tuple[Value, Lanes]] | None:
        """How a node becomes blocked; None where it stays as it is."""
        if len(node.outputs) != 1 or not _is_image(node.output):
            return None
        if node.op_type in ("Interleave", "DepthToSpace"):
            return self._interleave if self._is_interleave(node) else None
        if node.domain:
            return self._resize if self._is_resize(node) else None
        if node.op_type == "Conv":
            return self._convolution if self._is_convolution(node) else None
        if node.op_type in ("MaxPool", "AveragePool") and self._is_wide(node.operand(0)):
            return self._pool
        if node in self.shuffles:
            return self._shuffle if self.shuffles[node].value in self.blocked else None
        if node.op_type == "Reshape":
            return self._turn if self._is_turn(node) else None
        if not any(value in self.blocked for value in node.operands):
            return None
        if node.op_type in GLOBAL:
            return self._global_pool
        if node.op_type == "LRN":
            return self._local_response
        if node.op_type == "Concat":
            return self._concat if self._is_concat(node) else None
        return self._pointwise if self._is_pointwise(node) else None

    # ------------------------------------------------------------------ between layouts

    def _block(self, value: Value) -> tuple[Value, Lanes]:
        """`[N, C, H, W]` as `[N, Cb, H, W, B]`, and its lanes; zero where they are padding, if it was not blocked."""
        if value not in self.blocked:
            lanes = in_order(value.shape[1], self.block)
            self.blocked[value] = self._blocked_from(value, lanes), lanes
            self.plain[value] = value
        return self.blocked[value]

    def _block_as(self, value: Value, lanes: Lanes) -> Value:
        """The same with given lanes."""
        if value not in self.blocked and is_in_order(lanes):
            self._block(value)
        if value in self.blocked and self.blocked[value][1] == lanes:
            return self.blocked[value][0]
        if (value, lanes) not in self.converted:
            source = self._unblock(value) if value in self.blocked else value
            self.converted[value, lanes] = self._blocked_from(source, lanes)
        return self.converted[value, lanes]

    def _blocked_from(self, value: Value, lanes: Lanes) -> Value:
        build = Builder(self.graph, f"{value.name}.blocked")
        shape = [SAME, len(lanes) // self.block, self.block, *value.shape[2:]]
        split = build("Reshape", Packer(build, self.block).spread(value, 1, lanes), build.ints(shape))
        return build("Transpose", split, perm=(0, 1, 3, 4, 2))

    def _unblock(self, value: Value) -> Value:
        """The plain tensor behind a value that was computed blocked."""
        if value not in self.plain:
            build = Builder(self.graph, f"{value.name}.plain")
            source, lanes = self.blocked[value]
            _, channels, *spatial = value.shape
            if dims.product(spatial) != 1:
                source = build("Transpose", source, perm=(0, 1, 4, 2, 3))
            result = build("Reshape", source, build.ints([SAME, len(lanes), *spatial]))
            if not is_in_order(lanes):
                result = build("Gather", result, build.ints(places(lanes)), axis=1)
            elif len(lanes) != channels:
                ends = (build.ints([0]), build.ints([channels]), build.ints([1]))
                result = build("Slice", result, *ends)
            self.plain[value] = result
        return self.plain[value]

    # ------------------------------------------------------------------ operators

    def _is_convolution(self, node: Node) -> bool:
        x, w, bias = node.operand(0), node.operand(1), node.input(2)
        if not _is_image(x) or not depends_on_parameters(w) or (bias is not None and not depends_on_parameters(bias)):
            return False
        return bool(w.shape[0] >= self.block // 2)

    def _convolution(self, node: Node) -> tuple[Value, Lanes]:
        x, w = node.operand(0), node.operand(1)
        keys = ("strides", "pads", "dilations", "auto_pad")
        attributes = {key: node.attributes[key] for key in keys if key in node.attributes}
        attributes["kernel_shape"] = tuple(w.shape[2:])
        group, outputs = node.attributes.get("group", 1), w.shape[0]
        source, inner = x, None
        if x in self.blocked or group > 1 or w.shape[1] > FEW:
            source, inner = self._block(x)
        outer = inner if inner is not None and group == outputs == x.shape[1] else self._wanted(node)
        choice = Packer(Builder(self.graph, node.name), self.block).choose(node, inner, outer)
        attributes |= choice.attributes
        build = Builder(self.graph, node.name)
        return build(choice.op_type, source, choice.weights(), choice.bias(), domain=DOMAIN, **attributes), outer

    def _wanted(self, node: Node) -> Lanes:
        """The lanes for a convolution's result: those that interleaving wants, those of what it is added to, or in
        order."""
        result = node.output
        for user in self.graph.consumers(result):
            if user.op_type in ("Interleave", "DepthToSpace") and _is_image(user.output):
                lanes = self._interleaved(user)
                if len(lanes) <= len(in_order(result.shape[1], self.block)) * (1 + PADDED):
                    return lanes
            if not user.domain and len(user.outputs) == 1 and _is_image(user.output) and self._is_pointwise(user):
                for other in user.operands:
                    if other in self.blocked and dims.same_shape(other.shape, result.shape):
                        return self.blocked[other][1]
        return in_order(result.shape[1], self.block)

    def _shuffle(self, node: Node) -> tuple[Value, Lanes]:
        shuffle = self.shuffles[node]
        self.replaced += shuffle.inner
        tensor, lanes = self.blocked[shuffle.value]
        return tensor, shuffle.lanes(lanes)

    def _is_turn(self, node: Node) -> bool:
        """Whether a node makes a line of a blocked column, or a column of a line."""
        x, y = node.operand(0), node.output
        sides = x.shape[2:] if x in self.blocked else ()
        return 1 in sides and dims.same_shape((*x.shape[:2], *sides[::-1]), y.shape)

    def _turn(self, node: Node) -> tuple[Value, Lanes]:
        source, lanes = self._block(node.operand(0))
        sizes = (SAME, SAME, *node.output.shape[2:], self.block)
        return Builder(self.graph, node.name)("Reshape", source, sizes), lanes

    def _is_wide(self, value: Value) -> bool:
        """Whether a value has channels enough to be worth blocking where it is not: a pool of vectors saves more than
        the conversion takes."""
        return value in self.blocked or (_is_image(value) and value.shape[1] >= self.block)

    def _pool(self, node: Node) -> tuple[Value, Lanes]:
        """A pool whose window has a third axis, of one lane."""
        attributes = dict(node.attributes)
        for key in ("kernel_shape", "strides", "dilations"):
            if key in attributes:
                attributes[key] = (*attributes[key], 1)
        if "pads" in attributes:
            top, left, bottom, right = attributes["pads"]
            attributes["pads"] = (top, left, 0, bottom, right, 0)
        source, lanes = self._block(node.operand(0))
        return Builder(self.graph, node.name)(node.op_type, source, **attributes), lanes

    def _global_pool(self, node: Node) -> tuple[Value, Lanes]:
        """A pool whose window is the image, or a row and then a column."""
        build = Builder(self.graph, node.name)
        height, width = (int(dim) for dim in node.operand(0).shape[2:])
        windows = [(height, width, 1)] if height * width <= LONGEST else [(1, width, 1), (height, 1, 1)]
        result, lanes = self._block(node.operand(0))
        for window in windows:
            result = build(GLOBAL[node.op_type], result, kernel_shape=window)
        return result, lanes

    def _interleaved(self, node: Node) -> Lanes:
        """The lanes with which an Interleave or DepthToSpace moves whole vectors."""
        is_first = node.op_type == "DepthToSpace" and node.attributes.get("mode", "DCR") == "DCR"
        channels = int(node.output.shape[1])
        return interleaved(channels, node.operand(0).shape[1] // channels, self.block, phase_first=is_first)

    def _is_interleave(self, node: Node) -> bool:
        x = node.operand(0)
        return x in self.blocked and self.blocked[x][1] == self._interleaved(node)

    def _interleave(self, node: Node) -> tuple[Value, Lanes]:
        """An Interleave with a third axis, that of the lanes, which it leaves as it is."""
        build, attributes = Builder(self.graph, node.name), node.attributes
        strides = attributes.get("strides", (attributes.get("blocksize"),) * 2)
        start = attributes.get("start", (0, 0))
        sizes = build.ints([*node.output.shape[2:], self.block])
        source, _ = self.blocked[node.operand(0)]
        result = build("Interleave", source, sizes, domain=DOMAIN, strides=(*strides, 1), start=(*start, 0))
        return result, in_order(node.output.shape[1], self.block)

    def _is_resize(self, node: Node) -> bool:
        """Whether a node resizes a blocked image along a side, which is the same axis of the blocked tensor."""
        is_resize = node.domain == DOMAIN and node.op_type == "ResizeAxis"
        return is_resize and node.operand(0) in self.blocked and node.attributes["axis"] in (2, 3)

    def _resize(self, node: Node) -> tuple[Value, Lanes]:
        source, lanes = self._block(node.operand(0))
        build = Builder(self.graph, node.name)
        return build(node.op_type, source, *node.inputs[1:], domain=DOMAIN, **node.attributes), lanes

    def _local_response(self, node: Node) -> tuple[Value, Lanes]:
        source, lanes = self._block(node.operand(0))
        return blocked_response(Builder(self.graph, node.name), node, source, lanes), lanes

    def _is_concat(self, node: Node) -> bool:
        """Whether a Concat joins channels, and leaves little padding between them."""
        if node.attributes["axis"] not in (1, -3) or not all(map(_is_image, node.operands)):
            return False
        lanes = sum(len(self._lanes(value)) for value in node.operands)
        return bool(lanes <= len(in_order(node.output.shape[1], self.block)) * (1 + PADDED))

    def _lanes(self, value: Value) -> Lanes:
        return self.blocked[value][1] if value in self.blocked else in_order(value.shape[1], self.block)

    def _concat(self, node: Node) -> tuple[Value, Lanes]:
        tensors, lanes = zip(*map(self._block, node.operands), strict=True)
        return Builder(self.graph, node.name)("Concat", *tensors, axis=1), joined(lanes)

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

    def _pointwise(self, node: Node) -> tuple[Value, Lanes]:
        """It takes the lanes of its first operand that has any."""
        full = [value for value in node.operands if dims.same_shape(value.shape, node.output.shape)]
        first = next((value for value in full if value in self.blocked), node.output)
        lanes = self._lanes(first)
        operands = [None if value is None else self._operand(node, value, lanes) for value in node.inputs]
        return Builder(self.graph, node.name)(node.op_type, *operands, **node.attributes), lanes

    def _operand(self, node: Node, value: Value, lanes: Lanes) -> Value:
        if dims.same_shape(value.shape, node.output.shape) or value in self.blocked:
            return self._block_as(value, lanes)
        if dims.product(value.shape) == 1:
            return value if len(value.shape) == 0 or known(value) is not None else self._scalar(value)
        packer = Packer(Builder(self.graph, f"{value.name}.blocked"), self.block)
        return packer.channels(value, lanes, (1, len(lanes) // self.block, 1, 1, self.block))

    def _scalar(self, value: Value) -> Value:
        build = Builder(self.graph, f"{value.name}.scalar")
        return build("Reshape", value, build.ints([1]))


def _is_image(value: Value) -> bool:
    """Whether a value is a float tensor `[N, C, H, W]` whose images are of known size; a run may tell how many."""
    kind = value.type
    return (
        isinstance(kind, TensorType)
        and kind.dtype is DType.FLOAT32
        and kind.shape is not None
        and len(kind.dims) == 4
        and dims.all_static(kind.dims[1:])
        and all(dim > 0 for dim in kind.dims if dims.is_static(dim))
    )
