"""Generator: quantised latents to image."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.models.fcm import FrequencyComplement
from fa_hific_jax.models.layers import ChannelNorm, Conv, ResidualBlock, Size, Upsample, doubled


class Generator(nn.Module):
    """G of HiFiC (Mentzer et al. 2020, fig. 2), with FCM after the two finest upsamplings.

    Attributes:
      widths: channels of the head and of the four upsamplings (paper: 960, 480, 240, 120, 60).
      residual_blocks: blocks at the latents' size (paper: 9).
      fcm_width: channels inside each FCM, or 0 for the plain generator of HiFiC.
      dtype: in which convolutions are computed.
    """

    widths: tuple[int, ...]
    residual_blocks: int
    fcm_width: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self, y_hat: Float[Array, "b hy wy cy"], size: Size | None = None
    ) -> tuple[Float[Array, "b h w 3"], tuple[Float[Array, "b _ _ _"], ...]]:
        """The image, 16 times as large, nominally in [0, 1] but not clipped, and C_1, C_2.

        C_1 belongs to the finest level (the last upsampling), C_2 to the one before; both are
        empty without FCM.
        """
        head = ChannelNorm(name="norm_in")(y_hat.astype(self.dtype))
        head = ChannelNorm(name="norm_head")(
            Conv(self.widths[0], 3, dtype=self.dtype, name="conv_head")(head, size)
        )
        x = head
        for block in range(self.residual_blocks):
            x = ResidualBlock(dtype=self.dtype, name=f"block{block}")(x, size)
        x = x + head
        features = []
        for level in reversed(range(1, len(self.widths))):
            up = Upsample(self.widths[-level], 3, dtype=self.dtype, name=f"up{level}")
            x, size = up(x, size), doubled(size)
            x = nn.relu(ChannelNorm(name=f"norm{level}")(x))
            if self.fcm_width and level <= 2:
                complement = FrequencyComplement(
                    self.fcm_width, dtype=self.dtype, name=f"fcm{level}"
                )(x, size)
                features.insert(0, complement)
                x = x + complement
        image = Conv(3, 7, dtype=self.dtype, name="conv_out")(x, size)
        return ops.at_least_float32(image), tuple(features)
