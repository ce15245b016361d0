"""Generator: quantised latents to image."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.models.fcm import Key, frequency_complement
from fa_hific_jax.models.layers import (
    UP_3X3,
    ChannelNorm,
    Conv,
    ResidualBlock,
    Size,
    Upsample,
    doubled,
    edge_mode,
)
from fa_hific_jax.models.linear_path import VALUES, BlockSynthesis, image_of


class Trunk(nn.Module):
    """What the generator does at the latents' size: a head, and residual blocks around it.

    It sees far and is cheap per pixel; the rest of the generator is the other way round.
    """

    width: int
    residual_blocks: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")
    linear_path: str = "none"

    @nn.compact
    def __call__(
        self, y_hat: Float[Array, "b hy wy cy"], size: Size | None = None
    ) -> Float[Array, "b hy wy f"]:
        linear = None
        if self.linear_path != "none":
            linear = BlockSynthesis(name="linear")(y_hat)
            if self.linear_path == "alone":
                return linear
        conv = functools.partial(Conv, mode=edge_mode(self.variant), dtype=self.dtype)
        if linear is None:
            head = ChannelNorm(name="norm_in")(y_hat.astype(self.dtype))
            head = conv(self.width, 3, name="conv_head")(head, size)
        else:
            # How large coefficients are says how coarse they are, which ChannelNorm divides away;
            # but the mean of a block is a hundred times the others, and the biases are for the
            # norm below as they are in the encoder.
            head = jnp.arcsinh(y_hat).astype(self.dtype)
            bias = nn.initializers.normal(0.5)
            head = conv(self.width, 3, bias_init=bias, name="conv_head")(head, size)
        head = ChannelNorm(name="norm_head")(head)
        x = head
        for block in range(self.residual_blocks):
            x = ResidualBlock(self.variant, dtype=self.dtype, name=f"block{block}")(x, size)
        x = x + head
        if linear is None:
            return x
        return jnp.concatenate([ops.at_least_float32(x), linear], axis=-1)


class Generator(nn.Module):
    """G of HiFiC (Mentzer et al. 2020, fig. 2), with FCM after the two finest upsamplings.

    Attributes:
      widths: channels of the head and of the four upsamplings (paper: 960, 480, 240, 120, 60).
      residual_blocks: blocks at the latents' size (paper: 9).
      fcm_width: channels inside each FCM, or 0 for the plain generator of HiFiC.
      variant: "pytorch" or "tensorflow", which pad and upsample differently.
      dtype: in which convolutions are computed.
      fcm: kind of the FCMs, one of settings.model.FCM_KINDS.
      fcm_dropout: share of their activations that is zeroed in training.
      linear_path: "beside" for a linear transform of y_hat that is added to the image (and is all
        of it before training), "alone" for nothing else, "none" for none.
    """

    widths: tuple[int, ...]
    residual_blocks: int
    fcm_width: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")
    fcm: str = "hific"
    fcm_dropout: float = 0.0
    linear_path: str = "none"

    def setup(self):
        self.trunk = Trunk(
            self.widths[0], self.residual_blocks, self.variant, self.dtype, self.linear_path
        )
        nn.share_scope(self, self.trunk)

    def __call__(
        self,
        y_hat: Float[Array, "b hy wy cy"],
        size: Size | None = None,
        key: Key | None = None,
        detail: Float[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b h w 3"], tuple[Float[Array, "b _ _ _"], ...]]:
        """The image, 16 times as large, nominally in [0, 1] but not clipped, and C_1, C_2.

        C_1 belongs to the finest level (the last upsampling), C_2 to the one before; both are
        empty without FCM. With a key, the FCMs drop out as in training. `detail` in [0, 1] says
        how much of what they add is added: B + detail (F - B), F being what the generator goes on
        with at full detail (B + C but for FA-VAE's residual kind).
        """
        return self.enlarge(self.trunk(y_hat, size), size, key, detail)

    @nn.compact
    def enlarge(
        self,
        x: Float[Array, "b hy wy f"],
        size: Size | None = None,
        key: Key | None = None,
        detail: Float[Array, " b"] | None = None,
    ) -> tuple[Float[Array, "b h w 3"], tuple[Float[Array, "b _ _ _"], ...]]:
        """As `__call__`, of what the trunk made of y_hat."""
        conv = functools.partial(Conv, mode=edge_mode(self.variant), dtype=self.dtype)
        linear = None
        if self.linear_path != "none":
            x, linear = x[..., :-VALUES], image_of(x[..., -VALUES:], size)
            if self.linear_path == "alone":
                return linear, ()
        x = x.astype(self.dtype)
        features = []
        for level in reversed(range(1, len(self.widths))):
            centre = UP_3X3[self.variant]
            up = Upsample(self.widths[-level], 3, centre, dtype=self.dtype, name=f"up{level}")
            x, size = up(x, size), doubled(size)
            x = nn.relu(ChannelNorm(name=f"norm{level}")(x))
            if self.fcm_width and level <= 2:
                complement = frequency_complement(
                    self.fcm, level, self.fcm_width, self.fcm_dropout, self.dtype, f"fcm{level}"
                )
                level_key = None if key is None else jax.random.fold_in(key, level)
                b, (c, x) = x, complement(x, size, level_key)
                if detail is not None:
                    x = b + detail.astype(x.dtype)[:, None, None, None] * (x - b)
                features.insert(0, c)
        if linear is None:
            image = ops.at_least_float32(conv(3, 7, name="conv_out")(x, size))
        else:
            image = conv(3, 7, kernel_init=nn.initializers.zeros, name="conv_out")(x, size)
            image = ops.at_least_float32(image) + linear
        return image, tuple(features)
