"""All metrics of a pair of images at once, each with its value or the reason why it has none."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import SHIPPED, lpips
from fa_hific_jax.losses.lpips_backbones import BACKBONES
from fa_hific_jax.metrics.frequency import spectral_errors
from fa_hific_jax.metrics.squared_error import check_pair, log_frequency_distance, psnr
from fa_hific_jax.metrics.structure import MS_SSIM_SIDE_ABOVE, WINDOW_SIZE, similarities
from fa_hific_jax.metrics.weights import Weights

Picture = UInt8[np.ndarray, "_ _ _"]
Pictures = UInt8[np.ndarray, "_ _ _ _"]

_lpips = jax.jit(lpips)


class Measured(NamedTuple):
    """The metrics of one pair of images."""

    values: dict[str, float | None]  # every metric, None where it has no value
    not_measured: dict[str, str]  # the reason for each None


def measure(x: Picture, x_hat: Picture, weights: Weights) -> Measured:
    """Returns every metric of one original and its decoded image.

    Args:
      x: original RGB image, (h, w, 3).
      x_hat: decoded image of the same shape.
      weights: weights of networks; a metric whose weights are missing is not measured.

    Raises:
      UserError: the images have different shapes, or they are not 8-bit RGB.
    """
    return measure_batch(x[None], x_hat[None], weights)[0]


def measure_batch(x: Pictures, x_hat: Pictures, weights: Weights) -> list[Measured]:
    """Returns every metric of b pairs of images, (b, h, w, 3) each, computed at once.

    Args and errors are those of `measure`. Device memory grows with b: about 100 bytes per channel
    of each pixel in double precision, plus the memory of the LPIPS networks.
    """
    check_pair(x, x_hat)
    if x.ndim != 4 or x.shape[3] != 3:
        raise UserError(f"metrics need RGB images, not the shape {x.shape[1:]}: convert the images")
    columns: dict[str, list[float] | str] = {
        "psnr": [psnr(*pair) for pair in zip(x, x_hat, strict=True)],
        **_structure(x, x_hat),
        **{f"lpips_{net}": lpips_distances(weights, net, x, x_hat) for net in BACKBONES},
        "lfd": [log_frequency_distance(*pair) for pair in zip(x, x_hat, strict=True)],
        **_spectral(x, x_hat),
    }
    return [_row(columns, i) for i in range(len(x))]


def _row(columns: dict[str, list[float] | str], i: int) -> Measured:
    """Returns the metrics of pair i; a value that is not finite becomes None."""
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, column in columns.items():
        values[name] = None
        if isinstance(column, str):
            reasons[name] = column
        elif math.isfinite(column[i]):
            values[name] = float(column[i])
        elif name == "psnr":
            reasons[name] = "identical images: infinite"
        else:
            reasons[name] = f"the result is {column[i]}"
    return Measured(values, reasons)


def _structure(x: Pictures, x_hat: Pictures) -> dict[str, Any]:
    found = similarities(x, x_hat)
    return {
        "ms_ssim": _column(found.ms_ssim, f"a side has {MS_SSIM_SIDE_ABOVE} pixels or less"),
        "ssim": _column(found.ssim, f"a side has less than {WINDOW_SIZE} pixels"),
    }


def _spectral(x: Pictures, x_hat: Pictures) -> dict[str, Any]:
    found = spectral_errors(x, x_hat)
    small = "the image is too small for three frequency bands"
    bands = (None,) * 3 if found.bands is None else found.bands.T
    names = ("band_low", "band_middle", "band_high")
    columns = {name: _column(band, small) for name, band in zip(names, bands, strict=True)}
    return {"lsd": _column(found.lsd, small), **columns}


def lpips_distances(weights: Weights, net: str, x: Pictures, x_hat: Pictures) -> list[float] | str:
    """Returns the LPIPS distance of each pair with a network, or why it cannot be measured."""
    params = weights.lpips.get(net)
    if params is None and net in SHIPPED:
        return f"not requested: add {net} to --lpips"
    if params is None:
        return f"no weights: get them with `fa-hific get-lpips --net {net}`"
    if min(x.shape[1:3]) < (side := BACKBONES[net].smallest_side):
        return f"a side has less than {side} pixels"
    pair = (jnp.asarray(images, jnp.float32) / 255.0 for images in (x, x_hat))
    return _column(np.asarray(_lpips(params, *pair)), "")


def _column(found: np.ndarray | None, reason: str) -> Any:
    return reason if found is None else [float(value) for value in found]
