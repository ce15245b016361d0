import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fa_hific_jax.losses.band_power import (
    BANDS,
    BINS,
    BLOCK,
    FLOOR,
    band_log_power,
    band_of,
    bin_log_power,
    bin_of,
    log_power_error,
    mean_weights,
    power_loss,
)
from fa_hific_jax.losses.focal_frequency import focal_frequency_loss


def noise(seed: int, scale: float = 0.1, shape=(2, 64, 96, 3)):
    return 0.5 + scale * jax.random.normal(jax.random.key(seed), shape)


def wave(cycles_down: int, cycles_right: int, phase: float = 0.0):
    """A gray wave with so many cycles per block."""
    rows, columns = jnp.arange(64.0)[:, None], jnp.arange(96.0)[None]
    angle = 2 * jnp.pi * (cycles_down * rows + cycles_right * columns) / BLOCK + phase
    return (0.5 + 0.1 * jnp.cos(angle))[None, :, :, None]


def test_white_noise_has_its_variance_as_power_in_every_band():
    power = jnp.exp(band_log_power(noise(0, shape=(8, 256, 256, 3)))) - FLOOR
    # The lowest band lacks what was subtracted with the mean of its block.
    np.testing.assert_allclose(jnp.mean(power, axis=(0, 1))[1:], 0.01, rtol=0.03)


@pytest.mark.parametrize("group_of, groups", [(band_of, BANDS), (bin_of, BINS * BINS // 2)])
@pytest.mark.parametrize("shape", [(32, 32), (20, 48), (7, 5), (1, 1)])
def test_groups_share_out_every_frequency_but_brightness(group_of, groups, shape):
    group, weights = group_of(*shape), mean_weights(group_of, groups, *shape)
    assert 0 <= group.min() and group.max() < groups
    held = np.isin(np.arange(groups), group)
    totals = weights.sum(axis=(0, 1))
    np.testing.assert_allclose(totals[held & (np.arange(groups) > 0)], 1.0, rtol=1e-12)
    assert not totals[~held].any() and weights[0, 0].sum() == 0.0


def test_a_wave_is_in_the_band_and_the_bin_of_its_frequency():
    power = jnp.mean(band_log_power(wave(-5, 9)), axis=(0, 1))
    assert int(jnp.argmax(power)) == int(2 * BANDS * np.hypot(5, 9) / BLOCK)
    assert power[-1] < np.log(2 * FLOOR)
    power = np.asarray(jnp.mean(bin_log_power(wave(-5, 9)), axis=(0, 1))).reshape(BINS, BINS // 2)
    found = np.unravel_index(np.argmax(power), power.shape)
    assert found == (int(BINS * (1 - 5 / BLOCK)), int(BINS * 9 / BLOCK))
    assert power[0, 0] < np.log(2 * FLOOR)


def test_power_loss_tells_a_regular_pattern_from_noise_of_the_same_bands():
    x = noise(3, 0.03, (4, 128, 128, 3))
    columns = jnp.arange(128.0)
    doubled = np.eye(BANDS)[band_of(BLOCK, BLOCK)] * np.where(np.arange(17) % 16, 2, 1)[:, None]
    waves = [  # one in the middle of each band, with the power that the noise has in all of it
        jnp.sqrt(2 * 0.03**2 * count) / BLOCK * jnp.cos(2 * jnp.pi * (2 * i + 1) * columns / BLOCK)
        for i, count in enumerate(doubled.sum(axis=(0, 1)))
    ]
    pattern = jnp.broadcast_to(0.5 + sum(waves)[None, None, :, None], x.shape)
    in_bands = jnp.mean(jnp.square(band_log_power(pattern) - band_log_power(x)))
    assert in_bands < 0.15 and power_loss(pattern, x) > 100 * in_bands
    assert power_loss(noise(4, 0.03, x.shape), x) < 0.4


def test_power_loss_ignores_phase_sign_and_brightness():
    """A wave of another phase has other pixels and the same power in every bin."""
    original = wave(4, 9)
    for phase in (0.5, 1.5, 3.0):
        assert jnp.mean(jnp.square(wave(4, 9, phase) - original)) > 1e-4
        assert power_loss(wave(4, 9, phase), original) < 1e-8
    x = noise(1)
    assert power_loss(1.0 - x, x) < 1e-8 and power_loss(x + 0.2, x) < 1e-8


def test_blur_lacks_power_the_more_the_higher_the_frequency():
    x = noise(1)
    blurred = 0.5 * (x + jnp.roll(x, 1, axis=2))
    assert power_loss(blurred, x) > 0.1
    error = log_power_error(blurred, x)
    assert np.all(error < 0) and np.all(np.diff(error[1:]) < 0)
    np.testing.assert_allclose(error, -log_power_error(x, blurred), rtol=1e-6)


def test_gradient_of_power_loss_is_finite_on_flat_images_and_that_of_finite_differences(x64):
    flat = jnp.full((1, 32, 32, 3), 0.5)
    assert np.all(np.isfinite(jax.grad(power_loss)(flat, noise(0, shape=flat.shape))))
    x, x_hat = (jnp.asarray(np.random.default_rng(i).uniform(size=(1, 16, 12, 1))) for i in (0, 1))
    direction = np.random.default_rng(2).normal(size=x.shape)
    slope = np.sum(np.asarray(jax.grad(power_loss)(x_hat, x)) * direction)
    above, below = (power_loss(x_hat + step * direction, x) for step in (1e-6, -1e-6))
    np.testing.assert_allclose(slope, (above - below) / 2e-6, rtol=1e-6)


def test_emphasis_multiplies_the_weights_of_frequencies():
    x, x_hat = noise(0), noise(1)
    whole = focal_frequency_loss(x_hat, x)
    band = jnp.asarray(band_of(64, 96))
    parts = [focal_frequency_loss(x_hat, x, emphasis=jnp.float32(band == i)) for i in range(BANDS)]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-5)
