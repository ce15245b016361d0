"""All metrics of a pair of images at once, each with its value or the reason why it has none."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.lpips import BACKBONES, SHIPPED, lpips
from fa_hific_jax.metrics.frequency import spectral_errors
from fa_hific_jax.metrics.pairs import Column, Picture, Pictures, check_pair
from fa_hific_jax.metrics.squared_error import log_frequency_distance, psnr
from fa_hific_jax.metrics.structure import similarities
from fa_hific_jax.metrics.weights import Weights

_lpips = jax.jit(lpips)


class Measured(NamedTuple):
    """The metrics of one pair of images."""

    values: dict[str, float | None]  # every metric, None where it has no value
    not_measured: dict[str, str]  # the reason for each None


def measure(x: Picture, x_hat: Picture, weights: Weights) -> Measured:
    """Returns every metric of one original x and its decoded image x_hat, both RGB (h, w, 3).

    A metric whose weights are missing is not measured.

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
    columns: dict[str, Column] = {
        "psnr": list(map(psnr, x, x_hat)),
        **similarities(x, x_hat),
        **{f"lpips_{net}": lpips_distances(weights, net, x, x_hat) for net in BACKBONES},
        "lfd": list(map(log_frequency_distance, x, x_hat)),
        **spectral_errors(x, x_hat),
    }
    return [_row(columns, i) for i in range(len(x))]


def _row(columns: Mapping[str, Column], i: int) -> Measured:
    """Returns the metrics of pair i; a value that is not finite becomes None."""
    found = Measured({}, {})
    for name, column in columns.items():
        value = None if isinstance(column, str) else column[i]
        found.values[name] = value if value is not None and math.isfinite(value) else None
        if isinstance(column, str):
            found.not_measured[name] = column
        elif found.values[name] is None:
            infinite = "identical images: infinite"
            found.not_measured[name] = infinite if name == "psnr" else f"the result is {value}"
    return found


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
