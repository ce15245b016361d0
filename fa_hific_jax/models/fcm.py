"""Frequency complement modules (FCM), which add detail to a level of the generator.

FA-VAE (Lin et al., CVPR 2023; oppo-us-research/FA-VAE) introduced them. The FA-HiFiC authors put
one after each of the two finest upsamplings of HiFiC. A module of any kind is called
`module(b, size, keys)` with the features B_i of a level. It returns C_i, which the dynamic spectrum
loss compares with the encoder, and the features with which the generator goes on. With keys it
drops out as in training.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fa_hific_jax import ops
from fa_hific_jax.fidelity.authors import PositionNorm
from fa_hific_jax.models.layers import GLOROT, ChannelNorm, Conv, Features, PerImage, Size
from fa_hific_jax.models.random import Keys, drop, fold_in, split
from fa_hific_jax.settings.model import ModelConfig

LOCAL_KINDS = ("hific",)
"""Kinds whose output depends on nearby pixels alone, so that tiles decode like the whole image.

GroupNorm and the legacy norm take statistics of the whole image, and attention looks at all of it.
"""

Tokens = Float[Array, "b n heads d"]

_ZEROS = nn.initializers.zeros
_FLOAT32 = jnp.dtype("float32")
# Attention weights that are held at once, at 4 bytes each.
_SCORES = 2**26


def frequency_complement(
    kind: str,
    level: int,
    width: int,
    dropout: float = 0.0,
    dtype: jnp.dtype = _FLOAT32,
    name: str | None = None,
) -> nn.Module:
    """Returns the module of a kind in FCM_KINDS for level 1, the generator's finest, or level 2.

    Every kind but "legacy" begins as the identity, so a generator that is warm-started from HiFiC
    begins as that HiFiC. "attention" has the residual module at level 1, as FA-VAE has at its
    finest level. `width` is the number of channels inside, `dropout` the share of the activations
    that is set to zero in training.
    """
    if kind == "hific":
        return NormReluConv(width, dropout, dtype, name=name)
    if kind == "legacy":
        return NormReluConv(width, dropout, dtype, PositionNorm, GLOROT, name=name)
    if kind == "attention" and level > 1:
        return Attention(width, dropout, dtype, name=name)
    return GroupNormConv(width, dropout, dtype, kind != "conv", name=name)


def complemented(
    config: ModelConfig,
    level: int,
    b: Features,
    size: Size | None = None,
    keys: Keys | None = None,
    detail: PerImage | None = None,
) -> tuple[Features, Features]:
    """Returns C_i, and B + detail (F - B), where the module of the level returns F for features B.

    Call it in a compact method: the module becomes a submodule named "fcm1" or "fcm2". It computes
    in the dtype of b. `detail` is a share in [0, 1] for each image, None for 1.
    """
    module: Any = frequency_complement(
        config.fcm, level, config.fcm_width, config.fcm_dropout, b.dtype, f"fcm{level}"
    )
    c, full = module(b, size, None if keys is None else fold_in(keys, level))
    if detail is None:
        return c, full
    return c, b + detail.astype(b.dtype)[:, None, None, None] * (full - b)


def scaled(params: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Returns the parameters of a module that adds `share` times as much.

    These are the module's own parameters with those of its last layer multiplied.
    """
    last = "conv2" if "conv2" in params else "norm1" if "dense1" in params else "conv1"
    return dict(params) | {last: jax.tree.map(lambda leaf: leaf * share, params[last])}


class NormReluConv(nn.Module):
    """C = three times norm, ReLU, dropout, 3x3 convolution; the generator goes on with B + C.

    The FA-HiFiC authors normalize over height and width (`PositionNorm`), which ties the network to
    images of 256x256 and lets every pixel see the whole image. By default ChannelNorm takes its
    place, so that images of any size can be decoded, also in tiles. The authors have width 64 and
    dropout 0.5.
    """

    width: int
    dropout: float
    dtype: jnp.dtype
    norm: type[nn.Module] = ChannelNorm
    last_init: nn.initializers.Initializer = _ZEROS

    @nn.compact
    def __call__(
        self, b: Features, size: Size | None = None, keys: Keys | None = None
    ) -> tuple[Features, Features]:
        c = b
        inits = (GLOROT, GLOROT, self.last_init)
        for i, layer_keys in enumerate([None] * 3 if keys is None else split(keys, 3)):
            c = drop(nn.relu(self.norm(name=f"norm{i}")(c)), self.dropout, layer_keys)
            width = self.width if i < 2 else b.shape[-1]
            c = _conv(width, inits[i], self.dtype, f"conv{i}")(c, size)
        return c, b + c


class GroupNormConv(nn.Module):
    """F(B) = GroupNorm, SiLU, 3x3 convolution, GroupNorm, SiLU, dropout, 3x3 convolution.

    FA-VAE's convolutional module has C = F(B) and continues with B + C. Its residual module has
    C = B + F(B) and continues with C. They differ only in the C that the loss compares. FA-VAE has
    as many channels inside as outside, and dropout 0, or 0.1 next to attention.
    """

    width: int
    dropout: float
    dtype: jnp.dtype
    residual: bool

    @nn.compact
    def __call__(
        self, b: Features, size: Size | None = None, keys: Keys | None = None
    ) -> tuple[Features, Features]:
        x = nn.silu(GroupNorm(name="norm0")(b, size))
        x = _conv(self.width, GLOROT, self.dtype, "conv0")(x, size)
        x = drop(nn.silu(GroupNorm(name="norm1")(x, size)), self.dropout, keys)
        c = _conv(b.shape[-1], _ZEROS, self.dtype, "conv1")(x, size)
        return (b + c, b + c) if self.residual else (c, b + c)


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


class GroupNorm(nn.Module):
    """Normalization of groups of channels over all positions of an image, with gain and offset.

    There are 32 groups as in FA-VAE, or the largest number below that divides the channels (30 of
    60 and of 120). Computed in float32 and returned in the dtype of the input.
    """

    @nn.compact
    def __call__(self, x: Features, size: Size | None = None) -> Features:
        batch, height, width, channels = x.shape
        grouped = x.reshape(batch, height, width, largest_divisor(channels, 32), -1)
        where = None if size is None else inside(height, width, size)[None, :, :, None, None]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", _ZEROS, (channels,))
        normalized = ops.normalized(grouped, (1, 2, 4), where).reshape(x.shape)
        return (normalized * scale[None, None, None] + bias[None, None, None]).astype(x.dtype)


def inside(height: int, width: int, size: Size) -> Bool[Array, "height width"]:
    """Returns True where an array of this height and width lies within the true size."""
    return (jnp.arange(height) < size[0])[:, None] & (jnp.arange(width) < size[1])[None]


def largest_divisor(channels: int, most: int) -> int:
    """Returns the largest divisor of `channels` up to `most`."""
    return max(n for n in range(1, most + 1) if channels % n == 0)


def _conv(width: int, init: nn.initializers.Initializer, dtype: jnp.dtype, name: str) -> Conv:
    return Conv(width, 3, mode="constant", kernel_init=init, dtype=dtype, name=name)


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
