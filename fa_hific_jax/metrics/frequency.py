"""Changes of the radial power spectrum between two images, in float64 on the device.

The spectrum is that of `fa_hific_jax.spectra`: Hann-windowed luma, powers averaged over rings of
equal width from 0 to 0.5 cycles per pixel.
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

# A multiple of 3, so that each band has whole rings.
RINGS = 60


class Spectral(NamedTuple):
    """Errors in dB, one per image; None where a band holds no frequency of so small an image."""

    bands: Float64[np.ndarray, "b 3"] | None
    lsd: Float64[np.ndarray, " b"] | None


def spectral_errors(x: Pictures, x_hat: Pictures) -> Spectral:
    """Returns how the log-power of x_hat differs from that of x, over 60 radial bands.

    bands: mean over the rings of the low, middle and high third of 0 to 0.5 cycles per pixel of
      d = 10 log10((power of x_hat + 0.001) / (power of x + 0.001)): negative where power was lost,
      positive where it was invented.
    lsd: root of the mean over all rings of d^2, the log-spectral distance of speech coding (Gray
      and Markel, "Distance measures for speech processing", 1976) of the radial spectra, which
      Durall et al., "Watch your up-convolution", CVPR 2020, compare for generated images.

    Neither sees where in the image or in which phase power lies: both are 0 for an image shifted
    around its borders (up to the window), whose PSNR is poor.

    Raises:
      UserError: the batches have different shapes.
    """
    check_pair(x, x_hat)
    height, width = x.shape[1:3]
    ring, count = spectra.radial_bands(height, width, RINGS)
    held = count > 0
    thirds = held.reshape(3, -1)
    if not thirds.any(axis=1).all():
        return Spectral(None, None)
    with double_precision():
        totals = [np.asarray(_ring_totals(image, ring)) for image in (x, x_hat)]
    power, power_hat = (total[:, held] / count[held] for total in totals)
    difference = spectra.decibels(power_hat) - spectra.decibels(power)
    band = np.repeat(np.arange(3), RINGS // 3)[held]
    bands = np.stack([difference[:, band == third].mean(axis=1) for third in range(3)], axis=1)
    return Spectral(bands, np.sqrt(np.mean(np.square(difference), axis=1)))


@jax.jit
def _ring_totals(x: UInt8[Array, "b h w 3"], ring: Int[Array, "h w"]) -> Float64[Array, "b rings"]:
    """Sums the power over each radial band."""
    luma = jnp.tensordot(x.astype(jnp.float64), jnp.asarray(spectra.LUMA), 1)
    window = jnp.asarray(spectra.window(*x.shape[1:3]))
    power = jnp.square(jnp.abs(jnp.fft.fft2(luma * window[None]))) / jnp.sum(window**2)
    sums = functools.partial(
        jax.ops.segment_sum, segment_ids=ring.reshape(-1), num_segments=RINGS + 1
    )
    return jax.vmap(sums)(power.reshape(len(x), -1))[:, :RINGS]
