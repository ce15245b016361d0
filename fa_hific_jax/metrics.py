"""PSNR, MS-SSIM and log frequency distance of 8-bit images, in float64 on the host.

x and x_hat are uint8 arrays (h, w, c) of one shape; other shapes raise a ValueError.
"""

import math

import numpy as np
from jaxtyping import Float64, UInt8
from scipy import ndimage

Picture = UInt8[np.ndarray, "_ _ _"]
Channels = Float64[np.ndarray, "_ _ _"]

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW_SIZE, WINDOW_SIGMA = 11, 1.5
# The window must fit into the image at the coarsest of the scales.
MS_SSIM_SIDE_ABOVE = (WINDOW_SIZE - 1) * 2 ** (len(MS_SSIM_WEIGHTS) - 1)


def psnr(x: Picture, x_hat: Picture) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255^2 / mse) over all channels; inf if equal."""
    a, b = _float_pair(x, x_hat)
    mse = np.mean(np.square(a - b))
    return 10 * math.log10(255**2 / mse) if mse > 0 else math.inf


def ms_ssim(x: Picture, x_hat: Picture) -> float | None:
    """Multi-scale SSIM, at most 1, mean over channels; None where a side is 160 pixels or less.

    Wang et al., "Multiscale structural similarity for image quality assessment", 2003: five
    scales, 11 x 11 Gaussian window of sigma 1.5, only where it fits. Agrees with `pytorch_msssim`,
    which CompressAI reports, also in how odd sides are halved: with a line of zeros in front.
    """
    a, b = _float_pair(x, x_hat)
    if min(x.shape[:2]) <= MS_SSIM_SIDE_ABOVE:
        return None
    result = np.ones(x.shape[2])
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        if scale:
            a, b = _halve(a), _halve(b)
        luminance, contrast_structure = _ssim_terms(a, b)
        coarsest = scale == len(MS_SSIM_WEIGHTS) - 1
        similarity = luminance * contrast_structure if coarsest else contrast_structure
        result *= np.maximum(similarity.mean(axis=(0, 1)), 0) ** weight
    return float(result.mean())


def log_frequency_distance(x: Picture, x_hat: Picture) -> float:
    """ln(1 + mean over channels and frequencies of |F(x) - F(x_hat)|^2), F without scaling.

    The LFD of Jiang et al., "Focal Frequency Loss", ICCV 2021. By Parseval's theorem the mean is
    the squared error summed over pixels, so no transform is needed, and between images of one
    size LFD says what PSNR says: ln(1 + height * width * mse).
    """
    a, b = _float_pair(x, x_hat)
    return math.log1p(np.sum(np.square(a - b)) / a.shape[2])


def _float_pair(x: Picture, x_hat: Picture) -> tuple[Channels, Channels]:
    if x.shape != x_hat.shape:
        raise ValueError(f"images of different shapes {x.shape} and {x_hat.shape}")
    return x.astype(np.float64), x_hat.astype(np.float64)


def _halve(x: Channels) -> Channels:
    """Means of 2 x 2 blocks; an odd side first gets a zero line at its start."""
    h, w, c = x.shape
    x = np.pad(x, ((h % 2, 0), (w % 2, 0), (0, 0)))
    return x.reshape(-(-h // 2), 2, -(-w // 2), 2, c).mean(axis=(1, 3))


def _ssim_terms(a: Channels, b: Channels) -> tuple[Channels, Channels]:
    """Luminance and contrast-structure maps, whose product is the SSIM map."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_a, mean_b = _window(a), _window(b)
    product = mean_a * mean_b
    squares = mean_a**2 + mean_b**2
    covariance = _window(a * b) - product
    variances = _window(a**2 + b**2) - squares
    return (2 * product + c1) / (squares + c1), (2 * covariance + c2) / (variances + c2)


def _window(x: Channels) -> Channels:
    """Gaussian-weighted local means, where the window lies inside x."""
    radius = WINDOW_SIZE // 2
    # In float32 as in pytorch_msssim: the weights' sum misses 1 by 3e-8, which low scores show in
    # the sixth digit.
    kernel = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / WINDOW_SIGMA))
    kernel = kernel.astype(np.float32)
    kernel /= kernel.sum(dtype=np.float64).astype(np.float32)
    for axis in (0, 1):
        x = ndimage.correlate1d(x, kernel, axis=axis)
    return x[radius:-radius, radius:-radius]
