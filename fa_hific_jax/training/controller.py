"""Weight of the rate: HiFiC's switch, or a controller that brings the mean rate to its target."""

import math
from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fa_hific_jax.losses.rate_distortion import switch_lambda
from fa_hific_jax.settings import LossConfig

Scalar = Float[Array, ""]

# Time constant of the integral, in windows of the running mean. With 5, a loop of unit gain whose
# rate responds at once is overdamped, and one whose rate lags by 50 windows still converges.
INTEGRAL_TIME = 5.0
# Bound on |log(mean rate / target)|, since the rate can be off by far more early in training.
LARGEST_ERROR = math.log(4.0)


class ControllerState(flax.struct.PyTreeNode):
    """State of the controller: float32 scalars."""

    log_lambda: Any  # the integral
    mean_rate: Any  # running mean of the rounded rate, bits per pixel


def start(config: LossConfig) -> ControllerState:
    """Returns the state before the first step: the switch's geometric mean, a rate on target."""
    target, _ = rate_target(jnp.zeros((), jnp.int32), config)
    middle = 0.5 * (math.log(config.lambda_above) + math.log(config.lambda_below))
    return ControllerState(jnp.asarray(middle, jnp.float32), jnp.asarray(target, jnp.float32))


def observe(
    state: ControllerState, bpp_rounded: Scalar, target: Scalar, config: LossConfig
) -> ControllerState:
    """Returns the state after a batch whose mean rounded rate is `bpp_rounded`.

    The error is log(mean rate / target), so a gain has the same effect at every rate. Its integral
    is log(lambda). While lambda is at a bound, errors that push it further are not integrated
    (anti-windup).
    """
    steps, gain = config.control
    mean = state.mean_rate + (bpp_rounded - state.mean_rate) / steps
    error = _error(mean, target)
    change = gain / (INTEGRAL_TIME * steps) * error
    low, high = bounds(config)
    wanted = state.log_lambda + gain * error
    stuck = ((wanted > high) & (error > 0)) | ((wanted < low) & (error < 0))
    integral = jnp.where(stuck, state.log_lambda, state.log_lambda + change)
    return ControllerState(jnp.clip(integral, low, high), mean)


def weight(state: ControllerState, target: Scalar, config: LossConfig) -> Scalar:
    """Returns lambda = exp(integral + gain * error), within `bounds`."""
    wanted = state.log_lambda + config.control[1] * _error(state.mean_rate, target)
    return jnp.exp(jnp.clip(wanted, *bounds(config)))


def bounds(config: LossConfig) -> tuple[float, float]:
    """Returns bounds of log(lambda): a factor of 64 beyond the switch's range in each direction."""
    low, high = sorted((config.lambda_below, config.lambda_above))
    return math.log(low) - math.log(64.0), math.log(high) + math.log(64.0)


def rate_target(step: Int[Array, ""], config: LossConfig) -> tuple[Scalar, Scalar]:
    """Returns (target in bpp, factor on the weight of the rate) at a step.

    During the first `warmup_steps` the two factors are `warmup_factors`, afterwards 1. HiFiC starts
    at a higher rate (target x 0.20/0.14 for 50,000 steps). The PyTorch code doubles the weight
    meanwhile; the original doubles a lambda by which it divides.
    """
    warm = step < config.warmup_steps
    of_lambda, of_target = (jnp.where(warm, factor, 1.0) for factor in config.warmup_factors)
    return config.target_bpp * of_target, of_lambda


def rate_weight(
    state: ControllerState | None, step: Int[Array, ""], bpp_rounded: Scalar, config: LossConfig
) -> tuple[Scalar, Scalar | None, ControllerState | None]:
    """Returns (lambda, target in bpp, next state) for a batch with this mean rounded rate.

    Without a state, lambda is HiFiC's switch applied to this batch (`switch_lambda`). With a state
    it is the controller's, which depends on earlier batches only. The warm-up applies to both.
    With `rate_control` "quality" there is no target: each image has its own lambda
    (`conditioning.image_lambda`), and the lambda returned here is the warm-up's factor on it.
    """
    target, factor = rate_target(step, config)
    if config.rate_control == "quality":
        return factor, None, None
    if state is None:
        above, below = config.lambda_above * factor, config.lambda_below * factor
        return switch_lambda(bpp_rounded, target, above, below), target, None
    lmbda = factor * weight(state, target, config)
    return lmbda, target, observe(state, bpp_rounded, target, config)


def _error(mean_rate: Scalar, target: Scalar) -> Scalar:
    ratio = jnp.maximum(mean_rate / target, math.exp(-LARGEST_ERROR))
    return jnp.minimum(jnp.log(ratio), LARGEST_ERROR)
