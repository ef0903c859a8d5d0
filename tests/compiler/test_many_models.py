"""Many models and many instances in one process and in many threads: none knows of another."""

from __future__ import annotations

import gc
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_models import assert_computes, compiled, expected, images, network, parsed, weights

import partita
from partita.errors import ExecutionError

OTHER = """
<ir_version: 10, opset_import: ["" : 21]>
other (float[N, 3, 6, 6] x) => (float[N, 5] y, float[N, 5] z) {
    f = Flatten (x)
    y = MatMul (f, w)
    z = Sigmoid (y)
}
"""


def other():
    return parsed(OTHER, {"w": np.random.default_rng(2).standard_normal((108, 5)).astype(np.float32)})


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Two models, and the first again with other weights, under the same symbol."""
    folder = tmp_path_factory.mktemp("many")
    models = {"network": network(0), "other": other(), "again": network(1)}
    return {name: (compiled(model).export_library(folder / f"{name}.so"), model) for name, model in models.items()}


def test_models_take_turns(artifacts):
    loaded = {name: partita.load_module(path) for name, (path, _) in artifacts.items()}
    for batch in (1, 3, 2):
        for name, (_, model) in artifacts.items():
            assert_computes(loaded[name], model, {"x": images(batch)})


def test_one_model_with_two_sets_of_weights(artifacts):
    one, two = (partita.load_module(artifacts[name][0]) for name in ("network", "again"))
    assert one.program.symbol == two.program.symbol == "network"
    first = one.run({"x": images()})["y"]
    second = two.run({"x": images()})["y"]
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(one.run({"x": images()})["y"], first)


def test_models_run_in_threads_of_their_own(artifacts):
    def work(number: int) -> None:
        path, model = list(artifacts.values())[number % 3]
        inputs = {"x": images(1 + number % 4, seed=number)}
        loaded = partita.load_module(path, threads=1 + number % 2)
        wanted = expected(model, inputs)["y"]
        for _ in range(20):
            np.testing.assert_allclose(loaded.run(inputs)["y"], wanted, rtol=1e-4, atol=1e-4)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(12)))


def test_instances_of_one_model_run_at_the_same_time(artifacts):
    path, model = artifacts["network"]
    loaded = partita.load_module(path)

    def work(number: int) -> None:
        instance = loaded.open_instance(threads=1)
        inputs = {"x": images(1 + number, seed=number)}
        wanted = expected(model, inputs)["z"]
        for _ in range(20):
            np.testing.assert_allclose(instance.run(inputs)["z"], wanted, rtol=1e-4, atol=1e-5)
        instance.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))


def test_closing_one_leaves_the_others(artifacts):
    path, model = artifacts["network"]
    one, two = partita.load_module(path), partita.load_module(path)
    one.run({"x": images()})
    one.close()
    with pytest.raises(ExecutionError, match="closed"):
        one.run({"x": images()})
    del one
    gc.collect()
    assert_computes(two, model, {"x": images()})


def test_compiling_in_threads_gives_what_compiling_alone_gives(artifacts):
    def compile_one(number: int) -> bytes:
        return compiled((network, other)[number % 2]()).compile()

    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(compile_one, range(6)))
    assert codes == [compiled((network, other)[number % 2]()).compile() for number in range(6)]


def test_libraries_export_their_own_symbols_and_the_shared_pool(artifacts):
    names = {}
    for name in ("network", "other"):
        listing = subprocess.run(
            ["nm", "-D", "--defined-only", artifacts[name][0]], capture_output=True, text=True, check=True
        )
        names[name] = {line.split()[-1] for line in listing.stdout.splitlines()} - {"partita_threads_2"}
        assert f"{name}_run" in names[name]
        assert [symbol for symbol in sorted(names[name]) if not symbol.startswith(f"{name}_")] == []
    assert not names["network"] & names["other"]


def test_bound_modules_share_nothing_that_changes(artifacts):
    loaded = partita.load_module(artifacts["network"][0])
    bound = [loaded.bind(weights(seed)) for seed in range(3)]
    for _ in range(2):
        for seed, module in enumerate(bound):
            assert_computes(module, network(seed), {"x": images()})
