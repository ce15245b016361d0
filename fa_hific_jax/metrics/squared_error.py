"""Metrics of the squared error between 8-bit (h, w, c) images, computed from exact integers.

They raise a UserError if the images have different shapes or are not 8-bit.
"""

import math

import numpy as np

from fa_hific_jax.metrics.pairs import Picture, check_pair


def psnr(x: Picture, x_hat: Picture) -> float:
    """Returns the PSNR in dB, 10 log10(255^2 / mse) over all channels; inf for equal images."""
    error = squared_error(x, x_hat)
    return 10 * math.log10(255**2 * x.size / error) if error else math.inf


def log_frequency_distance(x: Picture, x_hat: Picture) -> float:
    """Returns ln(1 + mean over channels and frequencies of |F(x) - F(x_hat)|^2), F unscaled.

    This is the LFD of Jiang et al., "Focal Frequency Loss", ICCV 2021. By Parseval's theorem it is
    ln(1 + height * width * mse), so no transform is needed. For images of one size, LFD gives the
    same order as PSNR.
    """
    return math.log1p(squared_error(x, x_hat) / x.shape[2])


def squared_error(x: Picture, x_hat: Picture) -> int:
    """Returns the sum of squared differences over pixels and channels."""
    check_pair(x, x_hat)
    # Squares are below 2^17 and memory traffic dominates the time, so only the sum has 64 bits.
    return int(np.sum(np.square(x.astype(np.int32) - x_hat), dtype=np.int64))
