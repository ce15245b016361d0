"""Encoder and generator whose finest level has a quarter of the image's height and width.

The pixels of each 4x4 block are the channels of one position. Levels of HiFiC that are narrow
enough for a CPU run at a third of the speed of such wide ones at low resolution; DCVC-RT (Jia et
al., CVPR 2025) works at low resolution alone for the same reason. Three values in
`model.encoder_widths` and `model.generator_widths` choose these networks. They belong to none of
the implementations of `model.variant`, of which they take the hyperprior alone.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from fa_hific_jax import ops
from fa_hific_jax.models.fcm import complemented
from fa_hific_jax.models.layers import (
    Conv,
    FeatureMaps,
    Features,
    Images,
    LatentFeatures,
    Latents,
    PerImage,
    Size,
    Upsample,
    fold,
    grown,
    last_kernel,
    shrunk,
    unfold,
)
from fa_hific_jax.models.random import Keys
from fa_hific_jax.settings.model import ModelConfig

FOLD = 4  # side of the folded blocks in pixels
ENCODER_BLOCKS = (1, 2, 1)  # residual blocks of each level, finest first
GENERATOR_BLOCKS = {2: 2, 1: 3}  # after the upsamplings to 1/8 (level 2) and to 1/4 (level 1)


class FoldedEncoder(nn.Module):
    """Image to latents y through levels of 1/4, 1/8 and 1/16 of its height and width."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Images, size: Size | None = None) -> tuple[Latents, FeatureMaps]:
        """Returns y and the features A_1, A_2 of the two finest levels, like `Encoder`."""
        conv = functools.partial(Conv, dtype=self.dtype)
        x, size, features = fold((x - 0.5).astype(self.dtype), FOLD), shrunk(size, FOLD), []
        for level, width in enumerate(self.config.encoder_widths):
            if level == 0:
                x = conv(width, 3, name="conv0")(x, size)
            else:
                down = conv(width, 3, stride=2, padding=((1, 0), (1, 0)), name=f"conv{level}")
                x, size = down(x, size), shrunk(size, 2)
            x = _blocks(nn.relu(x), ENCODER_BLOCKS[level], f"level{level}_block", size, self.dtype)
            features.append(x)
        init = last_kernel(self.config)
        last = conv(self.config.latent_channels, 3, kernel_init=init, name="conv_out")
        return ops.at_least_float32(last(x, size)), tuple(features[:2])


class FoldedGenerator(nn.Module):
    """Quantized latents to image through levels of 1/16, 1/8 and 1/4 of its height and width.

    At 1/4 it sees the picture that a linear synthesis makes of the same latents, and so can take
    away what rings in it. Like `Generator` it has two stages, and an FCM after each of the two
    finest levels.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self):
        self.trunk = FoldedTrunk(self.config, self.dtype)
        nn.share_scope(self, self.trunk)

    @nn.compact
    def upsample(
        self,
        x: LatentFeatures,
        size: Size | None = None,
        keys: Keys | None = None,
        detail: PerImage | None = None,
        picture: Images | None = None,
    ) -> tuple[Images, FeatureMaps]:
        """Returns what is added to `picture`, or the image without one, and C_1, C_2.

        The other arguments are those of `Generator.upsample`.
        """
        conv = functools.partial(Conv, dtype=self.dtype)
        x, features = x.astype(self.dtype), []
        for level, width in zip((2, 1), self.config.generator_widths[1:], strict=True):
            up = Upsample(width, 3, dtype=self.dtype, name=f"up{level}")
            x, size = up(x, size), grown(size, 2)
            if level == 1 and picture is not None:
                seen = fold((picture - 0.5).astype(self.dtype), FOLD)
                x = x + conv(width, 3, name="conv_picture")(seen, size)
            count, name = GENERATOR_BLOCKS[level], f"level{level}_block"
            x = _blocks(nn.relu(x), count, name, size, self.dtype)
            if self.config.fcm_width:
                c, x = complemented(self.config, level, x, size, keys, detail)
                features.insert(0, c)
        last = conv(3 * FOLD**2, 3, kernel_init=last_kernel(self.config), name="conv_out")
        image = unfold(ops.at_least_float32(last(x, size)), FOLD)
        return image, tuple(features)


class FoldedTrunk(nn.Module):
    """Stage of the generator at the latents' size."""

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, y_hat: Latents, size: Size | None = None) -> LatentFeatures:
        head = Conv(self.config.generator_widths[0], 3, dtype=self.dtype, name="conv_head")
        # Coefficients of a transform differ by orders of magnitude.
        x = nn.relu(head(jnp.arcsinh(y_hat).astype(self.dtype), size))
        return _blocks(x, self.config.residual_blocks, "block", size, self.dtype)


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


def _blocks(x: Features, count: int, name: str, size: Size | None, dtype: jnp.dtype) -> Features:
    for block in range(count):
        x = Block(dtype, name=f"{name}{block}")(x, size)
    return x
