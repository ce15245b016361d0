"""Weight of the rate: HiFiC's switch, or a controller under which the rate lands on its target."""

import math
from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from fa_hific_jax.losses.rate_distortion import weighted_rate
from fa_hific_jax.settings import LossConfig
from fa_hific_jax.training.schedules import rate_target, rate_terms

Scalar = Float[Array, ""]

INTEGRAL_TIME = 5.0
"""Time of the integral in windows of the running mean: at five, a loop of unit gain whose rate
answers at once is overdamped, and one whose rate lags by fifty windows still converges."""

LARGEST_ERROR = math.log(4.0)
"""Of a rate far off, as before anything has been learned: more tells no more."""

MARGIN = math.log(64.0)
"""How far the weight may go beyond the two of the switch, either way."""


class ControllerState(flax.struct.PyTreeNode):
    """What the controller remembers: float32 scalars."""

    log_lambda: Any  # the integral
    mean_rate: Any  # running mean of the rounded rate, bits per pixel


def start(config: LossConfig) -> ControllerState:
    """Weight halfway (in logarithms) between those of the switch; no error to begin with."""
    target, _ = rate_target(jnp.zeros((), jnp.int32), config)
    middle = 0.5 * (math.log(config.lambda_above) + math.log(config.lambda_below))
    return ControllerState(jnp.asarray(middle, jnp.float32), jnp.asarray(target, jnp.float32))


def observe(
    state: ControllerState, bpp_rounded: Scalar, target: Scalar, config: LossConfig
) -> ControllerState:
    """State after a batch of mean rate `bpp_rounded`.

    The error is log(running mean / target), so gains mean the same at every rate; its integral is
    the logarithm of the weight. Where the weight is at a bound, what would push it further is not
    integrated (anti-windup).
    """
    mean = state.mean_rate + (bpp_rounded - state.mean_rate) / config.control_steps
    error = _error(mean, target)
    change = config.control_gain / (INTEGRAL_TIME * config.control_steps) * error
    low, high = bounds(config)
    wanted = state.log_lambda + config.control_gain * error
    stuck = ((wanted > high) & (error > 0)) | ((wanted < low) & (error < 0))
    integral = jnp.where(stuck, state.log_lambda, state.log_lambda + change)
    return ControllerState(jnp.clip(integral, low, high), mean)


def weight(state: ControllerState, target: Scalar, config: LossConfig) -> Scalar:
    """exp(integral + gain * error), within `bounds`."""
    wanted = state.log_lambda + config.control_gain * _error(state.mean_rate, target)
    return jnp.exp(jnp.clip(wanted, *bounds(config)))


def bounds(config: LossConfig) -> tuple[float, float]:
    """Of the logarithm of the weight: 64 times beyond the switch's, either way."""
    ends = sorted((math.log(config.lambda_below), math.log(config.lambda_above)))
    return ends[0] - MARGIN, ends[1] + MARGIN


def rate_weight(
    state: ControllerState | None, step: Int[Array, ""], bpp_rounded: Scalar, config: LossConfig
) -> tuple[Scalar, Scalar | None, ControllerState | None]:
    """(lambda, target in bpp, state afterwards) of a step whose batch has this mean rounded rate.

    Without a state, HiFiC's switch (`weighted_rate`) on this very batch; with one, the controller,
    whose weight follows from the batches before. The warm-up changes target and weight of both.
    With a weight by quality there is no target, and this is the factor of the warm-up alone.
    """
    if config.rate_control == "quality":
        return rate_target(step, config)[1], None, None
    if state is None:
        target, above, below = rate_terms(step, config)
        _, lmbda = weighted_rate(
            bpp_rounded, bpp_rounded, target=target, lambda_above=above, lambda_below=below
        )
        return lmbda, target, None
    target, factor = rate_target(step, config)
    return (
        factor * weight(state, target, config),
        target,
        observe(state, bpp_rounded, target, config),
    )


def _error(mean_rate: Scalar, target: Scalar) -> Scalar:
    ratio = jnp.maximum(mean_rate / target, math.exp(-LARGEST_ERROR))
    return jnp.minimum(jnp.log(ratio), LARGEST_ERROR)
