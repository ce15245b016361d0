"""A model at one quality and one detail, as a plain model of one rate.

The gain of y goes into what the encoder ends with and the share of the FCMs into theirs, so
that nothing of the coding knows of either.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from fa_hific_jax.codec.bitstream import QUALITIES
from fa_hific_jax.errors import UserError
from fa_hific_jax.models.autoencoder import ModelConfig, with_latents_scaled
from fa_hific_jax.models.fcm import scaled

DEFAULT_QUALITY = 0.5

Choice = tuple[ModelConfig, Any]


def quality_level(config: ModelConfig, quality: float | None) -> int | None:
    """The quality as files carry it, 0 to QUALITIES - 1; None for a model of one rate.

    Without a quality, DEFAULT_QUALITY.

    Raises:
      UserError: it is not in [0, 1], or the model has one rate alone.
    """
    if not config.qualities:
        if quality is not None:
            raise UserError(
                f"quality {quality:g} was asked for, but this model has a single rate: leave the "
                "quality out, or take a model that was trained with model.qualities"
            )
        return None
    quality = DEFAULT_QUALITY if quality is None else quality
    if not 0 <= quality <= 1:
        raise UserError(f"the quality is {quality:g}: it must lie between 0 and 1")
    return round(quality * (QUALITIES - 1))


def at_quality(config: ModelConfig, params: Mapping[str, Any], level: int | None) -> Choice:
    """The model whose encoder gives y as it is coded at a level; itself at None."""
    if level is None:
        return config, params
    kept = {name: part for name, part in params.items() if name != "gains"}
    single = dataclasses.replace(config, qualities=0)
    return single, with_latents_scaled(kept, gains(params, level))


def gains(params: Mapping[str, Any], level: int) -> Float32[np.ndarray, " cy"]:
    """What y is multiplied by before it is rounded, for each channel."""
    return _gains(params["gains"]["log_gain"], level)


def inverse_gains(params: Mapping[str, Any], level: int) -> Float32[np.ndarray, " cy"]:
    """What decoded latents are multiplied by, for each channel."""
    return _gains(params["gains"]["log_inverse"], level)


def at_detail(config: ModelConfig, params: Mapping[str, Any], detail: float | None) -> Choice:
    """The model whose generator adds this share of what its FCMs make; all of it without.

    Raises:
      UserError: the share is not in [0, 1], or the model has no FCM.
    """
    if detail is None:
        return config, params
    if not 0 <= detail <= 1:
        raise UserError(f"the detail is {detail:g}: it must lie between 0 and 1")
    if not config.fcm_width:
        raise UserError(
            f"detail {detail:g} was asked for, but this model has no frequency complement modules: "
            "leave the detail out, or take a model that was trained with model.fcm_width"
        )
    generator = dict(params["generator"])
    modules = [name for name in generator if name.startswith("fcm")]
    if detail == 0:
        config = dataclasses.replace(config, fcm_width=0)
        return config, dict(params) | {
            "generator": {name: part for name, part in generator.items() if name not in modules}
        }
    generator |= {name: scaled(generator[name], detail) for name in modules}
    return config, dict(params) | {"generator": generator}


def _gains(table: Any, level: int) -> Float32[np.ndarray, " cy"]:
    """`gains.interpolate` on the host, in float64."""
    table = np.asarray(table, np.float64)
    place = np.arange(len(table)) / (len(table) - 1)
    quality = level / (QUALITIES - 1)
    logs = [np.interp(quality, place, column) for column in table.T]
    return np.exp(np.asarray(logs)).astype(np.float32)
