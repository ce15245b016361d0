"""Frequency Complement Module: the detail that a generator level adds to itself."""

import flax.linen as nn
import jax.numpy as jnp

from fa_hific_jax.models.layers import ChannelNorm, Conv, Features, Size


class FrequencyComplement(nn.Module):
    """C_i = FCM_i(B_i), three times norm, ReLU, 3x3 convolution; the caller adds C_i to B_i.

    FA-VAE (Lin et al., CVPR 2023) introduced the module, the FA-HiFiC authors put one after each
    of the two finest upsamplings of HiFiC. Theirs normalises with LayerNorm over (height, width),
    which fixes the image at 256x256 and lets every pixel see the whole image; ChannelNorm is used
    here, so that any size can be decoded, in tiles too. The last convolution starts at zero: a
    generator warm-started from HiFiC then begins as that HiFiC.

    Attributes:
      width: channels inside the module (paper: 64).
      dtype: in which convolutions are computed.
    """

    width: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, b: Features, size: Size | None = None) -> Features:
        x = b
        for layer in range(2):
            x = nn.relu(ChannelNorm(name=f"norm{layer}")(x))
            x = Conv(self.width, 3, mode="constant", dtype=self.dtype, name=f"conv{layer}")(x, size)
        x = nn.relu(ChannelNorm(name="norm2")(x))
        return Conv(
            b.shape[-1],
            3,
            mode="constant",
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="conv2",
        )(x, size)
