"""Generator of 4x4 pixels folded into channels, which can refine a picture."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.models.fcm import complemented
from fa_hific_jax.models.folded.layers import FOLD, Block, fold, unfold
from fa_hific_jax.models.layers import Conv, Size, Upsample, doubled
from fa_hific_jax.models.random import Keys

BLOCKS = {2: 2, 1: 3}
"""Residual blocks after the upsamplings to 1/8 (level 2) and to 1/4 (level 1)."""


class FoldedGenerator(nn.Module):
    """Quantized latents to image through levels of 1/16, 1/8 and 1/4 of its height and width.

    At 1/4 it sees the picture that a linear synthesis makes of the same latents, and so can take
    away what rings in it. Like HiFiC's generator it has two stages, `trunk` and `upsample`, and an
    FCM after each of the two finest levels.

    Attributes:
      widths: channels at 1/16, 1/8 and 1/4.
      residual_blocks: blocks at 1/16.
      dtype: data type of the convolutions.
      fcm: kind, channels and dropout of the FCMs as `frequency_complement` takes them, or None.
      last_init: initializer of the last kernel.
    """

    widths: tuple[int, ...]
    residual_blocks: int
    dtype: jnp.dtype = jnp.dtype("float32")
    fcm: tuple[str, int, float] | None = None
    last_init: nn.initializers.Initializer = nn.initializers.glorot_uniform()

    def setup(self):
        self.trunk = FoldedTrunk(self.widths[0], self.residual_blocks, self.dtype)
        nn.share_scope(self, self.trunk)

    @nn.compact
    def upsample(
        self,
        x: Float[Array, "b hy wy f"],
        picture: Float[Array, "b h w 3"] | None = None,
        size: Size | None = None,
        keys: Keys | None = None,
        detail: Float[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b h w 3"], tuple[Float[Array, "b _ _ _"], ...]]:
        """Returns what is to be added to `picture`, float32, and C_1, C_2.

        x are the features of the trunk; without a picture the image itself is returned. Size, keys
        and detail are those of HiFiC's `Generator.__call__`.
        """
        x, features = x.astype(self.dtype), []
        for level, width in zip((2, 1), self.widths[1:], strict=True):
            up = Upsample(width, 3, dtype=self.dtype, name=f"up{level}")
            x, size = up(x, size), doubled(size)
            if level == 1 and picture is not None:
                seen = fold((picture - 0.5).astype(self.dtype))
                x = x + Conv(width, 3, dtype=self.dtype, name="conv_picture")(seen, size)
            x = nn.relu(x)
            for block in range(BLOCKS[level]):
                x = Block(self.dtype, name=f"level{level}_block{block}")(x, size)
            if self.fcm is not None:
                c, x = complemented(self.fcm, level, x, size, keys, detail)
                features.insert(0, c)
        conv = functools.partial(Conv, dtype=self.dtype)
        last = conv(3 * FOLD**2, 3, kernel_init=self.last_init, name="conv_out")
        return unfold(ops.at_least_float32(last(x, size))), tuple(features)


class FoldedTrunk(nn.Module):
    """Stage of the generator at the latents' size.

    Attributes:
      width: channels.
      residual_blocks: number of blocks.
      dtype: data type of the convolutions.
    """

    width: int
    residual_blocks: int
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(
        self, y_hat: Float[Array, "b hy wy cy"], size: Size | None = None
    ) -> Float[Array, "b hy wy f"]:
        # Coefficients of a transform differ by orders of magnitude.
        x = jnp.arcsinh(y_hat).astype(self.dtype)
        x = nn.relu(Conv(self.width, 3, dtype=self.dtype, name="conv_head")(x, size))
        for block in range(self.residual_blocks):
            x = Block(self.dtype, name=f"block{block}")(x, size)
        return x
