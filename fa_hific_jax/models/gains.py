"""Gains of the latents: one model for every rate, chosen by a quality in [0, 1].

Cui et al., "Asymmetric Gained Deep Image Compression With Continuous Rate Adaptation", CVPR 2021:
each channel of y is multiplied before it is rounded, so that it is rounded more finely or more
coarsely, and the decoder multiplies by another gain. Both are learned at a few qualities and
interpolated geometrically between them.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

# Gain at quality 0 before training; it is 1 at quality 1. The rate's weight falls by a factor of
# about 16 between the two, and the best step of rounding goes with its root.
LOWEST = 0.25


class Gains(nn.Module):
    """Gain of each latent channel, and the decoder's own, at 2 or more evenly spaced qualities.

    The logarithms are the parameters, float32 of shape (qualities, channels): "log_gain" and
    "log_inverse", which begins as its negative. The inverse is free to differ from it, as the best
    reconstruction of coarsely rounded values lies nearer to their mean.
    """

    qualities: int
    channels: int

    def setup(self):
        def initial(key):
            start = jnp.linspace(jnp.log(LOWEST), 0.0, self.qualities)
            return jnp.broadcast_to(start[:, None], (self.qualities, self.channels))

        self.log_gain = self.param("log_gain", initial)
        self.log_inverse = self.param("log_inverse", lambda key: -initial(key))

    def gain(self, quality: Float[Array, " b"]) -> Float[Array, "b 1 1 c"]:
        """Returns the factors of y before it is rounded."""
        return jnp.exp(interpolate(self.log_gain, quality))[:, None, None]

    def inverse(self, quality: Float[Array, " b"]) -> Float[Array, "b 1 1 c"]:
        """Returns the factors of y_hat before the generator."""
        return jnp.exp(interpolate(self.log_inverse, quality))[:, None, None]


def interpolate(
    table: Float[Array, "qualities c"], quality: Float[Array, " b"]
) -> Float[Array, "b c"]:
    """Returns rows of the table, interpolated linearly at qualities that are clipped to [0, 1]."""
    last = table.shape[0] - 1
    place = jnp.clip(quality, 0.0, 1.0) * last
    below = jnp.clip(jnp.floor(place), 0, last - 1).astype(jnp.int32)
    share = (place - below.astype(place.dtype))[:, None]
    return (1.0 - share) * table[below] + share * table[below + 1]
