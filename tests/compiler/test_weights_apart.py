"""Weights are beside the code, never in it: other values of the same shapes give the same C."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
from small_models import SHAPES, compiled, network, weights


@pytest.fixture(scope="module")
def pair():
    return [compiled(network(seed)) for seed in (0, 1)]


def test_other_weights_give_the_same_sources(pair):
    one, other = ([(source.name, source.text, source.headers) for source in module.sources()] for module in pair)
    assert one == other
    assert pair[0].header() == pair[1].header()


def test_other_weights_give_the_same_code_and_schedule(pair):
    assert pair[0].compile() == pair[1].compile()
    assert pair[0].program == pair[1].program
    assert pair[0].bind_program == pair[1].bind_program


def test_of_a_tar_only_the_payload_depends_on_weights(pair, tmp_path):
    members = []
    for number, module in enumerate(pair):
        with tarfile.open(module.export_library(tmp_path / f"{number}.tar")) as archive:
            members.append({info.name: archive.extractfile(info).read() for info in archive})
    differing = [name for name in members[0] if members[0][name] != members[1][name]]
    assert list(members[0]) == list(members[1])
    assert differing == ["network/payload.zip"]


def test_no_weight_is_in_a_source_or_in_the_code(pair, tmp_path):
    module = pair[0]
    with tarfile.open(module.export_library(tmp_path / "m.tar")) as archive:
        texts = [archive.extractfile(info).read() for info in archive if not info.name.endswith("payload.zip")]
    everything = b"".join([*texts, module.compile(), module.bind_program])
    for array in [*module.params.values(), *(weights()[name] for name in SHAPES)]:
        if array.dtype == np.float32:
            assert array[..., :2].tobytes()[:8] not in everything
            assert f"{array.flat[0]:.6g}".encode() not in everything


def test_folded_parameters_are_not_kept_beside_what_they_became():
    module = compiled(network())
    assert not {"conv_w", "conv_b", "scale", "shift", "mean", "variance"} & set(module.params)
