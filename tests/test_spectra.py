import numpy as np
import pytest

from fa_hific_jax.spectra import log_spectrum, radial_power_spectrum


def wave(height: int, width: int, ky: int, kx: int, amplitude: float = 1.0) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return amplitude * np.cos(2 * np.pi * (ky * y / height + kx * x / width) + 0.3)[..., None]


@pytest.mark.parametrize("height, width", [(32, 48), (45, 37)])
def test_bands_add_up_to_the_power_of_a_band_limited_image(height, width):
    generator = np.random.default_rng(1)
    image = sum(
        wave(height, width, *generator.integers(-10, 11, 2), generator.normal(0, 20))
        for _ in range(12)
    )
    # 13 bands: no frequency of these sizes lies on an edge between them.
    _, power = radial_power_spectrum(image, 13)
    sides = [np.arange(n) for n in (height, width)]
    window = np.outer(*(0.5 - 0.5 * np.cos(2 * np.pi * (i + 0.5) / len(i)) for i in sides))
    mean_square = np.sum((window * image[..., 0]) ** 2) / np.sum(window**2)
    fy, fx = (np.minimum(i, len(i) - i) / len(i) for i in sides)
    counts = np.histogram(np.hypot(fy[:, None], fx[None]), 13, range=(0, 0.5))[0]
    total = np.sum(power * counts) / (height * width)
    np.testing.assert_allclose(total, mean_square, rtol=1e-12)


def test_a_sinusoid_stays_within_one_bin_of_its_frequency():
    spectrum = log_spectrum(wave(48, 64, 5, -9, 30.0))
    y, x = np.mgrid[:48, :64]
    off = np.minimum(
        np.maximum(abs(y - 24 - 5), abs(x - 32 + 9)), np.maximum(abs(y - 24 + 5), abs(x - 32 - 9))
    )
    # The peak of a cosine of amplitude a is a^2 sum(w)^2 / (4 sum(w^2)) = a^2 h w / 9.
    expected = 10 * np.log10(30.0**2 * 48 * 64 / 9)
    np.testing.assert_allclose(spectrum[off == 0], expected, atol=1e-6)
    np.testing.assert_allclose(spectrum[off > 1], -30.0, atol=1e-6)


def test_white_noise_is_flat_at_its_variance():
    noise = np.random.default_rng(2).normal(100.0, 7.0, (400, 300, 1))
    frequency, power = radial_power_spectrum(noise, 20)
    # Each band averages over 2000 values and more, neighbors correlated by the window: the
    # standard error is at most 4 %; the first bands see the mean of 100.
    np.testing.assert_allclose(power[2:], 49.0, rtol=0.12)
    np.testing.assert_allclose(power[2:].mean(), 49.0, rtol=0.02)
    np.testing.assert_allclose(frequency, (np.arange(20) + 0.5) / 40, rtol=1e-12)


def test_color_is_weighted_as_luma_and_constants_fill_only_the_center():
    red = np.zeros((31, 32, 3), np.uint8)
    red[..., 0] = 200
    spectrum = log_spectrum(red)
    assert spectrum.dtype == np.float64 and spectrum.shape == (31, 32)
    expected = 10 * np.log10((0.299 * 200) ** 2 * 31 * 32 * 4 / 9)
    np.testing.assert_allclose(spectrum[15, 16], expected, atol=1e-6)
    np.testing.assert_allclose(spectrum[:13], -30.0, atol=1e-6)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 2), (2, 1), (2, 3), (5, 1)])
def test_tiny_images_have_finite_spectra(height, width):
    image = np.full((height, width, 3), 50, np.uint8)
    frequency, power = radial_power_spectrum(image, 64)
    assert frequency.shape == power.shape and len(power) >= 1
    assert np.isfinite(power).all() and np.isfinite(log_spectrum(image)).all()
    assert (frequency >= 0).all() and (frequency <= 0.5).all()
