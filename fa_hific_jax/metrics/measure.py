"""All metrics of pairs of images at once, each with its value or the reason why it has none."""

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


_WITHOUT = {"psnr": "identical images: infinite"}


class Measured(NamedTuple):
    """One pair of images: all metrics are in `values`; where one is None, the other says why."""

    values: dict[str, float | None]
    not_measured: dict[str, str]


def measure(x: Picture, x_hat: Picture, weights: Weights) -> Measured:
    """Returns every metric of one original and its decoded image.

    Args:
      x: original, RGB, (h, w, 3).
      x_hat: of the same shape.
      weights: a metric whose weights are not in it is not measured.

    Raises:
      UserError: the images are of different shapes, or not 8-bit RGB.
    """
    return measure_batch(x[None], x_hat[None], weights)[0]


def measure_batch(x: Pictures, x_hat: Pictures, weights: Weights) -> list[Measured]:
    """Returns `measure` of b pairs of one size, (b, h, w, 3) each, computed at once.

    Device memory grows with b: some 100 bytes per channel of each pixel in double precision, and
    what the networks of LPIPS need.
    """
    check_pair(x, x_hat)
    if x.ndim != 4 or x.shape[3] != 3:
        raise UserError(f"metrics are of RGB images, not of the shape {x.shape[1:]}: convert them")
    columns: dict[str, list[float] | str] = {
        "psnr": [psnr(*pair) for pair in zip(x, x_hat, strict=True)],
        **_structure(x, x_hat),
        **{f"lpips_{net}": _distances(weights, net, x, x_hat) for net in BACKBONES},
        "lfd": [log_frequency_distance(*pair) for pair in zip(x, x_hat, strict=True)],
        **_spectral(x, x_hat),
    }
    return [_row(columns, i) for i in range(len(x))]


def _row(columns: dict[str, list[float] | str], i: int) -> Measured:
    """Returns the metrics of the i-th pair; a value that is not finite becomes None."""
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for name, column in columns.items():
        values[name] = None
        if isinstance(column, str):
            reasons[name] = column
        elif math.isfinite(column[i]):
            values[name] = float(column[i])
        elif name in _WITHOUT:
            reasons[name] = _WITHOUT[name]
        else:
            reasons[name] = f"the result is {column[i]}"
    return Measured(values, reasons)


def _structure(x: Pictures, x_hat: Pictures) -> dict[str, Any]:
    found = similarities(x, x_hat)
    return {
        "ms_ssim": _column(found.ms_ssim, f"a side of {MS_SSIM_SIDE_ABOVE} pixels or less"),
        "ssim": _column(found.ssim, f"a side of less than {WINDOW_SIZE} pixels"),
    }


def _spectral(x: Pictures, x_hat: Pictures) -> dict[str, Any]:
    found = spectral_errors(x, x_hat)
    small = "too small for three bands of frequency"
    bands = (None,) * 3 if found.bands is None else found.bands.T
    names = ("band_low", "band_middle", "band_high")
    columns = {name: _column(band, small) for name, band in zip(names, bands, strict=True)}
    return {"lsd": _column(found.lsd, small), **columns}


def _distances(weights: Weights, net: str, x: Pictures, x_hat: Pictures) -> list[float] | str:
    params = weights.lpips.get(net)
    if params is None and net in SHIPPED:
        return f"not asked for: add {net} to --lpips"
    if params is None:
        return f"no weights: `fa-hific get-lpips --net {net}` makes them"
    if min(x.shape[1:3]) < (side := BACKBONES[net].smallest_side):
        return f"a side of less than {side} pixels"
    pair = (jnp.asarray(images, jnp.float32) / 255.0 for images in (x, x_hat))
    return _column(np.asarray(_lpips(params, *pair)), "")


def _column(found: np.ndarray | None, reason: str) -> Any:
    return reason if found is None else [float(value) for value in found]
