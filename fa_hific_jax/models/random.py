"""Random numbers of a batch in which each image has its own key.

So an image gets the same numbers in every batch, and on any number of devices.
"""

import jax
import jax.numpy as jnp
import jaxtyping
from jaxtyping import Array, Float, UInt32

Key = jaxtyping.Key[Array, ""] | UInt32[Array, "2"]
Keys = jaxtyping.Key[Array, " b"] | UInt32[Array, "b 2"]
"""A random key, and one for each image, of either kind that JAX has."""


def split(keys: Keys, count: int) -> list[Keys]:
    """Returns `count` independent keys for each image: a list of batches of keys."""
    parts = jax.vmap(lambda key: jax.random.split(key, count))(keys)
    return [parts[:, i] for i in range(count)]


def fold_in(keys: Keys, number: int) -> Keys:
    """Returns keys that follow from `keys` and the number."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def noise(keys: Keys, like: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """Returns values uniform in [-0.5, 0.5), in the shape and dtype of `like`."""
    shape, dtype = like.shape[1:], like.dtype
    return jax.vmap(lambda key: jax.random.uniform(key, shape, dtype, -0.5, 0.5))(keys)


def drop(x: Float[Array, "b ..."], rate: float, keys: Keys | None) -> Float[Array, "b ..."]:
    """Returns x with a share `rate` of its elements zero and the others scaled; x without keys."""
    if keys is None or rate == 0.0:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, x.shape[1:]))(keys)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))
