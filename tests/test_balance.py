"""The balance of frequency loss and distortion: weights, bands, power."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_settings import tiny_settings

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.band_power import (
    BLOCK,
    CELLS,
    FLOOR,
    RINGS,
    cell_log_power,
    cell_of,
    cell_shares,
    deficit,
    power_loss,
    ring_log_power,
    ring_of,
    ring_shares,
)
from fa_hific_jax.losses.focal_frequency import focal_frequency_loss
from fa_hific_jax.training import balance
from fa_hific_jax.training.state import create
from fa_hific_jax.training.step import train_step

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to an integer power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def noise(seed: int, scale: float = 0.1, shape=(2, 64, 96, 3)):
    return 0.5 + scale * jax.random.normal(jax.random.key(seed), shape)


def test_white_noise_has_its_variance_as_power_in_every_ring():
    power = jnp.exp(ring_log_power(noise(0, shape=(8, 256, 256, 3)))) - FLOOR
    # The lowest ring misses what went with the mean of its block.
    np.testing.assert_allclose(jnp.mean(power, axis=(0, 1))[1:], 0.01, rtol=0.03)


def test_a_wave_is_in_the_ring_of_its_frequency():
    wave = 0.1 * jnp.cos(2 * jnp.pi * 0.28125 * jnp.arange(64.0))  # 9 periods in a block
    x = jnp.broadcast_to(0.5 + wave[None, None, :, None], (1, 64, 64, 3))
    power = jnp.mean(ring_log_power(x), axis=(0, 1))
    assert int(jnp.argmax(power)) == int(2 * RINGS * 0.28125)
    assert power[-1] < np.log(2 * FLOOR)


@pytest.mark.parametrize("shape", [(32, 32), (20, 48), (7, 5)])
def test_rings_share_out_every_frequency_but_brightness(shape):
    shares = ring_shares(*shape)
    totals = shares.sum(axis=(0, 1))
    held = np.isin(np.arange(RINGS), ring_of(*shape))
    np.testing.assert_allclose(totals[held & (np.arange(RINGS) > 0)], 1.0, rtol=1e-12)
    assert shares[0, 0].sum() == 0.0 and ring_of(*shape).max() <= RINGS - 1


@pytest.mark.parametrize("shape", [(32, 32), (20, 48), (7, 5), (1, 1)])
def test_cells_share_out_every_frequency_but_brightness(shape):
    cells = CELLS * CELLS // 2
    cell, shares = cell_of(*shape), cell_shares(*shape)
    assert 0 <= cell.min() and cell.max() < cells
    totals = shares.sum(axis=(0, 1))
    held = np.isin(np.arange(cells), cell)
    np.testing.assert_allclose(totals[held & (np.arange(cells) > 0)], 1.0, rtol=1e-12)
    assert not totals[~held].any() and shares[0, 0].sum() == 0.0


def test_a_wave_is_in_the_cell_of_its_frequency():
    rows, columns = jnp.arange(64.0)[:, None], jnp.arange(96.0)[None]
    wave = 0.1 * jnp.cos(2 * jnp.pi * (-5 * rows + 9 * columns) / BLOCK)
    power = jnp.mean(cell_log_power(0.5 + wave[None, :, :, None]), axis=(0, 1))
    power = np.asarray(power).reshape(CELLS, CELLS // 2)
    cell = (int(CELLS * (1 - 5 / BLOCK)), int(CELLS * 9 / BLOCK))
    assert np.unravel_index(np.argmax(power), power.shape) == cell
    assert power[0, 0] < np.log(2 * FLOOR)


def test_power_loss_tells_a_regular_pattern_from_noise_of_the_same_rings():
    x = noise(3, 0.03, (4, 128, 128, 3))
    columns = jnp.arange(128.0)
    doubled = np.eye(RINGS)[ring_of(BLOCK, BLOCK)] * np.where(np.arange(17) % 16, 2, 1)[:, None]
    waves = [  # one in the middle of each ring, with what the noise has in all of it
        jnp.sqrt(2 * 0.03**2 * count) / BLOCK * jnp.cos(2 * jnp.pi * (2 * r + 1) * columns / BLOCK)
        for r, count in enumerate(doubled.sum(axis=(0, 1)))
    ]
    pattern = jnp.broadcast_to(0.5 + sum(waves)[None, None, :, None], x.shape)
    in_rings = jnp.mean(jnp.square(ring_log_power(pattern) - ring_log_power(x)))
    assert in_rings < 0.15 and power_loss(pattern, x) > 100 * in_rings
    assert power_loss(noise(4, 0.03, x.shape), x) < 0.4


def test_power_loss_ignores_phase_and_brightness_and_sees_blur():
    x = noise(1)
    shifted = jnp.roll(x[:, :BLOCK, :BLOCK], 0, axis=2) + 0.2
    assert power_loss(shifted, x[:, :BLOCK, :BLOCK]) < 1e-8
    assert power_loss(1.0 - x, x) < 1e-8
    blurred = 0.5 * (x + jnp.roll(x, 1, axis=2))
    assert power_loss(blurred, x) > 0.1
    assert np.all(np.diff(deficit(blurred, x)[1:]) > 0)


def test_power_loss_has_finite_gradients_on_flat_images():
    flat = jnp.full((1, 32, 32, 3), 0.5)
    for x_hat in (flat, flat + 1e-6):
        gradient = jax.grad(power_loss)(x_hat, noise(0, shape=flat.shape))
        assert np.all(np.isfinite(gradient))


def test_gradient_of_power_loss_is_that_of_finite_differences():
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else _x64():
        x, x_hat = (
            jnp.asarray(np.random.default_rng(i).uniform(size=(1, 16, 12, 1))) for i in (0, 1)
        )
        direction = np.random.default_rng(2).normal(size=x.shape)
        slope = np.sum(np.asarray(jax.grad(power_loss)(x_hat, x)) * direction)
        step = 1e-6
        found = (
            power_loss(x_hat + step * direction, x) - power_loss(x_hat - step * direction, x)
        ) / (2 * step)
        np.testing.assert_allclose(slope, found, rtol=1e-6)


def _x64():
    from jax.experimental import enable_x64

    return enable_x64(True)


def test_emphasis_multiplies_the_weights_of_frequencies():
    x, x_hat = noise(0), noise(1)
    ones = jnp.ones((64, 49))
    whole = focal_frequency_loss(x_hat, x)
    np.testing.assert_allclose(focal_frequency_loss(x_hat, x, emphasis=ones), whole, rtol=1e-6)
    ring = jnp.asarray(ring_of(64, 96))
    parts = [
        focal_frequency_loss(x_hat, x, emphasis=(ring == r).astype(jnp.float32))
        for r in range(RINGS)
    ]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-5)


def test_emphasis_is_on_what_lacks_and_nothing_else():
    config = tiny_settings(loss__balance="bands").loss
    state = balance.start().replace(
        deficit=jnp.asarray([-1.0, 0.0, 1.0, 2.0] + [4.0] * (RINGS - 4))
    )
    emphasis = balance.emphasis(state, 64, 64, config)
    ring = ring_of(64, 64)
    for r, expected in ((0, 0.0), (1, 0.0), (2, 0.25), (3, 0.5), (RINGS - 1, 1.0)):
        np.testing.assert_allclose(emphasis[ring == r], expected)
    nothing = state.replace(deficit=-jnp.ones(RINGS))
    assert np.all(balance.emphasis(nothing, 64, 64, config) == 0.0)
    assert balance.emphasis(state, 64, 64, tiny_settings().loss) is None


def test_the_weight_brings_the_norm_to_its_share_whatever_the_scale_of_the_term():
    config = tiny_settings(loss__balance="gradient", loss__balance_share=0.3).loss
    for scale in (1e-6, 1.0, 1e5):
        squares = {"mse": jnp.asarray(4.0), "lpips": jnp.asarray(5.0), "ffl": jnp.asarray(scale**2)}
        observed = balance.Observed(balance.ratio_of(squares, "ffl"), jnp.zeros(RINGS))
        weight = balance.weight(balance.observe(balance.start(), observed), config)
        expected = min(0.3 * 3.0, balance.LARGEST * scale)
        np.testing.assert_allclose(weight * scale, expected, rtol=1e-5)


def test_the_weight_is_smoothed_and_bounded_and_starts_at_nothing():
    config = tiny_settings(loss__balance="gradient").loss
    state = balance.start()
    assert balance.weight(state, config) == 0.0
    for _ in range(3 * balance.STEPS):
        state = balance.observe(state, balance.Observed(jnp.zeros(()), jnp.zeros(RINGS)))
    before = balance.weight(state, config)
    jumped = balance.observe(state, balance.Observed(jnp.asarray(5.0), jnp.zeros(RINGS)))
    np.testing.assert_allclose(
        balance.weight(jumped, config), before * np.exp(5.0 / balance.STEPS), rtol=1e-5
    )
    huge = balance.observe(balance.start(), balance.Observed(jnp.asarray(50.0), jnp.zeros(RINGS)))
    assert balance.weight(huge, config) == balance.LARGEST


def test_no_gradient_comes_through_weight_or_emphasis():
    for kind in ("gradient", "bands"):
        config = tiny_settings(loss__balance=kind).loss

        def through(log_ratio, deficits, config=config):
            observed = balance.Observed(log_ratio, deficits)
            state = balance.observe(balance.start(), observed)
            emphasis = balance.emphasis(state, 8, 8, config)
            return balance.weight(state, config) + (0.0 if emphasis is None else jnp.sum(emphasis))

        slopes = jax.grad(through, argnums=(0, 1))(jnp.ones(()), jnp.ones(RINGS))
        assert all(np.all(slope == 0.0) for slope in slopes)


@pytest.mark.parametrize("kind", ["gradient", "bands", "power"])
def test_a_step_keeps_the_share(kind):
    """After the first step has been seen, the second's gradient has the norm asked for."""
    settings = tiny_settings(loss__balance=kind, loss__balance_share=0.25, loss__gan=0.0)
    state = create(settings, KEY)
    step = jax.jit(functools.partial(train_step, settings=settings))
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    state, first = step(state, images, KEY, None)
    frozen = state.replace(params=create(settings, KEY).params, step=jnp.zeros((), jnp.int32))
    _, second = step(frozen, images, KEY, None)
    term = "power" if kind == "power" else "ffl"
    assert np.all(np.isfinite(state.balance.deficit)) and float(state.balance.seen) == 1.0
    if kind == "bands":
        assert first["balance_weight"] == second["balance_weight"] == 1.0
        return
    assert first[f"grad_norm_term/{term}"] == 0.0
    np.testing.assert_allclose(
        second[f"grad_norm_term/{term}"], 0.25 * second["grad_norm_term/mse"], rtol=1e-4
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"loss__balance": "best"}, "loss.balance is 'best': choose one of fixed, gradient"),
        ({"loss__balance": "power", "loss__ffl": 0.0}, "there is nothing to balance"),
        ({"loss__balance_share": 0.0}, "loss.balance_share is 0.0"),
    ],
)
def test_settings_that_make_no_sense_are_named(overrides, message):
    with pytest.raises(UserError, match=message):
        tiny_settings(**overrides)
