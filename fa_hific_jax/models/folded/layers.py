"""Folding of pixels into channels, and the residual block of the folded networks."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.models.layers import Conv, Features, Size

FOLD = 4
"""Side of the folded blocks in pixels."""


def fold(image: Float[Array, "b h w c"]) -> Float[Array, "b _ _ _"]:
    """Returns FOLD^2 c channels for each block of FOLD x FOLD pixels, row by row."""
    b, h, w, c = image.shape
    blocks = image.reshape(b, h // FOLD, FOLD, w // FOLD, FOLD, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, h // FOLD, w // FOLD, FOLD**2 * c)


def unfold(channels: Float[Array, "b h w c"]) -> Float[Array, "b _ _ _"]:
    """Inverse of `fold`."""
    b, h, w, c = channels.shape
    blocks = channels.reshape(b, h, w, FOLD, FOLD, c // FOLD**2).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, FOLD * h, FOLD * w, c // FOLD**2)


class Block(nn.Module):
    """x + conv(relu(conv(x))), which begins as the identity.

    It has no norm: ChannelNorm divides away the contrast of each place, which pictures and
    coefficients need.
    """

    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Features, size: Size | None = None) -> Features:
        conv = functools.partial(Conv, x.shape[-1], 3, dtype=self.dtype)
        inner = nn.relu(conv(name="conv1")(x, size))
        return x + conv(kernel_init=nn.initializers.zeros, name="conv2")(inner, size)
