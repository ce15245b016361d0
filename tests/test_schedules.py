"""Schedules of the learning rate and of the rate's target and weight."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_settings import tiny_settings

from fa_hific_jax.training.controller import rate_target
from fa_hific_jax.training.optimizers import learning_rate

OPTIMIZER = tiny_settings().optimizer


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1e-4), (499_999, 1e-4), (500_001, 1e-5), (999_999, 1e-5)]
)
def test_learning_rate_drops_tenfold_at_half_of_hific(step, expected):
    config = dataclasses.replace(OPTIMIZER, drop_steps=(500_000,), drop_factor=0.1)
    np.testing.assert_allclose(learning_rate(1e-4, config)(step), expected, rtol=1e-6)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (21, 0.5)])
def test_learning_rate_rises_linearly_first(step, expected):
    config = dataclasses.replace(OPTIMIZER, warmup_steps=10, drop_steps=(20,), drop_factor=0.5)
    np.testing.assert_allclose(learning_rate(1.0, config)(step), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, (0.20, 2.0)), (49_999, (0.20, 2.0)), (50_000, (0.14, 1.0))]
)
def test_rate_starts_higher_and_is_pulled_harder_for_50_000_steps(step, expected):
    loss = tiny_settings(
        loss__target_bpp=0.14,
        loss__warmup_steps=50_000,
        loss__warmup_factors=(2.0, 0.20 / 0.14),
    ).loss
    np.testing.assert_allclose(rate_target(jnp.asarray(step), loss), expected, rtol=1e-6)
