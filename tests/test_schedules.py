"""Learning rate and rate terms over time."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_settings import tiny_settings

from fa_hific_jax.settings import OptimizerConfig
from fa_hific_jax.training.schedules import learning_rate, rate_terms


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1e-4), (499_999, 1e-4), (500_001, 1e-5), (999_999, 1e-5)]
)
def test_learning_rate_drops_tenfold_at_half_of_hific(step, expected):
    optimizer = OptimizerConfig(
        "adam",
        1e-4,
        1e-4,
        warmup_steps=0,
        drop_steps=(500_000,),
        drop_factor=0.1,
        clip_norm=0.0,
        ema_decay=0.0,
    )
    np.testing.assert_allclose(learning_rate(1e-4, optimizer)(step), expected, rtol=1e-6)


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (21, 0.5)])
def test_learning_rate_rises_linearly_first(step, expected):
    optimizer = OptimizerConfig(
        "adam",
        1.0,
        1.0,
        warmup_steps=10,
        drop_steps=(20,),
        drop_factor=0.5,
        clip_norm=0.0,
        ema_decay=0.0,
    )
    np.testing.assert_allclose(learning_rate(1.0, optimizer)(step), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "terms"),
    [(0, (0.20, 4.0, 0.125)), (49_999, (0.20, 4.0, 0.125)), (50_000, (0.14, 2.0, 0.0625))],
)
def test_rate_starts_higher_and_is_pulled_harder_for_50_000_steps(step, terms):
    loss = tiny_settings(
        loss__target_bpp=0.14,
        loss__lambda_above=2.0,
        loss__lambda_below=1 / 16,
        loss__warmup_steps=50_000,
        loss__warmup_lambda=2.0,
        loss__warmup_target=0.20 / 0.14,
    ).loss
    np.testing.assert_allclose(rate_terms(jnp.asarray(step), loss), terms, rtol=1e-6)
