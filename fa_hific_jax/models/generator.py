"""Generator: quantized latents to image."""

import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.fidelity.variants import VARIANTS
from fa_hific_jax.models.fcm import complemented
from fa_hific_jax.models.layers import (
    ChannelNorm,
    Conv,
    ResidualBlock,
    Size,
    Upsample,
    doubled,
)
from fa_hific_jax.models.random import Keys


class Generator(nn.Module):
    """G of HiFiC (Mentzer et al. 2020, fig. 2), with FCM after the two finest upsamplings.

    It has two stages, so that large images can be decoded in tiles: the trunk works at the size of
    the latents, sees far and is cheap per pixel; `upsample` is the other way round.

    Attributes:
      widths: channels of the head and of the four upsamplings (paper: 960, 480, 240, 120, 60).
      residual_blocks: blocks of the trunk (paper: 9).
      variant: key of VARIANTS, which pad and upsample differently.
      dtype: data type of the convolutions.
      fcm: kind, channels and dropout of the FCMs as `frequency_complement` takes them, None for the
        plain generator of HiFiC.
      companded: True for latents whose size has a meaning, such as coefficients of a transform.
        They enter through arcsinh, since the ChannelNorm of HiFiC divides their size away.
      last_init: initializer of the last kernel.
    """

    widths: tuple[int, ...]
    residual_blocks: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")
    fcm: tuple[str, int, float] | None = None
    companded: bool = False
    last_init: nn.initializers.Initializer = nn.initializers.glorot_uniform()

    def setup(self):
        edges = VARIANTS[self.variant].edges
        self.trunk = Trunk(self.widths[0], self.residual_blocks, edges, self.dtype, self.companded)
        nn.share_scope(self, self.trunk)

    def __call__(
        self,
        y_hat: Float[Array, "b hy wy cy"],
        size: Size | None = None,
        keys: Keys | None = None,
        detail: Float[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b h w 3"], tuple[Float[Array, "b _ _ _"], ...]]:
        """Returns the image, float32 and 16 times as large, and C_1, C_2.

        The image is nominally in [0, 1] but not clipped. C_1 belongs to the finest level (the last
        upsampling), C_2 to the one before; without FCM there are none. With keys, the FCMs drop
        out as in training. `detail` in [0, 1] is the share of their addition that is used:
        B + detail (F - B), where F is what the generator goes on with at full detail (B + C, except
        for FA-VAE's residual kind).
        """
        return self.upsample(self.trunk(y_hat, size), size, keys, detail)

    @nn.compact
    def upsample(
        self,
        x: Float[Array, "b hy wy f"],
        size: Size | None = None,
        keys: Keys | None = None,
        detail: Float[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b h w 3"], tuple[Float[Array, "b _ _ _"], ...]]:
        """Returns what `__call__` returns, from the features of the trunk."""
        variant = VARIANTS[self.variant]
        x, features = x.astype(self.dtype), []
        for level in reversed(range(1, len(self.widths))):
            width = self.widths[-level]
            up = Upsample(width, 3, variant.up_center, dtype=self.dtype, name=f"up{level}")
            x, size = up(x, size), doubled(size)
            x = nn.relu(ChannelNorm(name=f"norm{level}")(x))
            if self.fcm is not None and level <= 2:
                c, x = complemented(self.fcm, level, x, size, keys, detail)
                features.insert(0, c)
        conv = functools.partial(Conv, mode=variant.edges, dtype=self.dtype)
        image = conv(3, 7, kernel_init=self.last_init, name="conv_out")(x, size)
        return ops.at_least_float32(image), tuple(features)


class Trunk(nn.Module):
    """Stage of the generator at the latents' size: a head, and residual blocks around it.

    Attributes:
      width: channels.
      residual_blocks: number of blocks.
      edges: what convolutions see beyond the edges.
      dtype: data type of the convolutions.
      companded: as for `Generator`.
    """

    width: int
    residual_blocks: int
    edges: Literal["reflect", "constant"]
    dtype: jnp.dtype = jnp.dtype("float32")
    companded: bool = False

    @nn.compact
    def __call__(
        self, y_hat: Float[Array, "b hy wy cy"], size: Size | None = None
    ) -> Float[Array, "b hy wy f"]:
        if self.companded:
            # The biases are for the norm below, as those of the encoder's first convolution are.
            head, bias_init = jnp.arcsinh(y_hat), nn.initializers.normal(0.5)
        else:
            head = ChannelNorm(name="norm_in")(y_hat.astype(self.dtype))
            bias_init = nn.initializers.zeros
        conv = Conv(
            self.width, 3, mode=self.edges, bias_init=bias_init, dtype=self.dtype, name="conv_head"
        )
        head = ChannelNorm(name="norm_head")(conv(head.astype(self.dtype), size))
        x = head
        for block in range(self.residual_blocks):
            x = ResidualBlock(self.edges, dtype=self.dtype, name=f"block{block}")(x, size)
        return x + head
