import math

import numpy as np
import pytest

from fa_hific_jax.metrics import log_frequency_distance, ms_ssim, psnr


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("pair", ["p0", "p1", "p2"])
def test_ms_ssim_agrees_with_pytorch_msssim(golden, pair):
    # p1 has odd sides, where implementations differ; p2 is a pair with a low score.
    arrays = golden("image_metrics")
    found = ms_ssim(arrays[f"{pair}_a"], arrays[f"{pair}_b"])
    expected = arrays[f"{pair}_msssim_pytorch_msssim"]  # pytorch-msssim 1.0.0 in float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    for same in ("pytorch_msssim_f32", "data_range1_f64", "hific"):
        np.testing.assert_allclose(found, arrays[f"{pair}_msssim_{same}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("file, pair", [("image_metrics", "p"), ("lfd", "q")])
@pytest.mark.parametrize("number", range(3))
def test_psnr_agrees_with_the_reference(golden, file, pair, number):
    arrays, pair = golden(file), f"{pair}{number}"
    found = psnr(arrays[f"{pair}_a"], arrays[f"{pair}_b"])
    np.testing.assert_allclose(found, arrays[f"{pair}_psnr"], rtol=1e-12)


@pytest.mark.parametrize("pair", ["q0", "q1", "q2"])
def test_log_frequency_distance_agrees_with_the_reference(golden, pair):
    arrays = golden("lfd")  # metric_utils of the focal-frequency-loss repository
    found = log_frequency_distance(arrays[f"{pair}_a"], arrays[f"{pair}_b"])
    np.testing.assert_allclose(found, arrays[f"{pair}_lfd"], rtol=1e-12)
    np.testing.assert_allclose(found, arrays[f"{pair}_lfd_chw"], rtol=1e-12)


def test_log_frequency_distance_is_the_distance_of_the_spectra():
    x, x_hat = image(13, 18), image(13, 18, seed=1)
    spectra = [np.fft.fft2(i.astype(np.float64), axes=(0, 1)) for i in (x, x_hat)]
    expected = np.log(np.mean(np.abs(spectra[0] - spectra[1]) ** 2) + 1)
    np.testing.assert_allclose(log_frequency_distance(x, x_hat), expected, rtol=1e-12)


def test_equal_images_are_perfect():
    x = image(176, 161)
    assert psnr(x, x) == math.inf
    assert ms_ssim(x, x) == pytest.approx(1, abs=1e-12)
    assert log_frequency_distance(x, x) == 0


def test_one_gray_level_of_error_has_the_psnr_of_the_scale():
    x = np.full((8, 8, 3), 100, np.uint8)
    # Differences below zero must not wrap around in uint8.
    for x_hat in (x + np.uint8(1), x - np.uint8(1)):
        assert psnr(x, x_hat) == pytest.approx(20 * math.log10(255), rel=1e-12)


def test_ms_ssim_is_symmetric_and_falls_with_noise():
    x = np.tile(np.arange(176, dtype=np.uint8)[:, None, None], (1, 176, 3))
    scores = []
    for amplitude in (2, 32):
        noise = np.random.default_rng(0).integers(-amplitude, amplitude + 1, x.shape)
        x_hat = np.clip(x + noise, 0, 255).astype(np.uint8)
        scores.append(ms_ssim(x, x_hat))
        assert scores[-1] == pytest.approx(ms_ssim(x_hat, x), rel=1e-12)
    assert 1 > scores[0] > scores[1] > 0


@pytest.mark.parametrize(("sides", "defined"), [((160, 300), False), ((161, 161), True)])
def test_ms_ssim_needs_sides_above_160(sides, defined):
    x = image(*sides)
    assert (ms_ssim(x, x) is not None) == defined
