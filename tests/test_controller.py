"""Control of the rate: it lands on the target of a simulated model, whatever lag and noise."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_settings import tiny_settings

from fa_hific_jax.training.controller import bounds, observe, rate_weight, start, weight

CONFIG = tiny_settings(
    loss__rate_control="controller",
    loss__control=(50, 1.0),
    loss__target_bpp=0.3,
    loss__lambda_above=1.0,
    loss__lambda_below=1 / 16,
    loss__warmup_steps=0,
).loss


@functools.partial(jax.jit, static_argnames=("config", "steps"))
def simulate(config, steps, *, lag, slope, noise, unit_rate=0.3):
    """(rates, weights) of a model whose rate tends to unit_rate * lambda^-slope.

    In the logarithm it gets there with a time constant of `lag` steps; batches scatter around it
    with a standard deviation of `noise`. It begins at four times the rate it tends to.
    """

    def step(carry, key):
        state, log_rate = carry
        observed = jnp.exp(log_rate + noise * jax.random.normal(key) - 0.5 * noise**2)
        lmbda, _, state = rate_weight(state, jnp.zeros((), jnp.int32), observed, config)
        tends_to = jnp.log(unit_rate) - slope * jnp.log(lmbda)
        log_rate = log_rate + (tends_to - log_rate) / lag
        return (state, log_rate), (jnp.exp(log_rate), lmbda)

    first = jnp.log(jnp.asarray(4.0 * unit_rate, jnp.float32))
    keys = jax.random.split(jax.random.key(0), steps)
    return jax.lax.scan(step, (start(config), first), keys)[1]


@pytest.mark.parametrize("slope", [0.3, 1.0])
@pytest.mark.parametrize("lag", [1.0, 2500.0])
def test_the_rate_lands_on_the_target_whatever_the_lag(lag, slope):
    """The mean of the last quarter is within 1 % of the target and every rate within 10 %."""
    rates, _ = simulate(CONFIG, 40_000, lag=lag, slope=slope, noise=0.3)
    tail = np.asarray(rates[-10_000:])
    assert abs(tail.mean() / CONFIG.target_bpp - 1) < 0.01
    assert np.max(np.abs(tail / CONFIG.target_bpp - 1)) < 0.1


def test_a_rate_that_hardly_follows_lands_in_a_short_run_with_a_gain_of_five():
    """4000 steps, batches scatter by 20 %: measured within 1.5 %, and 10 % to 24 % with 1."""

    def off(gain):
        config = dataclasses.replace(CONFIG, control=(50, gain))
        rates, _ = simulate(config, 4_000, lag=1000.0, slope=0.1, noise=0.2, unit_rate=0.2)
        return abs(float(np.mean(rates[-1_000:])) / CONFIG.target_bpp - 1)

    assert off(5.0) < 0.02
    assert off(1.0) > 0.09


def test_scatter_of_batches_hardly_moves_the_weight():
    """A switch would go from one end to the other each time a batch's rate crosses the target."""
    _, lmbda = simulate(CONFIG, 20_000, lag=200.0, slope=0.7, noise=0.3)
    # 0.3 through a running mean of 50 steps: 0.3 / sqrt(2 * 50) = 0.03 by the proportional part.
    assert np.std(np.log(lmbda[-5_000:])) < 0.06
    changes = np.diff(np.log(np.asarray(lmbda[-5_000:])))
    assert np.std(changes) < 0.01


@pytest.mark.parametrize(("unit_rate", "end"), [(1e-5, 0), (1e5, 1)])
def test_weight_stays_in_its_bounds_where_the_target_is_out_of_reach(unit_rate, end):
    _, lmbda = simulate(CONFIG, 10_000, lag=10.0, slope=0.01, noise=0.1, unit_rate=unit_rate)
    limits = np.exp(bounds(CONFIG))
    np.testing.assert_allclose(limits, [1 / 16 / 64, 64.0], rtol=1e-6)
    assert limits[0] * 0.999 <= np.min(lmbda) and np.max(lmbda) <= limits[1] * 1.001
    np.testing.assert_allclose(lmbda[-1], limits[end], rtol=1e-3)


def test_integral_does_not_wind_up_while_the_weight_is_at_its_bound():
    """After a long time out of reach, a rate that crosses the target frees the weight at once."""
    run = jax.jit(
        lambda state, bpp, steps: jax.lax.fori_loop(
            0, steps, lambda _, s: observe(s, bpp, target, CONFIG), state
        )
    )
    target = jnp.asarray(CONFIG.target_bpp)
    short = run(start(CONFIG), jnp.asarray(30.0), 5_000)
    long = run(start(CONFIG), jnp.asarray(30.0), 50_000)
    np.testing.assert_allclose(long.log_lambda, short.log_lambda, atol=1e-6)
    high = math.exp(bounds(CONFIG)[1])
    np.testing.assert_allclose(weight(long, target, CONFIG), high, rtol=1e-5)
    freed = run(long, jnp.asarray(0.1), 5 * CONFIG.control[0])
    # Of that time the running mean takes log(30 / 0.3) = 4.6 windows to come down to the target.
    assert float(weight(freed, target, CONFIG)) < 0.5 * high


def test_a_rate_on_target_leaves_everything_as_it_is():
    state, target = start(CONFIG), jnp.asarray(CONFIG.target_bpp)
    np.testing.assert_allclose(weight(state, target, CONFIG), 0.25, rtol=1e-6)  # sqrt(1 / 16)
    after = observe(state, target, target, CONFIG)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, state)


def test_gains_mean_the_same_at_every_rate():
    after = []
    for bpp in (0.3, 0.03):
        config, target = dataclasses.replace(CONFIG, target_bpp=bpp), jnp.asarray(bpp)
        after.append(weight(observe(start(config), 1.5 * target, target, config), target, config))
    np.testing.assert_allclose(*after, rtol=1e-6)
    assert float(after[0]) > 0.25


def test_the_switch_has_no_state_and_looks_at_the_batch_alone():
    config = dataclasses.replace(CONFIG, rate_control="switch")
    for bpp, expected in [(0.31, 1.0), (0.29, 1 / 16)]:
        lmbda, target, after = rate_weight(None, jnp.zeros((), jnp.int32), jnp.asarray(bpp), config)
        np.testing.assert_allclose([lmbda, target], [expected, 0.3], rtol=1e-6)
        assert after is None


@pytest.mark.parametrize("control", ["switch", "controller"])
def test_the_warm_up_changes_target_and_weight_of_both(control):
    config = dataclasses.replace(
        CONFIG, rate_control=control, warmup_steps=10, warmup_factors=(0.5, 2.0)
    )

    def at(step):
        target = jnp.asarray(0.6 if step < 10 else 0.3)
        state = None if control == "switch" else start(config).replace(mean_rate=target)
        return rate_weight(state, jnp.asarray(step), jnp.asarray(0.9), config)[:2]

    (early, early_target), (late, late_target) = at(9), at(10)
    np.testing.assert_allclose([early_target, late_target], [0.6, 0.3], rtol=1e-6)
    np.testing.assert_allclose(early / late, 0.5, rtol=1e-6)
