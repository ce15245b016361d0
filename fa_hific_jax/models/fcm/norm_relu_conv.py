"""The FCM of FA-HiFiC."""

import flax.linen as nn
import jax.numpy as jnp

from fa_hific_jax.models.layers import ChannelNorm, Conv, Features, Size
from fa_hific_jax.models.random import Keys, drop, split


class NormReluConv(nn.Module):
    """C = three times norm, ReLU, dropout, 3x3 convolution; the generator goes on with B + C.

    The FA-HiFiC authors normalize over height and width (`fidelity.position_norm`), which ties the
    network to images of 256x256 and lets every pixel see the whole image. By default ChannelNorm
    takes its place, so that images of any size can be decoded, also in tiles.

    Attributes:
      width: channels inside (authors: 64).
      dropout: share that is set to zero in training (authors: 0.5).
      dtype: data type of the convolutions.
      norm: class of the three norms.
      last_init: initializer of the last kernel.
    """

    width: int
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.dtype("float32")
    norm: type[nn.Module] = ChannelNorm
    last_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(
        self, b: Features, size: Size | None = None, keys: Keys | None = None
    ) -> tuple[Features, Features]:
        inits = (nn.initializers.glorot_uniform(),) * 2 + (self.last_init,)
        widths = (self.width, self.width, b.shape[-1])
        c = b
        for layer, layer_keys in enumerate([None] * 3 if keys is None else split(keys, 3)):
            c = drop(nn.relu(self.norm(name=f"norm{layer}")(c)), self.dropout, layer_keys)
            c = Conv(
                widths[layer],
                3,
                mode="constant",
                kernel_init=inits[layer],
                dtype=self.dtype,
                name=f"conv{layer}",
            )(c, size)
        return c, b + c
