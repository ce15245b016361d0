"""Errors of the radial power spectrum between two images, in float64 on the device.

The spectrum is defined in `fa_hific_jax.spectra`: luma under a Hann window, powers averaged over
radial bands of equal width from 0 to 0.5 cycles per pixel.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, UInt8

from fa_hific_jax import spectra
from fa_hific_jax.metrics.pairs import Column, Pictures, check_pair, double_precision

# A multiple of 3, so that each third of the spectrum has whole radial bands.
RADIAL_BANDS = 60
_THIRDS = ("band_low", "band_middle", "band_high")


def spectral_errors(x: Pictures, x_hat: Pictures) -> dict[str, Column]:
    """Returns the errors in dB of the log power of x_hat in 60 radial bands, for RGB images.

    The error of a radial band is d = 10 log10((power of x_hat + 0.001) / (power of x + 0.001)):
    negative where power was lost, positive where power was invented.

    "lsd" is the root mean square of d over all radial bands: the log-spectral distance of speech
    coding (Gray and Markel, "Distance measures for speech processing", 1976), applied to the radial
    spectra that Durall et al., "Watch your up-convolution", CVPR 2020, compare. "band_low",
    "band_middle" and "band_high" are means of d over thirds of 0 to 0.5 cycles per pixel. All
    ignore phase and the position of power in the image.

    Raises a UserError if the batches have different shapes.
    """
    check_pair(x, x_hat)
    radial_band, count = spectra.radial_bands(x.shape[1], x.shape[2], RADIAL_BANDS)
    held = count > 0
    if not held.reshape(3, -1).any(axis=1).all():
        return dict.fromkeys(("lsd", *_THIRDS), "the image is too small for three frequency bands")
    with double_precision():
        totals = [np.asarray(_band_totals(image, radial_band)) for image in (x, x_hat)]
    before, after = (spectra.decibels(total[:, held] / count[held]) for total in totals)
    difference = after - before
    third = np.repeat(np.arange(3), RADIAL_BANDS // 3)[held]
    bands = {n: difference[:, third == i].mean(axis=1).tolist() for i, n in enumerate(_THIRDS)}
    return {"lsd": np.sqrt(np.mean(np.square(difference), axis=1)).tolist(), **bands}


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
