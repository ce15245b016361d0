"""Exponential moving average (EMA) of the autoencoder's parameters that train."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from fa_hific_jax.training.state import TrainState
from fa_hific_jax.training.trainable import combine


def update(ema_params: Any, params: Any, step: Int[Array, ""], decay: float) -> Any:
    """Returns the EMA parameters after a step; None stays None.

    The decay is min(decay, (1 + step) / (10 + step)), as in TensorFlow's
    `ExponentialMovingAverage`, so that early parameters are soon forgotten.
    """
    if ema_params is None:
        return None
    t = step.astype(jnp.float32)
    share = 1.0 - jnp.minimum(decay, (1.0 + t) / (10.0 + t))
    return jax.tree.map(lambda mean, new: mean + share * (new - mean), ema_params, params)


def ema_autoencoder(state: TrainState) -> Any:
    """Returns the autoencoder's parameters for inference: EMA parameters where there are any."""
    return combine(state.ema_params, state.params["autoencoder"])


def swapped(state: TrainState) -> TrainState:
    """Returns `state` with the EMA parameters and the latest ones in each other's place.

    Checkpoints are stored this way, so that inference and later stages read the EMA parameters.
    Applied twice, it returns the original state.
    """
    params = state.params | {"autoencoder": ema_autoencoder(state)}
    return state.replace(params=params, ema_params=_latest(state))


def restart_ema(state: TrainState) -> TrainState:
    """Returns `state` with EMA parameters that equal its present parameters.

    They are copies, because a step that donates the state must not get the same buffer twice.
    """
    return state.replace(ema_params=jax.tree.map(jnp.copy, _latest(state)))


def _latest(state: TrainState) -> Any:
    """Returns the latest values of those parameters that have an average, None for the others."""
    return jax.tree.map(
        lambda mean, new: None if mean is None else new,
        state.ema_params,
        state.params["autoencoder"],
        is_leaf=lambda leaf: leaf is None,
    )
