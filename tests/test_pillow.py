"""Pillow opens and saves the codec's files as it does those of other formats."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import fa_hific_jax.pillow  # noqa: F401  registers the format
from fa_hific_jax import load_model


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    smooth = np.mgrid[0:40, 0:56].sum(0)[..., None] * np.array([2, 1, 2])
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def saved(picture, tmp_path_factory):
    path = tmp_path_factory.mktemp("pillow") / "photo.fahj"
    Image.fromarray(picture).save(path, quality=0.8)
    return path


def test_a_saved_file_is_that_of_the_codec(picture, saved):
    assert saved.read_bytes() == load_model("lite").compress(picture, quality=0.8)


def test_an_opened_file_has_the_pixels_of_the_codec(saved):
    with Image.open(saved) as image:
        assert (image.format, image.mode, image.size) == ("FAHJ", "RGB", (56, 40))
        assert image.info["quality"] == pytest.approx(0.8, abs=1 / 255)
        found = np.asarray(image)
    np.testing.assert_array_equal(found, load_model("lite").decompress(saved.read_bytes()))


def test_transparency_survives_without_loss(picture):
    alpha = (np.arange(40 * 56) % 251).astype(np.uint8).reshape(40, 56)
    file = io.BytesIO()
    Image.fromarray(np.dstack([picture, alpha])).save(file, "FAHJ")
    image = Image.open(io.BytesIO(file.getvalue()))
    assert image.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(image)[..., 3], alpha)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr"])
def test_modes_of_8_bits_are_converted(picture, mode):
    file = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(file, "FAHJ")
    assert Image.open(io.BytesIO(file.getvalue())).size == (56, 40)


@pytest.mark.parametrize("mode", ["F", "I;16"])
def test_other_modes_are_refused_in_one_sentence(mode):
    with pytest.raises(OSError, match=f"cannot write mode {mode} as FAHJ: convert the image to"):
        Image.new(mode, (8, 8)).save(io.BytesIO(), "FAHJ")


def test_damage_is_an_error_of_pillows_kind(saved):
    data = bytearray(saved.read_bytes())
    data[-1] ^= 1
    with pytest.raises(OSError, match="the checksum does not match"):
        Image.open(io.BytesIO(data))
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"FAHI" + data[4:]))


def test_a_wrong_quality_is_an_error_of_pillows_kind(picture):
    with pytest.raises(OSError, match="quality"):
        Image.fromarray(picture).save(io.BytesIO(), "FAHJ", quality=80)


def test_import_and_open_load_neither_jax_nor_a_model(saved):
    script = (
        "import sys, fa_hific_jax.pillow\n"
        "from PIL import Image\n"
        f"print(Image.open({str(saved)!r}).size, 'jax' in sys.modules)"
    )
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["(56,", "40)", "False"]
