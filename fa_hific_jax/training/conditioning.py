"""Conditioning of each training image, drawn anew in every step: its quality and its detail."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.models.autoencoder import PerImage
from fa_hific_jax.settings import LossConfig, Settings

_QUALITY, _DETAIL = 3, 4  # Streams 0 to 2 of an image's key belong to the autoencoder.


class Conditioning(NamedTuple):
    """Quality (rate) and detail of each image in [0, 1]; None where the run does not use it."""

    quality: PerImage | None = None
    detail: PerImage | None = None


def draw(keys, settings: Settings) -> Conditioning:
    """Returns the conditioning of the images with these keys.

    The quality is uniform in [0, 1]. The detail is 0 for a share `loss.detail_zero` of the images
    and uniform in [0, 1] for the others.
    """
    share = settings.loss.detail_zero
    quality = _uniform(keys, _QUALITY) if settings.model.qualities else None
    detail = jnp.maximum(_uniform(keys, _DETAIL) - share, 0.0) / (1.0 - share) if share else None
    return Conditioning(quality, detail)


def image_lambda(
    lmbda: Float[Array, ""], quality: PerImage | None, config: LossConfig
) -> Float[Array, "*images"]:
    """Returns lmbda lambda_above^(1 - quality) lambda_below^quality; lmbda without quality."""
    if quality is None:
        return lmbda
    return lmbda * (config.lambda_above ** (1.0 - quality) * config.lambda_below**quality)


def _uniform(keys, stream: int) -> PerImage:
    return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, stream)))(keys)
