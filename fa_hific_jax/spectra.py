"""Power spectra of images: the frequencies at which a codec loses or invents detail.

All powers are |F(w y)|^2 / sum(w^2) of luma y in 0..255 under a Hann window w, so that white noise
of variance s^2 has the expected power s^2 at every frequency, whatever the size of the image.
Without the window, the jump between opposite borders would draw a cross over the spectrum.
"""

import numpy as np
from jaxtyping import Float, Float64, Int64, Num

Image = Num[np.ndarray, "h w c"]

# Rec. 601, the luma of JPEG.
LUMA = np.array([0.299, 0.587, 0.114])
# In squared gray levels, far below the 1/12 of rounding to 8 bits: it only keeps log away from 0.
_FLOOR = 1e-3


def log_spectrum(image: Image) -> Float[np.ndarray, "h w"]:
    """Returns the power spectrum of luma in dB, with frequency 0 at [h // 2, w // 2].

    0 dB is one squared gray level; no value is below -30 dB. Values of the image are 0 to 255, of
    any type. Three channels are RGB; otherwise luma is their mean.
    """
    return decibels(np.fft.fftshift(_power(image)))


def radial_power_spectrum(
    image: Image, bins: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Returns (frequency in cycles per pixel, mean power over all directions).

    The image is as for `log_spectrum`. Of the bands of `radial_bands`, those that hold no frequency
    of an image of this size are left out, so n <= bins.
    """
    power = _power(image)
    band, count = radial_bands(power.shape[0], power.shape[1], bins)
    total = np.bincount(band.ravel(), power.ravel(), bins + 1)[:bins]
    held = count > 0
    return ((np.arange(bins) + 0.5) / (2 * bins))[held], total[held] / count[held]


def radial_bands(
    height: int, width: int, bins: int
) -> tuple[Int64[np.ndarray, "{height} {width}"], Int64[np.ndarray, " {bins}"]]:
    """Returns (radial band of each frequency of the transform, number of frequencies per band).

    Band i of `bins` holds the radii from i / (2 bins) to (i + 1) / (2 bins) cycles per pixel, the
    last one also 0.5. Frequencies beyond 0.5 have the number `bins`.
    """
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    band = np.minimum((radius * 2 * bins).astype(np.int64), bins - 1)
    band[radius > 0.5] = bins
    return band, np.bincount(band.ravel(), minlength=bins + 1)[:bins]


def decibels(power: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Returns 10 log10(power + 0.001) of powers in squared gray levels."""
    return 10.0 * np.log10(power + _FLOOR)


def window(height: int, width: int) -> Float64[np.ndarray, "{height} {width}"]:
    """Returns a Hann window sampled between its zeros, so that sides of 1 or 2 pixels are kept."""
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (height, width))
    return rows[:, None] * columns[None]


def _power(image: Image) -> Float[np.ndarray, "h w"]:
    *sides, channels = image.shape
    luma = image.astype(np.float64) @ (LUMA if channels == 3 else np.full(channels, 1 / channels))
    w = window(*sides)
    return np.abs(np.fft.fft2(luma * w)) ** 2 / np.sum(w**2)
