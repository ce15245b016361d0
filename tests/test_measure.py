"""Metrics of a pair against references; all of them at once, each with a value or a reason."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import lpips
from fa_hific_jax.metrics import (
    DESCRIPTIONS,
    Weights,
    load_weights,
    log_frequency_distance,
    measure,
    measure_batch,
    psnr,
)
from fa_hific_jax.metrics.structure import RADIAL_BANDS, check_pair, similarities, spectral_errors
from fa_hific_jax.spectra import decibels, radial_power_spectrum

BANDS = ("band_low", "band_middle", "band_high")


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_weights(["alex"])


def image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def similarity(name, x, x_hat):
    """The "ssim" or "ms_ssim" of a pair."""
    return similarities(x[None], x_hat[None])[name][0]


@pytest.mark.parametrize("pair", ["p0", "p1", "p2"])
def test_ms_ssim_agrees_with_pytorch_msssim(golden, pair):
    # p1 has odd sides, where implementations differ; p2 is a pair with a low score.
    arrays = golden("image_metrics")
    found = similarity("ms_ssim", arrays[f"{pair}_a"], arrays[f"{pair}_b"])
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


def test_one_gray_level_of_error_has_the_psnr_of_the_scale():
    x = np.full((8, 8, 3), 100, np.uint8)
    # Differences below zero must not wrap around in uint8.
    for x_hat in (x + np.uint8(1), x - np.uint8(1)):
        assert psnr(x, x_hat) == pytest.approx(20 * math.log10(255), rel=1e-12)


@pytest.mark.parametrize("shape", [(75, 90), (64, 51)])
def test_ssim_agrees_with_scikit_image(shape):
    skimage = pytest.importorskip("skimage.metrics")
    x = image(*shape)
    x_hat = np.clip(x.astype(int) + image(*shape, seed=1) // 4 - 32, 0, 255).astype(np.uint8)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = skimage.structural_similarity(x, x_hat, data_range=255, channel_axis=-1, **options)
    # The window is in float32 here and not there.
    np.testing.assert_allclose(similarity("ssim", x, x_hat), expected, rtol=0, atol=2e-7)
    assert 0.5 < expected < 0.99


@pytest.mark.parametrize("shape", [(96, 120), (75, 61)])
def test_band_errors_are_means_over_rings_of_the_radial_spectrum(shape):
    x, x_hat = image(*shape), image(*shape, seed=1) // 2
    frequency, power = radial_power_spectrum(x, RADIAL_BANDS)
    difference = decibels(radial_power_spectrum(x_hat, RADIAL_BANDS)[1]) - decibels(power)
    found = spectral_errors(x[None], x_hat[None])
    for third, name in enumerate(BANDS):
        within = (frequency > third / 6) & (frequency < (third + 1) / 6)
        np.testing.assert_allclose(found[name], difference[within].mean(), atol=1e-9)
    np.testing.assert_allclose(found["lsd"], np.sqrt(np.mean(difference**2)), rtol=1e-9)


def test_band_errors_of_half_the_contrast_are_6_dB_in_all_bands():
    x = 2 * image(128, 128) // 4 * 2  # even values, so that half of them is exact
    found = spectral_errors(x[None], x[None] // 2)
    expected = 20 * np.log10(2)  # the floor of 0.001 shows
    assert found["lsd"] == [pytest.approx(expected, abs=1e-4)]
    for name in BANDS:
        assert found[name] == [pytest.approx(-expected, abs=1e-4)]


def test_measure_gives_the_metrics_that_the_functions_give(weights):
    x, x_hat = image(176, 170), image(176, 170, seed=1)
    values, not_measured = measure(x, x_hat, weights)
    assert list(values) == list(DESCRIPTIONS)[:-4]  # the last four are of sets
    expected = {"psnr": psnr(x, x_hat), "lfd": log_frequency_distance(x, x_hat)}
    expected |= {name: similarity(name, x, x_hat) for name in ("ssim", "ms_ssim")}
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    pair = (jnp.asarray(each[None], jnp.float32) / 255 for each in (x, x_hat))
    distance = jax.jit(lpips)(weights.lpips["alex"], *pair)[0]
    assert values["lpips_alex"] == pytest.approx(float(distance), rel=1e-5)
    assert set(not_measured) == {"lpips_squeeze", "lpips_vgg"}
    assert all(values[name] is None for name in not_measured)
    assert not_measured["lpips_vgg"] == "no weights: get them with `fa-hific get-lpips --net vgg`"


def test_a_batch_gives_what_each_pair_gives_alone(weights):
    x, x_hat = (np.stack([image(40, 60, seed=10 * i + j) for j in range(2)]) for i in (0, 1))
    for i, together in enumerate(measure_batch(x, x_hat, weights)):
        alone = measure(x[i], x_hat[i], weights)
        assert alone.not_measured == together.not_measured
        known = {name: value for name, value in alone.values.items() if value is not None}
        assert {n: together.values[n] for n in known} == pytest.approx(known, rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "name", "reason"),
    [
        ((40, 60), "psnr", "identical images: infinite"),
        ((160, 300), "ms_ssim", "a side has 160 pixels or less"),
        ((10, 50), "ssim", "a side has less than 11 pixels"),
        ((4, 4), "lpips_alex", "a side has less than 31 pixels"),
        ((1, 1), "band_low", "the image is too small for three frequency bands"),
    ],
)
def test_equal_and_small_images_say_what_they_are_too_small_for(weights, shape, name, reason):
    x = image(*shape)
    values, not_measured = measure(x, x, weights)
    assert values[name] is None and not_measured[name] == reason and values["lfd"] == 0
    assert all((value is None) == (name in not_measured) for name, value in values.items())


@pytest.mark.parametrize(("name", "side"), [("ssim", 11), ("ms_ssim", 161)])
def test_the_smallest_equal_images_are_fully_similar(name, side):
    assert similarity(name, image(side, side), image(side, side)) == pytest.approx(1, abs=1e-12)


def test_results_that_are_not_finite_are_named(weights):
    params = weights.lpips["alex"]
    linear = (params.linear[0] * np.float32(np.nan), *params.linear[1:])
    broken = Weights({"alex": dataclasses.replace(params, linear=linear)})
    values, not_measured = measure(image(40, 60), image(40, 60, seed=1), broken)
    assert values["lpips_alex"] is None and not_measured["lpips_alex"] == "the result is nan"


def test_pairs_that_cannot_be_compared_are_refused():
    gray = image(20, 30)[..., :1]
    with pytest.raises(UserError, match="different shapes .* cannot be compared: crop or code"):
        measure(image(20, 30), image(20, 31), Weights())
    with pytest.raises(UserError, match="metrics need 8-bit images, not float64: round the"):
        check_pair(image(20, 30), image(20, 30) / 255.0)
    with pytest.raises(UserError, match=r"RGB images, not the shape \(20, 30, 1\)"):
        measure(gray, gray, Weights())


def test_two_files_of_one_network_are_refused():
    with pytest.raises(UserError, match="squeeze: a second file of LPIPS weights for SqueezeN"):
        load_weights(["squeeze", "squeeze"])
