"""Encoder: image to latents y, at a sixteenth of the size."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.models.layers import DOWN_3X3, ChannelNorm, Conv, Size, edge_mode, halved
from fa_hific_jax.models.linear_path import BlockAnalysis

ENDS = ("conv_out", "linear")
"""Names of the layers that add up to y, and are linear in their parameters."""


class Encoder(nn.Module):
    """E of HiFiC (Mentzer et al. 2020, fig. 2): 7x7 convolution, four stride-2 3x3 ones, 3x3 to y.

    Attributes:
      widths: channels of the five blocks, finest first (paper: 60, 120, 240, 480, 960).
      latent_channels: channels of y (paper: 220).
      variant: "pytorch" or "tensorflow", which pad differently.
      dtype: in which convolutions are computed.
      linear_path: "beside" for a linear transform of the image that is added to y (and is all of
        it before training), "alone" for nothing else, "none" for none.
    """

    widths: tuple[int, ...]
    latent_channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")
    linear_path: str = "none"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], size: Size | None = None
    ) -> tuple[Float[Array, "b hy wy cy"], tuple[Float[Array, "b _ _ _"], ...]]:
        """y of images in [0, 1] with sides that are multiples of 16, and the features A_1, A_2.

        A_1 and A_2 are what the two finest blocks put out, after ReLU; the dynamic spectrum loss
        compares them with the generator's FCM features of the same size.
        """
        linear = None
        if self.linear_path != "none":
            linear = BlockAnalysis(self.latent_channels, name="linear")(x, size)
            if self.linear_path == "alone":
                return linear, ()
        conv = functools.partial(Conv, mode=edge_mode(self.variant), dtype=self.dtype)
        # Brightness scales what a kernel without bias puts out, and ChannelNorm divides scale away:
        # random biases let the first block see it from the first step.
        first = conv(self.widths[0], 7, bias_init=nn.initializers.normal(0.5), name="conv0")
        x = first(x.astype(self.dtype), size)
        x = nn.relu(ChannelNorm(name="norm0")(x))
        features = [x]
        for level, width in enumerate(self.widths[1:], start=1):
            padding = DOWN_3X3[self.variant]
            down = conv(width, 3, stride=2, padding=padding, name=f"conv{level}")
            x, size = down(x, size), halved(size)
            x = nn.relu(ChannelNorm(name=f"norm{level}")(x))
            features.append(x)
        if linear is None:
            y = conv(self.latent_channels, 3, name="conv_out")(x, size)
        else:
            zeros = nn.initializers.zeros
            y = conv(self.latent_channels, 3, kernel_init=zeros, name="conv_out")(x, size)
            y = ops.at_least_float32(y) + linear
        return y, tuple(features[:2])
