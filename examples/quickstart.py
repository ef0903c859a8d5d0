"""The main job: a real model in, one file out, and that file run and timed.

python examples/quickstart.py                 # ResNet-50, which ships with the onnx package
python examples/quickstart.py squeezenet      # another of the nine that do
python examples/quickstart.py --target dnnl   # parts of it on oneDNN
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnx

import partita

SHIPPED = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def main() -> int:
    options = parse()
    path = SHIPPED / f"light_{options.model}.onnx"
    print(f"model      {path.name} of the onnx package ({len(onnx.load(path).graph.node)} nodes)")

    start = time.perf_counter()
    module = partita.compile(path, targets=options.target, name=options.model)
    print(f"compile    {time.perf_counter() - start:.1f} s, into {len(module.program.regions)} region(s):")
    for region in module.program.regions:
        operators = module.extras["operators"][region.symbol]
        print(f"             {region.symbol} on {region.backend}: {operators} nodes, {len(region.constants)} constants")

    start = time.perf_counter()
    file = module.export_library(options.output or f"{options.model}.so")
    size = file.stat().st_size / 1e6
    print(f"export     {time.perf_counter() - start:.1f} s, {file}: {size:.1f} MB of code and weights")

    loaded = partita.load_module(file)
    (name,) = loaded.program.input_names
    shape = loaded.program.values[loaded.program.inputs[0]].shape
    x = (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)
    seconds = [timed(loaded, {name: x}) for _ in range(options.repeat + 1)][1:]
    median = statistics.median(seconds) * 1e3
    print(f"run        {median:.1f} ms, the median of {len(seconds)} runs; arena {loaded.arena_bytes / 1e6:.1f} MB")

    (result,) = loaded.run({name: x}).values()
    expected = onnx.load_tensor(path.with_name(f"{path.stem}_output_0.pb"))
    error = np.abs(result - onnx.numpy_helper.to_array(expected)).max()
    print(f"check      largest difference from the output that ships with the model: {error:.1e}")
    return 0 if error < 1e-5 else 1


def timed(module: partita.runtime.LoadedModule, inputs: dict[str, np.ndarray]) -> float:
    start = time.perf_counter()
    module.run(inputs)
    return time.perf_counter() - start


def parse() -> argparse.Namespace:
    names = sorted(path.stem.removeprefix("light_") for path in SHIPPED.glob("*.onnx"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="resnet50", choices=names, help="default: resnet50")
    parser.add_argument("--target", action="append", default=[], help="an accelerator, such as dnnl")
    parser.add_argument("--output", type=Path, help="default: MODEL.so in this folder")
    parser.add_argument("--repeat", type=int, default=10, help="timed runs (default: 10)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
