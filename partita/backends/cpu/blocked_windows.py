"""Kernels of sliding windows that keep channels apart, on blocked tensors: pools and depthwise convolutions. They go a
line of output pixels at a time, a vector a pixel, and read what lies inside the image alone: nothing is padded."""

from __future__ import annotations

from partita.backends.cpu.blocked_convolution import BlockedKernel
from partita.backends.cpu.kernel import Kernel
from partita.ir.expression import Computation, Expr, Load, cast, compute
from partita.ir.operators.pooling import averaged_count
from partita.ir.types import DType

ELEMENTS = 8  # of a window a nanosecond, on one thread


class WindowKernel(BlockedKernel):
    """`[N, Cb, H, W, B]` to `[N, Cb, OH, OW, B]`: each vector of the result from one window of its own channels."""

    def write(self) -> Kernel:
        writer, x, view = self.writer, self.kernel.operand(0), self.view
        height, width = x.shape[2], x.shape[3]
        (rows, columns), (down, across) = view.kernel, view.dilations
        batch, block, line = self.result.axes[:3]
        cost = self.width * self.block * int(rows) * int(columns) / ELEMENTS
        scope = writer.open_steps([batch, block, line], cost)
        names = writer.printer.axis_names
        plane = f"({names[batch]} * {x.shape[1]} + {names[block]}) * {height * width * self.block}"
        scope.write(f"const partita_lanes *image = (const partita_lanes *)({writer.pointer(x)} + {plane});")
        function, arguments = self.combination(names[block])
        scope.write(f"const int64_t top = {names[line]} * {view.strides[0]} - {view.begin[0]};")
        scope.write(f"for (int64_t p = 0; p < {self.width}; ++p) {{")
        pixel = scope.inner()
        pixel.write(f"const int64_t left = p * {view.strides[1]} - {view.begin[1]};")
        arguments += f"image, {height}, {width}, top, left, {rows}, {columns}, {down}, {across}"
        pixel.write(f"const partita_lanes found = {function}({arguments});")
        pixel.write(f"float cell[{self.block}] __attribute__((aligned(64)));")
        pixel.write("memcpy(cell, &found, sizeof cell);")
        self.store(pixel, {1: names[block], 2: names[line], 3: "p"}, "cell")
        scope.write("}")
        writer.close_steps()
        return writer.finish()

    def combination(self, block: str) -> tuple[str, str]:
        """The function of partita_blocked.h that combines a window, and its first arguments."""
        raise NotImplementedError


class DepthwiseKernel(WindowKernel):
    """BlockedDepthwiseConv."""

    def combination(self, block: str) -> tuple[str, str]:
        w = self.kernel.operand(1)
        size = int(w.shape[1] * w.shape[2]) * self.block
        return "partita_window_dot", f"(const partita_lanes *)({self.writer.pointer(w)} + {block} * {size}), "


class PoolKernel(WindowKernel):
    """MaxPool and AveragePool."""

    def combination(self, block: str) -> tuple[str, str]:
        return f"partita_window_{'max' if self.kernel.op_type == 'MaxPool' else 'sum'}", ""

    def own_result(self) -> Computation:
        kernel = self.kernel

        def body(n: Expr, block: Expr, oh: Expr, ow: Expr, lane: Expr) -> Expr:
            total = Load(self.sum, (), DType.FLOAT32)
            return (
                total
                if kernel.op_type == "MaxPool"
                else total / cast(averaged_count(kernel, (oh, ow, lane)), total.dtype)
            )

        return compute(kernel.output.shape, body)
