"""The convolutional and the residual FCM of FA-VAE, with GroupNorm."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool

from fa_hific_jax import ops
from fa_hific_jax.models.fcm.norm_relu_conv import conv3x3
from fa_hific_jax.models.layers import GLOROT, Features, Size
from fa_hific_jax.models.random import Keys, drop


class GroupNormConv(nn.Module):
    """F(B) = GroupNorm, SiLU, 3x3 convolution, GroupNorm, SiLU, dropout, 3x3 convolution.

    FA-VAE's convolutional module has C = F(B) and continues with B + C. Its residual module has
    C = B + F(B) and continues with C. They differ only in the C that the loss compares. FA-VAE has
    as many channels inside as outside, and dropout 0, or 0.1 next to attention.
    """

    width: int
    dropout: float
    dtype: jnp.dtype
    residual: bool

    @nn.compact
    def __call__(
        self, b: Features, size: Size | None = None, keys: Keys | None = None
    ) -> tuple[Features, Features]:
        x = nn.silu(GroupNorm(name="norm0")(b, size))
        x = conv3x3(self.width, GLOROT, self.dtype, "conv0")(x, size)
        x = drop(nn.silu(GroupNorm(name="norm1")(x, size)), self.dropout, keys)
        c = conv3x3(b.shape[-1], nn.initializers.zeros, self.dtype, "conv1")(x, size)
        return (b + c, b + c) if self.residual else (c, b + c)


class GroupNorm(nn.Module):
    """Normalization of groups of channels over all positions of an image, with gain and offset.

    There are 32 groups as in FA-VAE, or the largest number below that divides the channels (30 of
    60 and of 120). Computed in float32 and returned in the dtype of the input.
    """

    @nn.compact
    def __call__(self, x: Features, size: Size | None = None) -> Features:
        batch, height, width, channels = x.shape
        grouped = x.reshape(batch, height, width, largest_divisor(channels, 32), -1)
        where = None if size is None else inside(height, width, size)[None, :, :, None, None]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        normalized = ops.normalized(grouped, (1, 2, 4), where).reshape(x.shape)
        return (normalized * scale[None, None, None] + bias[None, None, None]).astype(x.dtype)


def inside(height: int, width: int, size: Size) -> Bool[Array, "height width"]:
    """Returns True where an array of this height and width lies within the true size."""
    return (jnp.arange(height) < size[0])[:, None] & (jnp.arange(width) < size[1])[None]


def largest_divisor(channels: int, most: int) -> int:
    """Returns the largest divisor of `channels` up to `most`."""
    return max(n for n in range(1, most + 1) if channels % n == 0)
