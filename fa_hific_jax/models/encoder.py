"""Encoder: image to latents y, at a sixteenth of the size."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.fidelity.variants import VARIANTS
from fa_hific_jax.models.layers import ChannelNorm, Conv, Size, halved


class Encoder(nn.Module):
    """E of HiFiC (Mentzer et al. 2020, fig. 2): 7x7 convolution, four stride-2 3x3 ones, 3x3 to y.

    Attributes:
      widths: channels of the five blocks, finest first (paper: 60, 120, 240, 480, 960).
      latent_channels: channels of y (paper: 220).
      variant: key of VARIANTS, which pad differently.
      dtype: data type of the convolutions.
      last_init: initializer of the last kernel.
    """

    widths: tuple[int, ...]
    latent_channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")
    last_init: nn.initializers.Initializer = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], size: Size | None = None
    ) -> tuple[Float[Array, "b hy wy cy"], tuple[Float[Array, "b _ _ _"], ...]]:
        """Returns y, float32, of images whose sides are multiples of 16, and features A_1, A_2.

        A_1 and A_2 are the outputs of the two finest blocks, after ReLU. The dynamic spectrum loss
        compares them with the generator's FCM features of the same size.
        """
        variant = VARIANTS[self.variant]
        conv = functools.partial(Conv, mode=variant.edges, dtype=self.dtype)
        # Brightness scales what a kernel without bias puts out, and ChannelNorm divides scale away:
        # random biases let the first block see it from the first step.
        first = conv(self.widths[0], 7, bias_init=nn.initializers.normal(0.5), name="conv0")
        x = first(x.astype(self.dtype), size)
        x = nn.relu(ChannelNorm(name="norm0")(x))
        features = [x]
        for level, width in enumerate(self.widths[1:], start=1):
            down = conv(width, 3, stride=2, padding=variant.down, name=f"conv{level}")
            x, size = down(x, size), halved(size)
            x = nn.relu(ChannelNorm(name=f"norm{level}")(x))
            features.append(x)
        last = conv(self.latent_channels, 3, kernel_init=self.last_init, name="conv_out")
        return ops.at_least_float32(last(x, size)), tuple(features[:2])
