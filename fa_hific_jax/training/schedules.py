"""Schedules of the learning rate, and of the target and weight of the rate."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fa_hific_jax.settings import LossConfig, OptimizerConfig

Scalar = Float[Array, ""]


def learning_rate(initial: float, config: OptimizerConfig) -> optax.Schedule:
    """Returns a schedule that rises linearly to `initial` and drops at each of `drop_steps`.

    It begins at `initial / warmup_steps`, not at 0, and reaches `initial` after `warmup_steps`
    steps. Each drop multiplies it by `drop_factor`.
    """
    drops = optax.piecewise_constant_schedule(
        initial, dict.fromkeys(config.drop_steps, config.drop_factor)
    )
    ramp = max(config.warmup_steps, 1)
    return lambda step: drops(step) * jnp.minimum((step + 1) / ramp, 1.0)


def rate_target(step: Int[Array, ""], config: LossConfig) -> tuple[Scalar, Scalar]:
    """Returns (target in bpp, factor on the weight of the rate) at a step.

    During the first `warmup_steps` the factor on the weight and that on the target are
    `warmup_factors`, afterwards both are 1. HiFiC starts at a higher rate (configs.py of the
    original and of the PyTorch HiFiC: target x 0.20/0.14 for 50,000 steps). The PyTorch code
    doubles the weight meanwhile; the original doubles a lambda by which it divides.
    """
    warm = step < config.warmup_steps
    of_lambda, of_target = (jnp.where(warm, factor, 1.0) for factor in config.warmup_factors)
    return config.target_bpp * of_target, of_lambda
