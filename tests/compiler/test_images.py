"""ImageDecoder: what each format holds, what is done with damaged images, and where a library is missing."""

from __future__ import annotations

import functools
import struct
import subprocess
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from onnx.backend.test.case.node import _image_decoder_data as suite
from small_models import BUILD, parsed

import partita
from partita.errors import ExecutionError, ModelError
from partita.runtime.toolchain import Toolchain, has_library

HEAD = '<ir_version: 10, opset_import: ["" : 21]>'
TEXT = """g (uint8[N] x) => (uint8[H, W, C] y) {{
    decoded = ImageDecoder <pixel_format = "{}"> (x)
    y = Identity (decoded)
}}"""
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
LIBRARIES = {"jpeg": "turbojpeg", "png": "png", "tiff": "tiff", "webp": "webp", "jpeg2k": "openjp2"}
IMAGES = {name: getattr(suite, f"image_decoder_decode_{name}_rgb") for name in (*LIBRARIES, "bmp", "pnm")}


@functools.cache
def decoder(pixel_format="RGB"):
    return partita.compile(parsed(f"{HEAD} {TEXT.format(pixel_format)}"), build=BUILD)


def decoded(data, pixel_format="RGB"):
    return decoder(pixel_format).run({"x": np.frombuffer(bytes(data), np.uint8)})["y"]


def bmp(body, bits, height, *, kind=0, extra=b"", colors=0):
    head = struct.pack("<IiiHHIIiiII", 40, PIXELS.shape[1], height, 1, bits, kind, len(body), 0, 0, colors, 0) + extra
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body


def rows(array, bytes_of_a_row):
    """The rows of an array, each filled up."""
    return b"".join(row.tobytes().ljust(bytes_of_a_row, b"\xff") for row in array)


GRAY = PIXELS[..., 0]
COPIES = np.repeat(GRAY[..., None], 3, 2)
ALPHA = np.concatenate([PIXELS[..., ::-1], PIXELS[..., :1]], 2)
BITS = np.repeat((GRAY > 127)[..., None], 3, 2) * np.uint8(255)
WIDE = PIXELS.astype(np.uint16) >> 3
PACKED = ((WIDE[..., 0] << 11) | (WIDE[..., 1] << 6) | WIDE[..., 2]).astype("<u2")
MASKS = struct.pack("<III", 0xF800, 0x07C0, 0x1F)
PALETTE = bytes(n for gray in range(256) for n in (gray, 0, 255 - gray, 9))
FILES = {
    "bmp of 24 bits": (bmp(rows(PIXELS[::-1, :, ::-1], 24), 24, 5), PIXELS),
    "bmp from the top": (bmp(rows(PIXELS[:, :, ::-1], 24), 24, -5), PIXELS),
    "bmp of 32 bits": (bmp(ALPHA[::-1].tobytes(), 32, 5), PIXELS),
    "bmp of 16 bits": (bmp(rows(PACKED[::-1], 16), 16, 5, kind=3, extra=MASKS), (WIDE * 255 // 31).astype(np.uint8)),
    "bmp with a palette": (
        bmp(rows(GRAY[::-1], 8), 8, 5, extra=PALETTE, colors=256),
        np.stack([255 - GRAY, 0 * GRAY, GRAY], 2),
    ),
    "bmp of bits": (
        bmp(rows(np.packbits(GRAY[::-1] > 127, axis=1), 4), 1, 5, extra=bytes([0] * 4 + [255] * 4), colors=2),
        BITS,
    ),
    "P1": (b"P1 7 5 # bits\n" + "".join(str(int(bit)) for bit in GRAY.flat <= np.uint8(127)).encode(), BITS),
    "P2": (b"P2 # gray\n7 5\n255\n" + " ".join(map(str, GRAY.flat)).encode(), COPIES),
    "P3": (b"P3\n7\t5 255\n" + "\n".join(map(str, PIXELS.flat)).encode(), PIXELS),
    "P4": (b"P4 7 5\n" + np.packbits(GRAY <= 127, axis=1).tobytes(), BITS),
    "P5": (b"P5 7 5 255\n" + GRAY.tobytes(), COPIES),
    "P6": (b"P6 7 5 255\n" + PIXELS.tobytes(), PIXELS),
    "P6 of two bytes": (b"P6 7 5 65535\n" + (PIXELS.astype(np.uint16) * 257).astype(">u2").tobytes(), PIXELS),
    "P6 of few values": (b"P6 7 5 5\n" + (PIXELS // 51).tobytes(), PIXELS // 51 * 51),
}


@pytest.mark.parametrize("name", FILES)
def test_formats_without_a_library(name):
    data, pixels = FILES[name]
    np.testing.assert_array_equal(decoded(data), pixels)


def test_pixel_formats():
    data, pixels = FILES["P6"]
    np.testing.assert_array_equal(decoded(data, "BGR"), pixels[..., ::-1])
    gray = pixels @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(decoded(data, "Grayscale")[..., 0], gray, atol=0.51)
    assert decoded(data, "Grayscale").shape == (5, 7, 1)
    with pytest.raises(ModelError, match="'CMYK'; RGB, BGR, Grayscale are known"):
        decoder("CMYK")


@functools.cache
def there(library):
    """Whether the C compiler finds what a format takes."""
    (module,) = [each for each in decoder().imported_modules if each.backend == "cpu"]
    header = dict(module.optional_libraries)[library]
    return Toolchain(BUILD)._finds(library, header, decoder().sources())


def image(name):
    if name in LIBRARIES and not there(LIBRARIES[name]):
        pytest.skip(f"{name}: no lib{LIBRARIES[name]} with its headers")
    return IMAGES[name].data.tobytes()


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_end_too_early_are_refused(name):
    data = image(name)
    for length in range(0, len(data) * 3 // 4, 7):
        with pytest.raises(ExecutionError, match=r"decoded: the (data is no image|.* image cannot be decoded)"):
            decoded(data[:length])


@pytest.mark.parametrize("name", IMAGES)
def test_damaged_images_are_decoded_or_refused(name):
    data, random = image(name), np.random.default_rng(1)
    outcomes = set()
    for _ in range(200):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[random.integers(0, len(data), 3)] = random.integers(0, 256, 3)
        try:
            outcomes.add(decoded(damaged).shape[-1])
        except ExecutionError:
            outcomes.add("refused")
    assert outcomes <= {3, "refused"}
    assert "refused" in outcomes


@pytest.mark.parametrize(
    "data",
    [
        bmp(b"", 24, 2**31 - 1),
        bmp(b"", 24, -(2**31)),
        bmp(b"", 8, 5),
        bmp(bytes(200), 24, 0),
        bmp(bytes(200), 8, 5, kind=1),
        b"P5 999999999 999999999 255\n" + bytes(20),
        b"P2 999999999 999999999 255\n" + bytes(20),
        b"P1 0 5\n" + bytes(20),
        b"P6 1 1 70000\n" + bytes(20),
        b"P9 1 1 255\n" + bytes(20),
    ],
)
def test_claims_that_do_not_hold_are_refused(data):
    with pytest.raises(ExecutionError, match=r"decoded: the (BMP|PNM) image cannot be decoded: \w"):
        decoded(data)


def test_a_library_that_is_missing_is_named_when_an_image_needs_it(tmp_path):
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *-lpng*) exit 1;; esac\nexec ' + " ".join(Toolchain().command) + ' "$@"\n'
    )
    compiler.chmod(0o755)
    module = partita.compile(parsed(f"{HEAD} {TEXT.format('RGB')}"), build=replace(BUILD, cc=str(compiler)))
    data, pixels = FILES["P6"]
    np.testing.assert_array_equal(module.run({"x": np.frombuffer(data, np.uint8)})["y"], pixels)
    message = r"decoded: the image is PNG, whose library was not there when .* \(on Debian: libpng-dev\)"
    with pytest.raises(ExecutionError, match=message):
        module.run({"x": IMAGES["png"].data})


def test_only_models_that_decode_ask_for_libraries():
    plain = partita.compile(parsed(f"{HEAD} g (float[3] x) => (float[3] y) {{ y = Neg(x) }}"), build=BUILD)
    assert not plain._linking().optional
    assert {name for name, _ in decoder()._linking().optional} == set(LIBRARIES.values())


def test_a_makefile_looks_for_the_libraries_itself(tmp_path):
    decoder().export_library(tmp_path / "model.tar")
    with tarfile.open(tmp_path / "model.tar") as archive:
        archive.extractall(tmp_path)
    subprocess.run(["make", "-s"], cwd=tmp_path / "g", check=True)
    linked = (tmp_path / "g" / "model.so").read_bytes()
    assert [name for name in LIBRARIES.values() if there(name) and f"lib{name}".encode() not in linked] == []
    assert has_library("png") == "-DPARTITA_WITH_PNG"
    module = partita.load_module(tmp_path / "g" / "model.so")
    data, pixels = FILES["P6"]
    np.testing.assert_array_equal(module.run({"x": np.frombuffer(data, np.uint8)})["y"], pixels)
