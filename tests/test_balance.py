"""The balance of frequency loss and distortion: weight, emphasis, and the share that is kept."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_settings import tiny_settings

from fa_hific_jax.losses.band_power import BANDS, band_of
from fa_hific_jax.training import balance
from fa_hific_jax.training.state import create
from fa_hific_jax.training.step import train_step

pytestmark = pytest.mark.usefixtures("standard_promotion")

KEY = jax.random.key(0)
IMAGE = jnp.zeros((1, 64, 64, 3))


def after(log_ratio, state=None):
    """The state after a step with this ratio and no error of the power."""
    observed = balance.Observed(jnp.asarray(log_ratio), jnp.zeros(BANDS))
    return balance.observe(state or balance.start(), observed)


def test_emphasis_is_on_what_lacks_and_nothing_else():
    config = tiny_settings(loss__balance="bands").loss
    error = -jnp.asarray([-1.0, 0.0, 1.0, 2.0] + [4.0] * (BANDS - 4))
    state = balance.start().replace(log_power_error=error)
    expected = np.asarray([0.0, 0.0, 0.25, 0.5] + [1.0] * (BANDS - 4))[band_of(64, 64)]
    np.testing.assert_allclose(balance.emphasis(state, IMAGE, config), expected)
    nothing = state.replace(log_power_error=jnp.ones(BANDS))
    assert np.all(balance.emphasis(nothing, IMAGE, config) == 0.0)
    assert np.all(balance.emphasis(balance.start(), IMAGE, config) == 1.0)
    assert balance.emphasis(state, IMAGE, tiny_settings().loss) is None


def test_what_lacks_is_measured_as_negative():
    x = 0.5 + 0.1 * jax.random.normal(KEY, (2, 64, 96, 3))
    blurred = 0.5 * (x + jnp.roll(x, 1, axis=2))
    squares = {"mse": jnp.ones(()), "ffl": jnp.ones(())}
    assert np.all(balance.measure(squares, "ffl", blurred, x).log_power_error < 0)


def test_the_weight_brings_the_norm_to_its_share_whatever_the_scale_of_the_term():
    config = tiny_settings(loss__balance="gradient", loss__balance_share=0.3).loss
    for scale in (1e-6, 1.0, 1e5):
        squares = {"mse": jnp.asarray(4.0), "lpips": jnp.asarray(5.0), "ffl": jnp.asarray(scale**2)}
        observed = balance.measure(squares, "ffl", IMAGE, IMAGE)
        weight = balance.weight(balance.observe(balance.start(), observed), config)
        expected = min(0.3 * 3.0, balance.LARGEST * scale)
        np.testing.assert_allclose(weight * scale, expected, rtol=1e-5)


def test_the_weight_is_smoothed_and_bounded_and_starts_at_nothing():
    config = tiny_settings(loss__balance="gradient").loss
    state = balance.start()
    assert balance.weight(state, config) == 0.0
    for _ in range(3 * balance.STEPS):
        state = after(0.0, state)
    before, jumped = (balance.weight(each, config) for each in (state, after(5.0, state)))
    np.testing.assert_allclose(jumped, before * np.exp(5.0 / balance.STEPS), rtol=1e-5)
    assert balance.weight(after(50.0), config) == balance.LARGEST


@pytest.mark.parametrize("kind", ["gradient", "bands"])
def test_no_gradient_comes_through_weight_or_emphasis(kind):
    config = tiny_settings(loss__balance=kind).loss

    def through(log_ratio, error):
        state = balance.observe(balance.start(), balance.Observed(log_ratio, error))
        emphasis = balance.emphasis(state, IMAGE, config)
        return balance.weight(state, config) + (0.0 if emphasis is None else jnp.sum(emphasis))

    slopes = jax.grad(through, argnums=(0, 1))(jnp.ones(()), -jnp.ones(BANDS))
    assert all(np.all(slope == 0.0) for slope in slopes)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["gradient", "power"])
def test_a_step_keeps_the_share(kind):
    """After the first step has been seen, the second's gradient has the norm asked for."""
    small = {"loss__gan": 0.0, "loss__dsl": 0.0, "model__fcm_width": 0}
    settings = tiny_settings(loss__balance=kind, loss__balance_share=0.25, **small)
    state = jax.jit(functools.partial(create, settings))(KEY)
    step = jax.jit(functools.partial(train_step, settings=settings))
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    begun = state
    state, first = step(begun, images, KEY, None)
    frozen = state.replace(params=begun.params, step=jnp.zeros((), jnp.int32))
    _, second = step(frozen, images, KEY, None)
    assert np.all(np.isfinite(state.balance.log_power_error)) and float(state.balance.seen) == 1.0
    assert first["log_power_error_high"] == state.balance.log_power_error[-1]
    name = f"grad_norm_term/{'power' if kind == 'power' else 'ffl'}"
    assert first[name] == 0.0
    np.testing.assert_allclose(second[name], 0.25 * second["grad_norm_term/mse"], rtol=1e-4)
