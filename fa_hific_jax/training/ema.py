"""Exponential moving average (EMA) of the autoencoder's trained parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fa_hific_jax.training.trainable import combine


def update(ema_params: Any, params: Any, step: Int[Array, ""], decay: float) -> Any:
    """Returns the average after a step; None stays None.

    The decay is min(decay, (1 + step) / (10 + step)), as in TensorFlow's
    `ExponentialMovingAverage`, so that early parameters are soon forgotten.
    """
    if ema_params is None:
        return None
    t = step.astype(jnp.float32)
    share = 1.0 - jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return jax.tree.map(lambda mean, new: mean + share * (new - mean), ema_params, params)


def whole(ema_params: Any, params: Any) -> Any:
    """Returns `params` with the averages in place of those parameters that have one."""
    return combine(ema_params, params)


def averaged_part(ema_params: Any, params: Any) -> Any:
    """Returns those leaves of `params` that `ema_params` averages, and None for the others."""
    return jax.tree.map(
        lambda mean, new: None if mean is None else new,
        ema_params,
        params,
        is_leaf=lambda leaf: leaf is None,
    )
