"""What changes with the step: learning rate, target rate and rate weight."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from fa_hific_jax.settings import LossConfig, OptimizerConfig

Scalar = Float[Array, ""]


def learning_rate(initial: float, config: OptimizerConfig) -> optax.Schedule:
    """`initial`, reached linearly, then multiplied by `drop_factor` at each of `drop_steps`.

    The ramp begins at `initial / warmup_steps`, not at 0, and lasts `warmup_steps`.
    """
    drops = optax.piecewise_constant_schedule(
        initial, dict.fromkeys(config.drop_steps, config.drop_factor)
    )
    ramp = max(config.warmup_steps, 1)
    return lambda step: drops(step) * jnp.minimum((step + 1) / ramp, 1.0)


def rate_target(step: Int[Array, ""], config: LossConfig) -> tuple[Scalar, Scalar]:
    """(target bpp, factor of the rate's weight) at a step.

    They are `warmup_target` times the target, and `warmup_lambda`, in the first `warmup_steps`:
    HiFiC starts at a higher rate (configs.py of the original and the PyTorch HiFiC: target x
    0.20/0.14 for 50,000 steps). The PyTorch code doubles the weights meanwhile; the original
    doubles a lambda by which it divides, which halves them.
    """
    warm = step < config.warmup_steps
    target = config.target_bpp * jnp.where(warm, config.warmup_target, 1.0)
    return target, jnp.where(warm, config.warmup_lambda, 1.0)


def rate_terms(step: Int[Array, ""], config: LossConfig) -> tuple[Scalar, Scalar, Scalar]:
    """(target bpp, lambda above it, lambda below it) at a step, after `rate_target`."""
    target, factor = rate_target(step, config)
    return target, config.lambda_above * factor, config.lambda_below * factor
