"""Dropout with keys that are passed as arguments."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, UInt32

Key = PRNGKeyArray | UInt32[Array, "2"]


def split(key: Key | None) -> tuple[Key | None, ...]:
    """Returns three keys, or three times None without a key."""
    return (None, None, None) if key is None else tuple(jax.random.split(key, 3))


def drop(x: Array, rate: float, key: Key | None) -> Array:
    """Returns x with a share `rate` of its elements set to zero and the others scaled up.

    Without a key, x is returned as it is.
    """
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))
