"""Encoder of 4x4 pixels folded into channels."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.models.folded.layers import FOLD, Block, fold
from fa_hific_jax.models.layers import Conv, Size, halved

BLOCKS = (1, 2, 1)
"""Residual blocks of each level, finest first."""


class FoldedEncoder(nn.Module):
    """Image to latents y through levels of 1/4, 1/8 and 1/16 of its height and width.

    Attributes:
      widths: channels of the three levels, finest first.
      latent_channels: channels of y.
      dtype: data type of the convolutions.
      last_init: initializer of the last kernel.
    """

    widths: tuple[int, ...]
    latent_channels: int
    dtype: jnp.dtype = jnp.dtype("float32")
    last_init: nn.initializers.Initializer = nn.initializers.glorot_uniform()

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], size: Size | None = None
    ) -> tuple[Float[Array, "b hy wy cy"], tuple[Float[Array, "b _ _ _"], ...]]:
        """Returns y, float32, of images whose sides are multiples of 16, and features A_1, A_2.

        A_1 and A_2 are the outputs of the two finest levels, which the dynamic spectrum loss
        compares with the generator's FCM features of the same size.
        """
        conv = functools.partial(Conv, dtype=self.dtype)
        x, size = fold((x - 0.5).astype(self.dtype)), _folded(size)
        features = []
        for level, width in enumerate(self.widths):
            if level:
                down = conv(width, 3, stride=2, padding=((1, 0), (1, 0)), name=f"conv{level}")
                x, size = down(x, size), halved(size)
            else:
                x = conv(width, 3, name="conv0")(x, size)
            x = nn.relu(x)
            for block in range(BLOCKS[level]):
                x = Block(self.dtype, name=f"level{level}_block{block}")(x, size)
            features.append(x)
        last = conv(self.latent_channels, 3, kernel_init=self.last_init, name="conv_out")
        return ops.at_least_float32(last(x, size)), tuple(features[:2])


def _folded(size: Size | None) -> Size | None:
    return None if size is None else (size[0] // FOLD, size[1] // FOLD)
