"""Local power of images by spatial frequency: a loss, and the error that the balance uses.

The focal frequency loss compares spectra including their phases, so its minimum is as blurred as
that of the squared error. Blurred texture lacks power in whatever phase. These functions compare
power alone.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax.losses.focal_frequency import multiplicity
from fa_hific_jax.ops import Image, at_least_float32
from fa_hific_jax.spectra import radial_bands, window

BANDS = 8  # of equal width from 0 to 0.5 cycles per pixel; the last includes what lies beyond
BINS = 16  # along each axis, over one cycle per pixel; those of one half plane mirror the others
BLOCK = 32  # side in pixels of the blocks whose spectra are computed, in which texture is uniform
FLOOR = 1.0 / 255.0**2  # added to powers, so that less than a gray level does not count

Grouping = Callable[[int, int], np.ndarray]


def band_log_power(x: Image) -> Float[Array, "b blocks bands"]:
    """Returns ln(mean power + FLOOR) of each block and radial band, all channels together.

    x is in [0, 1]. Each block of BLOCK x BLOCK pixels is multiplied by a Hann window of unit power
    before an orthonormal transform, so white noise of variance v has power v in every band. Pixels
    at the right and bottom that fill no block are left out. An image with a side below BLOCK has
    one block along that side.
    """
    return _log_power(x, band_of, BANDS)


def bin_log_power(x: Image) -> Float[Array, "b blocks bins"]:
    """Returns what `band_log_power` does, for each square frequency bin instead of each band.

    A regular pattern can have the same power as texture in a band, but only in few bins.
    """
    return _log_power(x, bin_of, BINS * BINS // 2)


def power_loss(prediction: Image, target: Image) -> Float[Array, ""]:
    """Returns the mean over blocks and frequency bins of (ln P(prediction) - ln P(target))^2."""
    return jnp.mean(jnp.square(bin_log_power(prediction) - bin_log_power(target)))


def log_power_error(prediction: Image, target: Image) -> Float[Array, " bands"]:
    """Returns the mean of ln P(prediction) - ln P(target) per band, negative if power lacks."""
    return jnp.mean(band_log_power(prediction) - band_log_power(target), axis=(0, 1))


def band_of(height: int, width: int) -> np.ndarray:
    """Returns the radial band of each frequency of a real transform, (height, width // 2 + 1)."""
    band, _ = radial_bands(height, width, BANDS)
    return np.minimum(band[:, : width // 2 + 1], BANDS - 1)


def bin_of(height: int, width: int) -> np.ndarray:
    """Returns the frequency bin of each frequency of a real transform, (height, width // 2 + 1)."""
    row = (BINS * (np.fft.fftfreq(height) % 1.0)).astype(int)
    column = np.minimum((BINS * np.fft.rfftfreq(width)).astype(int), BINS // 2 - 1)
    return row[:, None] * (BINS // 2) + column[None]


@functools.cache
def mean_weights(group_of: Grouping, groups: int, height: int, width: int) -> np.ndarray:
    """Returns the weight of each frequency in the mean of each group, (height, half, groups)."""
    members = np.eye(groups)[group_of(height, width)] * multiplicity(width)[None, :, None]
    members[0, 0] = 0.0  # The mean brightness is not texture.
    return members / np.maximum(members.sum(axis=(0, 1)), 1.0)


def _log_power(x: Image, group_of: Grouping, groups: int) -> Float[Array, "b blocks _"]:
    x = at_least_float32(x)
    batch, height, width, channels = x.shape
    high, wide = min(height, BLOCK), min(width, BLOCK)
    rows, columns = height // high, width // wide
    x = x[:, : rows * high, : columns * wide]
    x = x.reshape(batch, rows, high, columns, wide, channels).swapaxes(2, 3)
    blocks = x.reshape(batch, rows * columns, high, wide, channels)
    hann = window(high, wide)
    hann = jnp.asarray(hann / np.sqrt(np.mean(hann**2)), x.dtype)
    centered = blocks - jnp.mean(blocks, axis=(2, 3), keepdims=True)
    spectrum = jnp.fft.rfft2(centered * hann[None, None, :, :, None], axes=(2, 3), norm="ortho")
    power = jnp.mean(jnp.square(spectrum.real) + jnp.square(spectrum.imag), axis=-1)
    weights = jnp.asarray(mean_weights(group_of, groups, high, wide), x.dtype)
    return jnp.log(jnp.einsum("nbhw,hwr->nbr", power, weights) + FLOOR)
