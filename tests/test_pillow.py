"""Pillow opens and saves the codec's files as it does those of other formats."""

import io
import subprocess
import sys

import numpy as np
import pytest
from coding_model import image_of
from image_files import saved
from PIL import Image, UnidentifiedImageError

import fa_hific_jax.pillow  # noqa: F401  registers the format
from fa_hific_jax import load_model

PICTURE = image_of(40, 56)


def reopened(image: Image.Image) -> Image.Image:
    """What opening the saved image gives."""
    return Image.open(io.BytesIO(saved(image, "FAHJ")))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("pillow") / "photo.fahj"
    Image.fromarray(PICTURE).save(path, quality=0.8)
    return path


def test_saved_and_opened_files_are_those_of_the_codec(photo):
    model, data = load_model("lite"), photo.read_bytes()
    assert data == model.compress(PICTURE, quality=0.8)
    with Image.open(photo) as image:
        assert (image.format, image.mode, image.size) == ("FAHJ", "RGB", (56, 40))
        assert image.info["quality"] == pytest.approx(0.8, abs=1 / 255)
        found = np.asarray(image)
    np.testing.assert_array_equal(found, model.decompress(data))


def test_transparency_survives_without_loss():
    alpha = (np.arange(40 * 56) % 251).astype(np.uint8).reshape(40, 56)
    image = reopened(Image.fromarray(np.dstack([PICTURE, alpha])))
    assert image.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(image)[..., 3], alpha)


@pytest.mark.parametrize("mode", ["1", "LA", "P", "CMYK"])
def test_modes_of_8_bits_are_converted(mode):
    assert reopened(Image.fromarray(PICTURE).convert(mode)).size == (56, 40)


def test_other_modes_are_refused_in_one_sentence():
    with pytest.raises(OSError, match="cannot write mode F as FAHJ"):
        saved(Image.new("F", (8, 8)), "FAHJ")


def test_damage_and_a_wrong_quality_are_errors_of_pillows_kind(photo):
    data = bytearray(photo.read_bytes())
    data[-1] ^= 1
    with pytest.raises(OSError, match="the checksum does not match"):
        Image.open(io.BytesIO(data))
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"FAHI" + data[4:]))
    with pytest.raises(OSError, match="quality"):
        saved(PICTURE, "FAHJ", quality=80)


def test_import_and_open_load_neither_jax_nor_a_model(photo):
    script = (
        "import sys, fa_hific_jax.pillow\n"
        "from PIL import Image\n"
        f"print(Image.open({str(photo)!r}).size, 'jax' in sys.modules)"
    )
    run = [sys.executable, "-c", script]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["(56,", "40)", "False"]
