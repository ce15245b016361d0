"""Encoder and generator of HiFiC: image to latents y, at a sixteenth of the size, and back."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from fa_hific_jax import ops
from fa_hific_jax.fidelity.variants import VARIANTS
from fa_hific_jax.models.fcm import complemented
from fa_hific_jax.models.layers import (
    ChannelNorm,
    Conv,
    FeatureMaps,
    Images,
    LatentFeatures,
    Latents,
    PerImage,
    ResidualBlock,
    Size,
    Upsample,
    grown,
    last_kernel,
    shrunk,
)
from fa_hific_jax.models.random import Keys
from fa_hific_jax.settings.model import ModelConfig


class Encoder(nn.Module):
    """E of HiFiC (Mentzer et al. 2020, fig. 2): a 7x7 convolution, then 3x3, four of stride 2."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Images, size: Size | None = None) -> tuple[Latents, FeatureMaps]:
        """Returns y, float32, of images whose sides are multiples of 16, and features A_1, A_2.

        A_1 and A_2 are the outputs of the two finest blocks, after ReLU. The dynamic spectrum loss
        compares them with the generator's FCM features of the same size.
        """
        config, variant, features = self.config, VARIANTS[self.config.variant], []
        conv = functools.partial(Conv, mode=variant.edges, dtype=self.dtype)
        x = x.astype(self.dtype)
        for level, width in enumerate(config.encoder_widths):
            if level == 0:
                # Brightness scales what a kernel without bias puts out, and ChannelNorm divides
                # scale away: random biases let the first block see it from the first step.
                x = conv(width, 7, bias_init=nn.initializers.normal(0.5), name="conv0")(x, size)
            else:
                down = conv(width, 3, stride=2, padding=variant.down, name=f"conv{level}")
                x, size = down(x, size), shrunk(size, 2)
            x = nn.relu(ChannelNorm(name=f"norm{level}")(x))
            features.append(x)
        last = conv(config.latent_channels, 3, kernel_init=last_kernel(config), name="conv_out")
        return ops.at_least_float32(last(x, size)), tuple(features[:2])


class Generator(nn.Module):
    """G of HiFiC (Mentzer et al. 2020, fig. 2), with FCM after the two finest upsamplings.

    It has two stages, so that large images can be decoded in tiles: the trunk works at the size of
    the latents, sees far and is cheap per pixel; `upsample` is the other way round. `companded` is
    that of `Trunk`.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    companded: bool = False

    def setup(self):
        self.trunk = Trunk(self.config, self.dtype, self.companded)
        nn.share_scope(self, self.trunk)

    def __call__(self, y_hat: Latents) -> tuple[Images, FeatureMaps]:
        """Returns the image, 16 times as large, and C_1, C_2, as `upsample` does."""
        return self.upsample(self.trunk(y_hat))

    @nn.compact
    def upsample(
        self,
        x: LatentFeatures,
        size: Size | None = None,
        keys: Keys | None = None,
        detail: PerImage | None = None,
    ) -> tuple[Images, FeatureMaps]:
        """Returns the image, float32, nominally in [0, 1] and not clipped, and C_1, C_2.

        x are the features of the trunk, and `size` is the true size of the latents. C_1 belongs to
        the finest level (the last upsampling), C_2 to the one before; without FCM there are none.
        With keys, the FCMs drop out as in training. `detail` is that of `complemented`.
        """
        config, variant, features = self.config, VARIANTS[self.config.variant], []
        x = x.astype(self.dtype)
        for level in range(len(config.generator_widths) - 1, 0, -1):
            width = config.generator_widths[-level]
            up = Upsample(width, 3, variant.up_center, dtype=self.dtype, name=f"up{level}")
            x, size = up(x, size), grown(size, 2)
            x = nn.relu(ChannelNorm(name=f"norm{level}")(x))
            if config.fcm_width and level <= 2:
                c, x = complemented(config, level, x, size, keys, detail)
                features.insert(0, c)
        conv = functools.partial(Conv, mode=variant.edges, dtype=self.dtype)
        image = conv(3, 7, kernel_init=last_kernel(config), name="conv_out")(x, size)
        return ops.at_least_float32(image), tuple(features)


class Trunk(nn.Module):
    """Stage of the generator at the latents' size: a head, and residual blocks around it.

    `companded` is True for latents whose size has a meaning, such as coefficients of a transform.
    They enter through arcsinh, since the ChannelNorm of HiFiC divides their size away.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")
    companded: bool = False

    @nn.compact
    def __call__(self, y_hat: Latents, size: Size | None = None) -> LatentFeatures:
        edges, width = VARIANTS[self.config.variant].edges, self.config.generator_widths[0]
        conv = functools.partial(Conv, width, 3, mode=edges, dtype=self.dtype, name="conv_head")
        if self.companded:
            # The biases are for the norm below, as those of the encoder's first convolution are.
            biased = conv(bias_init=nn.initializers.normal(0.5))
            x = biased(jnp.arcsinh(y_hat).astype(self.dtype), size)
        else:
            x = conv()(ChannelNorm(name="norm_in")(y_hat.astype(self.dtype)), size)
        x = head = ChannelNorm(name="norm_head")(x)
        for block in range(self.config.residual_blocks):
            x = ResidualBlock(edges, dtype=self.dtype, name=f"block{block}")(x, size)
        return x + head
