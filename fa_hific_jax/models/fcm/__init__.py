"""Frequency complement modules (FCM), which add detail to a level of the generator.

FA-VAE (Lin et al., CVPR 2023; oppo-us-research/FA-VAE) introduced them. The FA-HiFiC authors put
one after each of the two finest upsamplings of HiFiC. A module of any kind is called
`module(b, size, keys)` with the features B_i of a level. It returns C_i, which the dynamic spectrum
loss compares with the encoder, and the features with which the generator goes on. With keys it
drops out as in training.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.fidelity.position_norm import PositionNorm
from fa_hific_jax.models.fcm.attention import Attention
from fa_hific_jax.models.fcm.group_norm_conv import GroupNormConv
from fa_hific_jax.models.fcm.norm_relu_conv import NormReluConv
from fa_hific_jax.models.layers import Features, Size
from fa_hific_jax.models.random import Keys, fold_in

LOCAL_KINDS = ("hific",)
"""Kinds whose output depends on nearby pixels alone, so that tiles decode like the whole image.

GroupNorm and the legacy norm take statistics of the whole image, and attention looks at all of it.
"""

_FLOAT32 = jnp.dtype("float32")


def frequency_complement(
    kind: str,
    level: int,
    width: int,
    dropout: float = 0.0,
    dtype: jnp.dtype = _FLOAT32,
    name: str | None = None,
) -> nn.Module:
    """Returns the module of a kind for level 1, the generator's finest, or for level 2.

    Every kind but "legacy" begins as the identity, so a generator that is warm-started from HiFiC
    begins as that HiFiC. "attention" has the residual module at level 1, as FA-VAE has at its
    finest level.

    Args:
      kind: one of settings.model.FCM_KINDS.
      level: 1 or 2.
      width: channels inside the module.
      dropout: share of the activations that is set to zero in training.
      dtype: data type of convolutions and products.
      name: name of the module in its parent.
    """
    if kind == "hific":
        return NormReluConv(width, dropout, dtype, name=name)
    if kind == "legacy":
        random = nn.initializers.glorot_uniform()
        return NormReluConv(width, dropout, dtype, PositionNorm, random, name=name)
    if kind == "attention" and level > 1:
        return Attention(width, dropout, dtype, name=name)
    return GroupNormConv(width, kind != "conv", dropout, dtype, name=name)


def complemented(
    fcm: tuple[str, int, float],
    level: int,
    b: Features,
    size: Size | None = None,
    keys: Keys | None = None,
    detail: Float[Array, " b"] | None = None,
) -> tuple[Features, Features]:
    """Returns C_i, and B + detail (F - B), where the module returns F for features B.

    Call it in a compact method: the module becomes a submodule named "fcm1" or "fcm2". It computes
    in the dtype of b.

    Args:
      fcm: kind, channels and dropout as `frequency_complement` takes them.
      level: 1 or 2.
      b: features of the level.
      size: true size within b.
      keys: random keys of the images, None outside training.
      detail: share in [0, 1] for each image, None for 1.
    """
    kind, width, dropout = fcm
    module = frequency_complement(kind, level, width, dropout, b.dtype, f"fcm{level}")
    level_keys = None if keys is None else fold_in(keys, level)
    c, full = module(b, size, level_keys)  # pyright: ignore[reportCallIssue]
    if detail is None:
        return c, full
    return c, b + detail.astype(b.dtype)[:, None, None, None] * (full - b)


def scaled(params: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Returns the parameters of a module that adds `share` times as much.

    These are the module's own parameters with those of its last layer multiplied.
    """
    last = next(name for name in ("conv2", "norm1", "conv1") if _ends_with(params, name))
    return dict(params) | {last: jax.tree.map(lambda leaf: leaf * share, params[last])}


def _ends_with(params: Mapping[str, Any], layer: str) -> bool:
    # conv1 of GroupNormConv follows its norm1, norm1 of Attention its dense1.
    return layer in params and (layer != "norm1" or "dense1" in params)
