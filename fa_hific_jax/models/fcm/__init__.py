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

from fa_hific_jax.fidelity.authors import PositionNorm
from fa_hific_jax.models.fcm.attention import Attention
from fa_hific_jax.models.fcm.group_norm_conv import GroupNormConv
from fa_hific_jax.models.fcm.norm_relu_conv import NormReluConv
from fa_hific_jax.models.layers import GLOROT, Features, PerImage, Size
from fa_hific_jax.models.random import Keys, fold_in
from fa_hific_jax.settings.model import ModelConfig

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
