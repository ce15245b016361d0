"""Errors of the radial power spectrum between two images, in float64 on the device.

The spectrum is defined in `fa_hific_jax.spectra`: luma under a Hann window, powers averaged over
radial bands of equal width from 0 to 0.5 cycles per pixel.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, UInt8

from fa_hific_jax import spectra
from fa_hific_jax.metrics.double import double_precision
from fa_hific_jax.metrics.squared_error import check_pair

Pictures = UInt8[np.ndarray, "_ _ _ 3"]

# A multiple of 3, so that each third of the spectrum has whole radial bands.
RADIAL_BANDS = 60


class Spectral(NamedTuple):
    """Errors in dB, one row per image; None if the images are too small for the three bands."""

    bands: Float64[np.ndarray, "b 3"] | None
    lsd: Float64[np.ndarray, " b"] | None


def spectral_errors(x: Pictures, x_hat: Pictures) -> Spectral:
    """Returns the errors of the log power of x_hat in 60 radial bands.

    The error of a radial band is d = 10 log10((power of x_hat + 0.001) / (power of x + 0.001)):
    negative where power was lost, positive where power was invented.

    bands: means of d over the lowest, middle and highest third of 0 to 0.5 cycles per pixel.
    lsd: root mean square of d over all radial bands. This is the log-spectral distance of speech
      coding (Gray and Markel, "Distance measures for speech processing", 1976), applied to the
      radial spectra that Durall et al., "Watch your up-convolution", CVPR 2020, compare for
      generated images.

    Both ignore phase and the position of power in the image. An image shifted around its borders
    has an error of 0 up to the effect of the window, although its PSNR is poor.

    Raises:
      UserError: the batches have different shapes.
    """
    check_pair(x, x_hat)
    height, width = x.shape[1:3]
    radial_band, count = spectra.radial_bands(height, width, RADIAL_BANDS)
    held = count > 0
    thirds = held.reshape(3, -1)
    if not thirds.any(axis=1).all():
        return Spectral(None, None)
    with double_precision():
        totals = [np.asarray(_band_totals(image, radial_band)) for image in (x, x_hat)]
    power, power_hat = (total[:, held] / count[held] for total in totals)
    difference = spectra.decibels(power_hat) - spectra.decibels(power)
    third = np.repeat(np.arange(3), RADIAL_BANDS // 3)[held]
    bands = np.stack([difference[:, third == i].mean(axis=1) for i in range(3)], axis=1)
    return Spectral(bands, np.sqrt(np.mean(np.square(difference), axis=1)))


@jax.jit
def _band_totals(
    x: UInt8[Array, "b h w 3"], radial_band: Int[Array, "h w"]
) -> Float64[Array, "b bands"]:
    """Returns the sum of the power in each radial band."""
    luma = jnp.tensordot(x.astype(jnp.float64), jnp.asarray(spectra.LUMA), 1)
    window = jnp.asarray(spectra.window(*x.shape[1:3]))
    power = jnp.square(jnp.abs(jnp.fft.fft2(luma * window[None]))) / jnp.sum(window**2)
    sums = functools.partial(
        jax.ops.segment_sum, segment_ids=radial_band.reshape(-1), num_segments=RADIAL_BANDS + 1
    )
    return jax.vmap(sums)(power.reshape(len(x), -1))[:, :RADIAL_BANDS]
