"""What changes with the step: learning rate, target rate and rate weight."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fa_hific_jax.settings import LossConfig

Scalar = Float[Array, ""]


def learning_rate(
    initial: float, drop_steps: tuple[int, ...], drop_factor: float
) -> optax.Schedule:
    """`initial`, multiplied by `drop_factor` at each of `drop_steps`."""
    return optax.piecewise_constant_schedule(initial, dict.fromkeys(drop_steps, drop_factor))


def rate_terms(step: Int[Array, ""], config: LossConfig) -> tuple[Scalar, Scalar, Scalar]:
    """(target bpp, lambda above it, lambda below it) at a step.

    During the first `warmup_steps` the target is multiplied by `warmup_target` and both lambdas by
    `warmup_lambda`: HiFiC starts at a higher rate and pulls harder (Mentzer et al. 2020, A.6;
    configs.py of the original: target x 0.20/0.14 and lambda x 2 for 50,000 steps).
    """
    warm = step < config.warmup_steps
    target = config.target_bpp * jnp.where(warm, config.warmup_target, 1.0)
    weight = jnp.where(warm, config.warmup_lambda, 1.0)
    return target, config.lambda_above * weight, config.lambda_below * weight
