"""Metrics of the squared error of 8-bit images, from exact integers."""

import math

import numpy as np
from jaxtyping import UInt8

from fa_hific_jax.errors import UserError

Picture = UInt8[np.ndarray, "_ _ _"]


def psnr(x: Picture, x_hat: Picture) -> float:
    """Returns the PSNR in dB, 10 log10(255^2 / mse) over all channels; inf for equal images.

    Raises:
      UserError: the images, (h, w, c), have different shapes.
    """
    error = squared_error(x, x_hat)
    return 10 * math.log10(255**2 * x.size / error) if error else math.inf


def log_frequency_distance(x: Picture, x_hat: Picture) -> float:
    """Returns ln(1 + mean over channels and frequencies of |F(x) - F(x_hat)|^2), F unscaled.

    This is the LFD of Jiang et al., "Focal Frequency Loss", ICCV 2021. By Parseval's theorem the
    mean is the squared error summed over pixels, so no transform is needed. Between images of one
    size LFD orders as PSNR does: ln(1 + height * width * mse).

    Raises:
      UserError: the images, (h, w, c), have different shapes.
    """
    return math.log1p(squared_error(x, x_hat) / x.shape[2])


def squared_error(x: Picture, x_hat: Picture) -> int:
    """Returns the sum of squared differences over pixels and channels; raises as `psnr` does."""
    check_pair(x, x_hat)
    # In 32 bits, and only the sum in 64: below 2^17 each, and memory traffic is what it costs.
    return int(np.sum(np.square(x.astype(np.int32) - x_hat), dtype=np.int64))


def check_pair(x: np.ndarray, x_hat: np.ndarray) -> None:
    """Raises a UserError unless both are uint8 and of one shape."""
    if x.shape != x_hat.shape:
        raise UserError(
            f"images of different shapes {x.shape} and {x_hat.shape} cannot be compared: crop or "
            "code them to one size"
        )
    check_picture(x)
    check_picture(x_hat)


def check_picture(image: np.ndarray) -> None:
    """Raises a UserError unless the image is uint8."""
    if image.dtype != np.uint8:
        raise UserError(f"metrics are of 8-bit images, not of {image.dtype}: round them first")
