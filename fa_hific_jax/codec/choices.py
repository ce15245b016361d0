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
_LAST = QUALITIES - 1

Choice = tuple[ModelConfig, Any]


def quality_level(config: ModelConfig, quality: float | None) -> int | None:
    """Returns the quality as files store it, 0 to QUALITIES - 1; None for a model with one rate.

    None stands for DEFAULT_QUALITY. Raises a UserError if the model cannot have this quality.
    """
    if not config.qualities:
        if quality is None:
            return None
        raise UserError(
            f"quality {quality:g} was requested, but this model has a single rate: omit the "
            "quality, or use a model that was trained with model.qualities"
        )
    quality = DEFAULT_QUALITY if quality is None else quality
    _check_share("quality", quality)
    return round(quality * _LAST)


def at_quality(config: ModelConfig, params: Mapping[str, Any], level: int | None) -> Choice:
    """Returns the model whose encoder gives y scaled for a quality level, None for one rate."""
    if level is None:
        return config, params
    single, rest = without_gains(config, params)
    return single, with_latents_scaled(rest, gains(params["gains"]["log_gain"], level))


def without_gains(config: ModelConfig, params: Mapping[str, Any]) -> Choice:
    """Returns the same networks as a model with a single rate, whose y is not scaled."""
    rest = {name: part for name, part in params.items() if name != "gains"}
    return dataclasses.replace(config, qualities=0), rest


def gains(table: Any, level: int) -> Float32[np.ndarray, " cy"]:
    """Returns the factor of each channel of y at a quality level: `models.gains` on the host.

    `table` is the parameter "log_gain", for y before rounding, or "log_inverse", for decoded y.
    """
    table = np.asarray(table, np.float64)
    place = np.arange(len(table)) / (len(table) - 1)
    logs = [np.interp(level / _LAST, place, column) for column in table.T]
    return np.exp(np.asarray(logs)).astype(np.float32)


def at_detail(config: ModelConfig, params: Mapping[str, Any], detail: float | None) -> Choice:
    """Returns the model whose FCMs add this share of their output; None stands for all of it."""
    if detail is None:
        return config, params
    _check_share("detail", detail)
    if not config.fcm_width:
        raise UserError(
            f"detail {detail:g} was requested, but this model has no frequency complement modules: "
            "omit the detail, or use a model that was trained with model.fcm_width"
        )
    parts = params["generator"].items()
    generator = {name: part for name, part in parts if not name.startswith("fcm")}
    if detail:
        generator |= {name: scaled(p, detail) for name, p in parts if name.startswith("fcm")}
    else:
        config = dataclasses.replace(config, fcm_width=0)
    return config, dict(params) | {"generator": generator}


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"the {name} is {value:g}: it must lie between 0 and 1")
