"""The FCM of the FA-HiFiC authors: norm, ReLU and convolution, three times."""

import flax.linen as nn
import jax.numpy as jnp

from fa_hific_jax.models.layers import GLOROT, ChannelNorm, Conv, Features, Size
from fa_hific_jax.models.random import Keys, drop, split


class NormReluConv(nn.Module):
    """C = three times norm, ReLU, dropout, 3x3 convolution; the generator goes on with B + C.

    The FA-HiFiC authors normalize over height and width (`PositionNorm`), which ties the network to
    images of 256x256 and lets every pixel see the whole image. By default ChannelNorm takes its
    place, so that images of any size can be decoded, also in tiles. The authors have width 64 and
    dropout 0.5.
    """

    width: int
    dropout: float
    dtype: jnp.dtype
    norm: type[nn.Module] = ChannelNorm
    last_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(
        self, b: Features, size: Size | None = None, keys: Keys | None = None
    ) -> tuple[Features, Features]:
        c = b
        inits = (GLOROT, GLOROT, self.last_init)
        for i, layer_keys in enumerate([None] * 3 if keys is None else split(keys, 3)):
            c = drop(nn.relu(self.norm(name=f"norm{i}")(c)), self.dropout, layer_keys)
            width = self.width if i < 2 else b.shape[-1]
            c = conv3x3(width, inits[i], self.dtype, f"conv{i}")(c, size)
        return c, b + c


def conv3x3(width: int, init: nn.initializers.Initializer, dtype: jnp.dtype, name: str) -> Conv:
    """Returns a 3x3 convolution that sees zeros beyond the edges."""
    return Conv(width, 3, mode="constant", kernel_init=init, dtype=dtype, name=name)
