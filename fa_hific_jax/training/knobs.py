"""What varies from image to image in training, so that one model serves every choice of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.settings import LossConfig, Settings

PerImage = Float[Array, " b"]

_QUALITY, _DETAIL = 3, 4  # 0 to 2 are the autoencoder's


class Knobs(NamedTuple):
    """Quality (rate) and detail of each image in [0, 1]; None where a run has no such knob."""

    quality: PerImage | None
    detail: PerImage | None


def draw(keys, settings: Settings) -> Knobs:
    """Knobs of images with these keys.

    Quality is uniform. A share `loss.detail_zero` of the images has detail 0, the others a uniform
    one.
    """
    quality = detail = None
    if settings.model.qualities:
        quality = _uniform(keys, _QUALITY)
    share = settings.loss.detail_zero
    if share:
        detail = jnp.maximum(_uniform(keys, _DETAIL) - share, 0.0) / (1.0 - share)
    return Knobs(quality, detail)


def rate_weight(quality: PerImage, config: LossConfig) -> PerImage:
    """Weight of the rate: `lambda_above` at quality 0, `lambda_below` at 1, geometric between."""
    return config.lambda_above ** (1.0 - quality) * config.lambda_below**quality


def _uniform(keys, stream: int) -> PerImage:
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, stream)))(keys)
