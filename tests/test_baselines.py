"""Classical codecs: the nearest size is found, and what was reached is told as it is."""

import io

import numpy as np
import pytest
from PIL import Image, features

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation import baselines
from fa_hific_jax.evaluation.baselines import encode_nearest, pillow_version


def textured(height: int, width: int) -> np.ndarray:
    """Smooth colour with noise whose strength grows to the right."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), (x + y) % 256], -1)
    noise = generator.normal(size=(height, width, 3)) * (x / width * 40)[..., None]
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def jpeg_size(image: np.ndarray, quality: int) -> int:
    sizes = []
    for progressive in (False, True):
        file = io.BytesIO()
        options = {"quality": quality, "subsampling": 2, "optimize": True}
        Image.fromarray(image).save(file, "JPEG", progressive=progressive, **options)
        sizes.append(len(file.getvalue()))
    return min(sizes)


def webp_size(image: np.ndarray, quality: int) -> int:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=quality, method=6)
    return len(file.getvalue())


SIZES = {"jpeg": jpeg_size, "webp": webp_size}


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
@pytest.mark.parametrize("bpp", [0.8, 1.5, 3.0])
def test_no_neighbouring_quality_comes_nearer_to_the_target(codec, bpp):
    image = textured(64, 96)
    target = int(bpp * 64 * 96 / 8)
    coded = encode_nearest(image, codec, target)
    quality = int(coded.setting.split(",")[0].removeprefix("quality "))
    assert len(coded.data) == SIZES[codec](image, quality)
    for neighbour in {max(quality - 1, 1), min(quality + 1, 100)}:
        miss = abs(SIZES[codec](image, neighbour) - target)
        assert abs(len(coded.data) - target) <= miss


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
def test_targets_out_of_reach_give_the_extreme_qualities(codec):
    image = textured(48, 40)
    lowest = 1 if codec == "jpeg" else 0
    smallest, largest = encode_nearest(image, codec, 1), encode_nearest(image, codec, 10**7)
    assert f"quality {lowest}," in smallest.setting
    assert "quality 100," in largest.setting
    assert len(smallest.data) == SIZES[codec](image, lowest) > 1


@pytest.mark.parametrize("codec", ["jpeg", "webp"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 37, 3), (33, 2, 3)])
def test_the_image_is_what_the_file_decodes_to(codec, shape):
    coded = encode_nearest(textured(*shape[:2]), codec, 400)
    with Image.open(io.BytesIO(coded.data)) as decoded:
        assert decoded.format == codec.upper()
        assert not decoded.info.keys() & {"exif", "icc_profile", "xmp", "comment"}
        np.testing.assert_array_equal(coded.image, np.asarray(decoded.convert("RGB")))
    assert coded.image.shape == shape and coded.image.dtype == np.uint8


def test_jpeg_takes_the_smaller_of_baseline_and_progressive():
    tiny, large = textured(8, 8), textured(128, 128)
    assert encode_nearest(tiny, "jpeg", 700).setting.endswith("4:2:0")
    assert encode_nearest(large, "jpeg", 8000).setting.endswith("4:2:0, progressive")


def test_a_non_monotone_size_is_searched_on_both_sides(monkeypatch):
    sizes = {q: 10 * q for q in range(101)} | {40: 401, 41: 395}
    image = np.zeros((1, 1, 3), np.uint8)
    header = encode_nearest(image, "webp", 0).data
    assert len(header) < 300

    def encode(_, quality):
        return header.ljust(sizes[quality], b"\0"), f"quality {quality}"

    monkeypatch.setitem(baselines._CODECS, "webp", baselines._Codec(encode, 30, 16383))
    assert encode_nearest(image, "webp", 400).setting == "quality 40"


def test_bad_requests_are_the_users_to_mend(monkeypatch):
    image = np.zeros((1, 16384, 3), np.uint8)
    with pytest.raises(UserError, match="unknown baseline codec 'bpg': choose one of jpeg, webp"):
        encode_nearest(image, "bpg", 100)
    with pytest.raises(UserError, match="16384x1 image does not fit into webp, .* end at 16383"):
        encode_nearest(image, "webp", 100)
    monkeypatch.setattr(features, "check", lambda name: False)
    with pytest.raises(UserError, match="this Pillow was built without jpeg"):
        encode_nearest(image, "jpeg", 100)


def test_the_version_names_pillow_and_both_libraries():
    assert all(name in pillow_version() for name in ("Pillow", "libjpeg", "libwebp"))
