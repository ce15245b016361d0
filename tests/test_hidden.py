"""Colors below alpha 0 cost nothing, and the rate that is asked for counts transparency."""

import numpy as np
import pytest
from coding_model import coding_model, image_of, many_rates_model
from hypothesis import given
from hypothesis import strategies as st

from fa_hific_jax.codec import bitstream
from fa_hific_jax.codec.colors import fill_hidden

RNG = np.random.default_rng(0)
Y, X = np.mgrid[:70, :90]
DISC = np.where((Y - 30) ** 2 + (X - 40) ** 2 < 600, 255, 0).astype(np.uint8)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_what_is_visible_stays_and_what_is_hidden_does_not_matter(height, width, seed):
    rng = np.random.default_rng(seed)
    one, other = rng.integers(0, 256, (2, height, width, 3), np.uint8)
    alpha = rng.integers(0, 3, (height, width)).astype(np.uint8)
    other = np.where(alpha[..., None] > 0, one, other)
    filled = fill_hidden(one, alpha)
    np.testing.assert_array_equal(filled, fill_hidden(other, alpha))
    np.testing.assert_array_equal(filled[alpha > 0], one[alpha > 0])
    if alpha.any():
        seen = one[alpha > 0]
        assert np.all(filled >= seen.min(axis=0)) and np.all(filled <= seen.max(axis=0))


def test_one_visible_color_fills_all_and_a_ramp_goes_on_smoothly():
    flat = np.where(DISC[..., None] > 0, (10, 200, 30), (255, 0, 255)).astype(np.uint8)
    np.testing.assert_array_equal(fill_hidden(flat, DISC), np.full_like(flat, (10, 200, 30)))
    ramp = np.repeat((2 * X)[..., None], 3, axis=-1).astype(np.uint8)
    steps = np.diff(fill_hidden(ramp, DISC).astype(int), axis=1)
    assert np.max(np.abs(steps)) <= 40


def test_hidden_noise_makes_the_same_file_as_hidden_gray():
    image = image_of(70, 90)
    noise = np.where(DISC[..., None] > 0, image, RNG.integers(0, 256, image.shape, np.uint8))
    gray = np.where(DISC[..., None] > 0, image, np.uint8(128))
    data = coding_model().compress(noise, alpha=DISC)
    assert data == coding_model().compress(gray, alpha=DISC)
    np.testing.assert_array_equal(coding_model().decompress_picture(data)[1], DISC)


@pytest.mark.parametrize("reproducible", [True, False])
def test_the_rate_counts_transparency_and_what_is_reserved(reproducible):
    model, image = many_rates_model(), image_of(64, 80)
    alpha = RNG.integers(0, 256, (64, 80), np.uint8)
    options = {"alpha": alpha, "reproducible": reproducible}
    sizes = [len(model.compress(image, quality=q, **options)) for q in (0.0, 1.0)]
    for target in np.linspace(*sizes, 5):
        bpp = 8 * (target + 100) / image[..., 0].size
        quality = model.quality_for(image, bpp, reserved=100, **options)
        assert len(model.compress(image, quality=quality, **options)) <= target
        if quality < 1:
            larger = model.compress(image, quality=quality + 1 / 255, **options)
            assert len(larger) > target - 16
    assert model.quality_for(image, 8 * sizes[0] / image[..., 0].size - 0.1, **options) == 0


def spread(image: np.ndarray) -> int:
    return int(np.max(image.max(axis=2).astype(int) - image.min(axis=2)))


def test_gray_comes_back_gray_singly_in_batches_and_beneath_transparency():
    model = coding_model()
    gray = np.repeat(image_of(70, 90)[..., :1], 3, axis=-1)
    data = model.compress(gray)
    decoded = model.decompress(data)
    assert spread(decoded) == 0
    assert model.compress_batch([gray]) == [data]
    assert spread(model.decompress_batch([data])[0]) == 0
    plain = bitstream.pack(bitstream.unpack(data)._replace(gray=False))
    assert len(plain) == len(data) - 1
    luma = np.floor(model.decompress(plain) @ np.array([0.299, 0.587, 0.114]) + 0.5 + 1e-9)
    np.testing.assert_array_equal(decoded[..., 0], luma)
    hidden = np.where(DISC[..., None] > 0, gray, image_of(70, 90))
    assert spread(model.decompress_picture(model.compress(hidden, alpha=DISC))[0]) == 0
    gray[5, 6, 2] ^= 1  # A single colored pixel makes it no gray image.
    assert not bitstream.unpack(model.compress(gray)).gray
