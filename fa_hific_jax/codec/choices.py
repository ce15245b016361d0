"""Turns a model at one quality and one detail into a plain model with a single rate.

The gains of y are multiplied into the last layer of the encoder, and the detail into the last layer
of each frequency complement module (FCM). The rest of the codec therefore knows neither.
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
    """Returns the quality as files store it, 0 to QUALITIES - 1; None for a model with one rate.

    A `quality` of None stands for DEFAULT_QUALITY.

    Raises:
      UserError: the quality is not in [0, 1], or the model has a single rate.
    """
    if not config.qualities:
        if quality is not None:
            raise UserError(
                f"quality {quality:g} was requested, but this model has a single rate: omit the "
                "quality, or use a model that was trained with model.qualities"
            )
        return None
    quality = DEFAULT_QUALITY if quality is None else quality
    if not 0 <= quality <= 1:
        raise UserError(f"the quality is {quality:g}: it must lie between 0 and 1")
    return round(quality * (QUALITIES - 1))


def at_quality(config: ModelConfig, params: Mapping[str, Any], level: int | None) -> Choice:
    """Returns the model whose encoder gives y already scaled for a quality level.

    A level of None, for a model with a single rate, returns the arguments.
    """
    if level is None:
        return config, params
    single, rest = without_gains(config, params)
    return single, with_latents_scaled(rest, gains(params, level))


def without_gains(config: ModelConfig, params: Mapping[str, Any]) -> Choice:
    """Returns the same networks as a model with a single rate, whose y is not scaled."""
    rest = {name: part for name, part in params.items() if name != "gains"}
    return dataclasses.replace(config, qualities=0), rest


def gains(params: Mapping[str, Any], level: int) -> Float32[np.ndarray, " cy"]:
    """Returns the factor of each channel of y before rounding."""
    return _gains(params["gains"]["log_gain"], level)


def inverse_gains(params: Mapping[str, Any], level: int) -> Float32[np.ndarray, " cy"]:
    """Returns the factor of each channel of the decoded latents."""
    return _gains(params["gains"]["log_inverse"], level)


def at_detail(config: ModelConfig, params: Mapping[str, Any], detail: float | None) -> Choice:
    """Returns the model whose FCMs add this share of their output; None stands for all of it.

    Raises:
      UserError: the share is not in [0, 1], or the model has no FCM.
    """
    if detail is None:
        return config, params
    if not 0 <= detail <= 1:
        raise UserError(f"the detail is {detail:g}: it must lie between 0 and 1")
    if not config.fcm_width:
        raise UserError(
            f"detail {detail:g} was requested, but this model has no frequency complement modules: "
            "omit the detail, or use a model that was trained with model.fcm_width"
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
    """Computes `gains.interpolate` on the host, in float64."""
    table = np.asarray(table, np.float64)
    place = np.arange(len(table)) / (len(table) - 1)
    quality = level / (QUALITIES - 1)
    logs = [np.interp(quality, place, column) for column in table.T]
    return np.exp(np.asarray(logs)).astype(np.float32)
