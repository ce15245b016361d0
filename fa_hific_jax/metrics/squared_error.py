"""Metrics of the squared error between 8-bit images, computed from exact integers."""

import math

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.errors import UserError

Picture = UInt8[np.ndarray, "_ _ _"]


def psnr(x: Picture, x_hat: Picture) -> float:
    """Returns the PSNR in dB, 10 log10(255^2 / mse) over all channels; inf for equal images.

    Raises:
      UserError: the (h, w, c) images have different shapes, or they are not 8-bit.
    """
    error = squared_error(x, x_hat)
    return 10 * math.log10(255**2 * x.size / error) if error else math.inf


def log_frequency_distance(x: Picture, x_hat: Picture) -> float:
    """Returns ln(1 + mean over channels and frequencies of |F(x) - F(x_hat)|^2), F unscaled.

    This is the LFD of Jiang et al., "Focal Frequency Loss", ICCV 2021. By Parseval's theorem it is
    ln(1 + height * width * mse), so no transform is needed. For images of one size, LFD gives the
    same order as PSNR.

    Raises:
      UserError: the (h, w, c) images have different shapes, or they are not 8-bit.
    """
    return math.log1p(squared_error(x, x_hat) / x.shape[2])


def squared_error(x: Picture, x_hat: Picture) -> int:
    """Returns the sum of squared differences over pixels and channels.

    Raises:
      UserError: the (h, w, c) images have different shapes, or they are not 8-bit.
    """
    check_pair(x, x_hat)
    # Squares are below 2^17 and memory traffic dominates the time, so only the sum has 64 bits.
    return int(np.sum(np.square(x.astype(np.int32) - x_hat), dtype=np.int64))


def check_pair(x: np.ndarray, x_hat: np.ndarray) -> None:
    """Raises a UserError unless both images are uint8 and have the same shape."""
    if x.shape != x_hat.shape:
        raise UserError(
            f"images of different shapes {x.shape} and {x_hat.shape} cannot be compared: crop or "
            "code them to one size"
        )
    for image in (x, x_hat):
        if image.dtype != np.uint8:
            raise UserError(f"metrics need 8-bit images, not {image.dtype}: round the values first")
