"""The FCM of FA-VAE with attention over all positions."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fa_hific_jax import ops
from fa_hific_jax.models.fcm.group_norm_conv import GroupNorm, inside, largest_divisor
from fa_hific_jax.models.layers import GLOROT, Features, Size
from fa_hific_jax.models.random import Keys, drop, split

Tokens = Float[Array, "b n heads d"]

_ZEROS = nn.initializers.zeros
# Attention weights that are held at once, at 4 bytes each.
_SCORES = 2**26


class Attention(nn.Module):
    """C = GroupNorm and one transformer encoder layer over all positions; continues with B + C.

    The layer is PyTorch's TransformerEncoderLayer as FA-VAE uses it: at most 8 heads (the largest
    number that divides the channels), a norm after each sum, ReLU, `width` hidden channels (FA-VAE:
    2048), and no position encoding. In FA-VAE its output replaces B, and attention weights drop out
    too, which would take one random number for each pair of positions.

    FA-VAE applies it at the latents' size, with 256 positions for an image of 256x256; at half the
    image's size there are 16384. Queries are processed in groups, so memory grows linearly with
    the number of positions, and time with its square: an image of 256x256 takes about 15 seconds on
    two CPU cores, one of 768x512 takes 36 times as long.
    """

    width: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, b: Features, size: Size | None = None, keys: Keys | None = None
    ) -> tuple[Features, Features]:
        batch, height, width, channels = b.shape
        dense = functools.partial(nn.Dense, kernel_init=GLOROT, dtype=self.dtype)
        key0, key1, key2 = [None] * 3 if keys is None else split(keys, 3)
        x = GroupNorm(name="norm_in")(b, size).reshape(batch, -1, channels)
        heads = largest_divisor(channels, 8)
        split_up = (batch, -1, heads, channels // heads)
        projected = (dense(channels, name=name)(x) for name in ("query", "key", "value"))
        q, k, v = (ops.at_least_float32(each).reshape(split_up) for each in projected)
        within = None if size is None else inside(height, width, size).ravel()
        attended = dense(channels, name="out")(_attend(q, k, v, within).reshape(x.shape))
        x = TokenNorm(name="norm0")(x + drop(attended, self.dropout, key0))
        hidden = drop(nn.relu(dense(self.width, name="dense0")(x)), self.dropout, key1)
        hidden = drop(dense(channels, name="dense1")(hidden), self.dropout, key2)
        c = TokenNorm(_ZEROS, name="norm1")(x + hidden).reshape(b.shape).astype(b.dtype)
        return c, b + c


class TokenNorm(nn.Module):
    """LayerNorm: normalizes each position over its channels, then applies gain and offset."""

    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        scale = self.param("scale", self.scale_init, (x.shape[-1],))
        bias = self.param("bias", _ZEROS, (x.shape[-1],))
        normalized = ops.normalized(x, (-1,))
        return (normalized * scale[None, None] + bias[None, None]).astype(x.dtype)


def _attend(
    queries: Tokens, keys: Tokens, values: Tokens, within: Bool[Array, " n"] | None
) -> Tokens:
    """Returns softmax(q k / sqrt(d)) v for each query and head, over the keys inside the image."""
    batch, n, heads, d = queries.shape

    def answer(query: Float[Array, "b heads d"]) -> Float[Array, "b heads d"]:
        scores = jnp.einsum("bhd,bnhd->bhn", query / math.sqrt(d), keys)
        if within is not None:
            scores = jnp.where(within[None, None], scores, -jnp.inf)
        return jnp.einsum("bhn,bnhd->bhd", nn.softmax(scores), values)

    at_once = min(n, max(1, _SCORES // (batch * heads * n)))
    # The backward pass computes the weights again instead of storing them.
    answers = jax.lax.map(jax.checkpoint(answer), queries.swapaxes(0, 1), batch_size=at_once)
    return answers.swapaxes(0, 1)
