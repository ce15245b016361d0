"""All metrics of a pair of images at once, each with its value or the reason why it has none."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import BACKBONES, SHIPPED, lpips
from fa_hific_jax.metrics.structure import (
    Column,
    Picture,
    Pictures,
    check_pair,
    similarities,
    spectral_errors,
)
from fa_hific_jax.metrics.weights import Weights

_lpips = jax.jit(lpips)


class Measured(NamedTuple):
    """The metrics of one pair of images."""

    values: dict[str, float | None]  # every metric, None where it has no value
    not_measured: dict[str, str]  # the reason for each None


def measure(x: Picture, x_hat: Picture, weights: Weights) -> Measured:
    """Returns every metric of one original x and its decoded image x_hat, both RGB (h, w, 3).

    Raises a UserError if the images have different shapes, or are not 8-bit RGB.
    """
    return measure_batch(x[None], x_hat[None], weights)[0]


def measure_batch(x: Pictures, x_hat: Pictures, weights: Weights) -> list[Measured]:
    """Returns what `measure` returns of each of b pairs, (b, h, w, 3) each, computed at once.

    Device memory grows with b: some 100 bytes per channel of each pixel, and the LPIPS networks.
    """
    check_pair(x, x_hat)
    if x.ndim != 4 or x.shape[3] != 3:
        raise UserError(f"metrics need RGB images, not the shape {x.shape[1:]}: convert the images")
    columns: dict[str, Column] = {
        "psnr": list(map(psnr, x, x_hat)),
        **similarities(x, x_hat),
        **{f"lpips_{net}": lpips_distances(weights, net, x, x_hat) for net in BACKBONES},
        "lfd": list(map(log_frequency_distance, x, x_hat)),
        **spectral_errors(x, x_hat),
    }
    found = [Measured({}, {}) for _ in x]
    for i, (values, reasons) in enumerate(found):
        for name, column in columns.items():
            value = column if isinstance(column, str) else column[i]
            values[name] = None
            if isinstance(value, str):
                reasons[name] = value
            elif math.isfinite(value):
                values[name] = value
            else:
                infinite = "identical images: infinite"
                reasons[name] = infinite if name == "psnr" else f"the result is {value}"
    return found


def psnr(x: Picture, x_hat: Picture) -> float:
    """Returns the PSNR in dB, 10 log10(255^2 / mse) over all channels; inf for equal images."""
    error = _squared_error(x, x_hat)
    return 10 * math.log10(255**2 * x.size / error) if error else math.inf


def log_frequency_distance(x: Picture, x_hat: Picture) -> float:
    """Returns ln(1 + mean over channels and frequencies of |F(x) - F(x_hat)|^2), F unscaled.

    This is the LFD of Jiang et al., "Focal Frequency Loss", ICCV 2021. By Parseval's theorem it is
    ln(1 + height * width * mse), so no transform is needed.
    """
    return math.log1p(_squared_error(x, x_hat) / x.shape[2])


def _squared_error(x: Picture, x_hat: Picture) -> int:
    check_pair(x, x_hat)
    # Squares are below 2^17 and memory traffic dominates the time, so only the sum has 64 bits.
    return int(np.sum(np.square(x.astype(np.int32) - x_hat), dtype=np.int64))


def lpips_distances(weights: Weights, net: str, x: Pictures, x_hat: Pictures) -> Column:
    """Returns the LPIPS distance of each pair with a network, or why it cannot be measured."""
    params = weights.lpips.get(net)
    if params is None:
        get = f"no weights: get them with `fa-hific get-lpips --net {net}`"
        return f"not requested: add {net} to --lpips" if net in SHIPPED else get
    if min(x.shape[1:3]) < (side := BACKBONES[net].smallest_side):
        return f"a side has less than {side} pixels"
    pair = (jnp.asarray(images, jnp.float32) / 255.0 for images in (x, x_hat))
    return np.asarray(_lpips(params, *pair)).tolist()
