"""Frequency Complement Modules: the detail that a generator level adds to itself.

FA-VAE (Lin et al., CVPR 2023; oppo-us-research/FA-VAE) introduced them; the FA-HiFiC authors put
one after each of the two finest upsamplings of HiFiC. All kinds are called `module(b, size, key)`
with the features B_i of a level and return C_i, which the dynamic spectrum loss compares with the
encoder, and the features with which the generator goes on. They drop out only where given a key, as
in training.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, UInt32

from fa_hific_jax import ops
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.layers import ChannelNorm, Conv, Features, Size
from fa_hific_jax.settings.model import LEGACY_SIDE

LOCAL_KINDS = ("hific",)
"""Kinds whose output depends on nearby pixels alone: a tile gives what the whole image gives there.

GroupNorm and the legacy norm take statistics of the whole image, and attention looks at all of it.
"""

Key = PRNGKeyArray | UInt32[Array, "2"]
Tokens = Float[Array, "b n heads d"]

_FLOAT32 = jnp.dtype("float32")
_random = nn.initializers.glorot_uniform()
_conv = functools.partial(Conv, kernel=3, mode="constant")
# Attention weights held at once, at 4 bytes each.
_SCORES = 2**26


def frequency_complement(
    kind: str,
    level: int,
    width: int,
    dropout: float = 0.0,
    dtype: jnp.dtype = _FLOAT32,
    name: str | None = None,
) -> nn.Module:
    """The module of a kind for level 1 (the image's size) or 2 (half of it).

    "hific" and "legacy" are `NormReluConv`, "conv" and "residual" `GroupNormConv`; "attention" is
    `Attention` at level 2 and, as at FA-VAE's finest level, the residual module at level 1. But for
    "legacy" each begins as the identity: a generator that is warm-started from HiFiC then begins as
    that HiFiC.

    Args:
      kind: one of settings.model.FCM_KINDS.
      level: 1 or 2.
      width: channels inside the module.
      dropout: share of the activations that is zeroed in training.
      dtype: in which convolutions and products are computed.
      name: of the module in its parent.
    """
    if kind in ("hific", "legacy"):
        return NormReluConv(width, kind == "legacy", dropout, dtype, name=name)
    if kind == "attention" and level > 1:
        return Attention(width, dropout, dtype, name=name)
    return GroupNormConv(width, kind != "conv", dropout, dtype, name=name)


def scaled(params: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Parameters of a module that adds `share` times as much: those of its last layer scaled."""
    last = next(name for name in ("conv2", "norm1", "conv1") if _ends_with(params, name))
    return dict(params) | {last: jax.tree.map(lambda leaf: leaf * share, params[last])}


def _ends_with(params: Mapping[str, Any], layer: str) -> bool:
    # conv1 of GroupNormConv follows its norm1, norm1 of Attention its dense1.
    return layer in params and (layer != "norm1" or "dense1" in params)


class NormReluConv(nn.Module):
    """C = three times norm, ReLU, dropout, 3x3 convolution; the generator goes on with B + C.

    The FA-HiFiC authors' module (legacy) normalises with `PositionNorm`, which fixes the image at
    256x256 and lets every pixel see the whole image. By default ChannelNorm takes its place, so
    that any size can be decoded, in tiles too.

    Attributes:
      width: channels inside (authors: 64).
      legacy: the authors' norm, and a last convolution that begins at random as theirs.
      dropout: share zeroed in training (authors: 0.5).
      dtype: in which convolutions are computed.
    """

    width: int
    legacy: bool = False
    dropout: float = 0.0
    dtype: jnp.dtype = _FLOAT32

    @nn.compact
    def __call__(
        self, b: Features, size: Size | None = None, key: Key | None = None
    ) -> tuple[Features, Features]:
        norm = PositionNorm if self.legacy else ChannelNorm
        widths = (self.width, self.width, b.shape[-1])
        c = b
        for layer, (width, layer_key) in enumerate(zip(widths, _split(key), strict=True)):
            c = _drop(nn.relu(norm(name=f"norm{layer}")(c)), self.dropout, layer_key)
            begins = _random if self.legacy or layer < 2 else nn.initializers.zeros
            c = _conv(width, kernel_init=begins, dtype=self.dtype, name=f"conv{layer}")(c, size)
        return c, b + c


class GroupNormConv(nn.Module):
    """F(B) = GroupNorm, SiLU, 3x3 convolution, GroupNorm, SiLU, dropout, 3x3 convolution.

    FA-VAE's convolutional module has C = F(B) and goes on with B + C, its residual one has
    C = B + F(B) and goes on with C: they differ in what the loss compares. FA-VAE has as many
    channels inside as outside.

    Attributes:
      width: channels inside.
      residual: C = B + F(B).
      dropout: share zeroed in training (FA-VAE: 0, beside attention 0.1).
      dtype: in which convolutions are computed.
    """

    width: int
    residual: bool
    dropout: float = 0.0
    dtype: jnp.dtype = _FLOAT32

    @nn.compact
    def __call__(
        self, b: Features, size: Size | None = None, key: Key | None = None
    ) -> tuple[Features, Features]:
        x = nn.silu(GroupNorm(name="norm0")(b, size))
        x = _conv(self.width, dtype=self.dtype, name="conv0")(x, size)
        x = _drop(nn.silu(GroupNorm(name="norm1")(x, size)), self.dropout, key)
        zeros = nn.initializers.zeros
        c = _conv(b.shape[-1], kernel_init=zeros, dtype=self.dtype, name="conv1")(x, size)
        return (b + c, b + c) if self.residual else (c, b + c)


class Attention(nn.Module):
    """C = GroupNorm, then one transformer encoder layer over all positions; goes on with B + C.

    The layer is PyTorch's TransformerEncoderLayer as FA-VAE uses it: up to 8 heads (the most that
    divide the channels), norms after each sum, ReLU, no code of position. Its output takes the
    place of B in FA-VAE; it is added here, from a last gain of zero, for the sake of warm starts.
    FA-VAE also drops out attention weights, which would take a random number for each pair of
    positions.

    FA-VAE has it at the latents' size, 256 positions of a 256x256 image; at half the image's size
    there are 16384, and 98304 of a 768x512 one. Queries are taken a few at a time, so memory grows
    with the number of positions, but time with its square: 256x256 takes some 15 seconds on two CPU
    cores, 768x512 takes 36 times as long.

    Attributes:
      width: of the hidden layer (FA-VAE: 2048).
      dropout: share zeroed in training (FA-VAE: 0.1).
      dtype: of the products with weights.
    """

    width: int
    dropout: float = 0.0
    dtype: jnp.dtype = _FLOAT32

    @nn.compact
    def __call__(
        self, b: Features, size: Size | None = None, key: Key | None = None
    ) -> tuple[Features, Features]:
        batch, height, width, channels = b.shape
        dense = functools.partial(nn.Dense, kernel_init=_random, dtype=self.dtype)
        key0, key1, key2 = _split(key)

        x = GroupNorm(name="norm_in")(b, size).reshape(batch, -1, channels)
        heads = _largest_divisor(channels, 8)
        queries, keys, values = (
            ops.at_least_float32(dense(channels, name=name)(x)).reshape(
                batch, -1, heads, channels // heads
            )
            for name in ("query", "key", "value")
        )
        inside = None if size is None else _inside(height, width, size).ravel()
        attended = _attend(queries, keys, values, inside).reshape(x.shape)
        attended = dense(channels, name="out")(attended)
        x = TokenNorm(name="norm0")(x + _drop(attended, self.dropout, key0))
        hidden = _drop(nn.relu(dense(self.width, name="dense0")(x)), self.dropout, key1)
        hidden = dense(channels, name="dense1")(hidden)
        last = TokenNorm(nn.initializers.zeros, name="norm1")
        c = last(x + _drop(hidden, self.dropout, key2)).reshape(b.shape).astype(b.dtype)
        return c, b + c


class GroupNorm(nn.Module):
    """Groups of channels, each normalised over all positions of an image, then gain and offset.

    32 groups as in FA-VAE, or the most below that divide the channels (30 of 60 and of 120).
    Computed in float32, returned in the dtype of its input.
    """

    @nn.compact
    def __call__(self, x: Features, size: Size | None = None) -> Features:
        batch, height, width, channels = x.shape
        grouped = x.reshape(batch, height, width, _largest_divisor(channels, 32), -1)
        inside = None if size is None else _inside(height, width, size)[None, :, :, None, None]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        normalised = _normalised(grouped, (1, 2, 4), inside).reshape(x.shape)
        return (normalised * scale[None, None, None] + bias[None, None, None]).astype(x.dtype)


class TokenNorm(nn.Module):
    """LayerNorm: each position normalised over its channels, then gain and offset."""

    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        scale = self.param("scale", self.scale_init, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        normalised = _normalised(x, (-1,))
        return (normalised * scale[None, None] + bias[None, None]).astype(x.dtype)


class PositionNorm(nn.Module):
    """Each channel normalised over all positions, with a gain and an offset for each position.

    LayerNorm over (height, width) of the FA-HiFiC authors. Its parameters, scale and bias, have the
    size of the first features it sees and fit no other.

    Raises:
      UserError: x is of another size.
    """

    @nn.compact
    def __call__(self, x: Features) -> Features:
        height, width = x.shape[1:3]
        if self.has_variable("params", "scale"):
            rows, columns = self.get_variable("params", "scale").shape
            if (rows, columns) != (height, width):
                raise UserError(
                    f"the legacy FCM takes features of {rows} x {columns}, not {height} x {width}: "
                    f"give images of {LEGACY_SIDE} x {LEGACY_SIDE} pixels or choose another "
                    "model.fcm"
                )
        scale = self.param("scale", nn.initializers.ones, (height, width))
        bias = self.param("bias", nn.initializers.zeros, (height, width))
        normalised = _normalised(x, (1, 2))
        return (normalised * scale[None, :, :, None] + bias[None, :, :, None]).astype(x.dtype)


def _normalised(x: Array, axes: tuple[int, ...], inside: Array | None = None) -> Array:
    """(x - mean) / sqrt(biased variance + 1e-5), both over the axes, where inside."""
    x = ops.at_least_float32(x)
    centred = x - jnp.mean(x, axes, keepdims=True, where=inside)
    variance = jnp.mean(jnp.square(centred), axes, keepdims=True, where=inside)
    return centred * jax.lax.rsqrt(variance + 1e-5)


def _attend(
    queries: Tokens, keys: Tokens, values: Tokens, inside: Bool[Array, " n"] | None
) -> Tokens:
    """softmax(q k / sqrt(d)) v for each query and head, over the keys that lie inside."""
    batch, n, heads, d = queries.shape

    def answer(query: Float[Array, "b heads d"]) -> Float[Array, "b heads d"]:
        scores = jnp.einsum("bhd,bnhd->bhn", query / math.sqrt(d), keys)
        if inside is not None:
            scores = jnp.where(inside[None, None], scores, -jnp.inf)
        return jnp.einsum("bhn,bnhd->bhd", nn.softmax(scores), values)

    at_once = min(n, max(1, _SCORES // (batch * heads * n)))
    # Backwards, the weights are computed again rather than kept.
    answers = jax.lax.map(jax.checkpoint(answer), queries.swapaxes(0, 1), batch_size=at_once)
    return answers.swapaxes(0, 1)


def _inside(height: int, width: int, size: Size) -> Bool[Array, "height width"]:
    """Where an array lies within the true size."""
    return (jnp.arange(height) < size[0])[:, None] & (jnp.arange(width) < size[1])[None]


def _split(key: Key | None):
    return (None, None, None) if key is None else tuple(jax.random.split(key, 3))


def _drop(x: Array, rate: float, key: Key | None) -> Array:
    """x with a share `rate` of its elements zeroed and the others scaled up; with a key only."""
    if key is None or rate == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), jnp.zeros_like(x))


def _largest_divisor(channels: int, most: int) -> int:
    return max(n for n in range(1, most + 1) if channels % n == 0)
