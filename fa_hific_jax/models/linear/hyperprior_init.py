"""Initial kernels of the linear path's hyperprior, which code the local magnitude of each band.

If the kernels are random, the hyper-latents of transform coefficients die out. Their rate counts
from the first step, but they help only once analysis and synthesis agree on a meaning. So they
begin with one.

A band holds the latents of one color and one octave of squared frequency. The analysis begins as
the mean of |arcsinh(y)| over a band and over 2x2 latents. Each hyper-latent covers four such means,
and they become four of its channels. The synthesis puts them back in their places, interpolates,
and turns them into the logarithm of the scale. All kernels are trained, and the other channels
begin small.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer
from jaxtyping import Float

from fa_hific_jax.models.linear.transform import bands, spread

Kernel = Float[np.ndarray, "_ _ _ _"]

RESOLUTION = 2.0
"""Quantization steps of a hyper-latent per unit of |arcsinh(y)|."""

SLOPE = 1.3
"""Growth of the logarithm of a scale per unit of |arcsinh(y)|: 1 for large y, more for small y."""

USUAL_GAIN = 0.4
"""Approximate gain of y at the middle quality."""

PRIOR_SPREAD = 1.5
"""Initial spread of the hyper-latents' prior. Most hyper-latents begin near 0, a few reach 8."""

OTHERS = 0.1
"""Factor on the random kernels that are added to these."""


class HyperpriorInit(NamedTuple):
    """Initial kernels of the analysis and of the scale synthesis, and last bias of the latter."""

    analysis: tuple[Kernel, Kernel, Kernel]
    synthesis: tuple[Kernel, Kernel, Kernel]
    log_scale: Float[np.ndarray, " cy"]


def hyperprior_init(channels: int, latent_channels: int) -> HyperpriorInit:
    """Returns the kernels for `channels` hyper-latents, and so at most channels / 4 bands."""
    band = bands(latent_channels)
    count = min(int(band.max()) + 1, channels // 4)
    member = np.equal.outer(band, np.arange(count)).astype(np.float64)  # (cy, bands)
    each = np.arange(count)

    magnitudes = np.zeros((3, 3, 2 * latent_channels, channels))
    magnitudes[1, 1, latent_channels:, :count] = member / np.maximum(member.sum(0), 1)
    averages, places = np.zeros((2, 5, 5, channels, channels))
    averages[2:4, 2:4, each, each] = 1 / 4
    back, between = np.zeros((2, 5, 5, channels, channels))
    for phase, (row, column) in enumerate(np.ndindex(2, 2)):
        places[2 + row, 2 + column, each, phase * count + each] = RESOLUTION
        back[2 - row, 2 - column, phase * count + each, each] = 1 / RESOLUTION
    taps = np.array([0, 0.5, 1, 0.5, 0])
    between[:, :, each, each] = np.outer(taps, taps)[:, :, None]
    scales = np.zeros((3, 3, channels, latent_channels))
    scales[1, 1, :count] = SLOPE * member.T

    usual = USUAL_GAIN * spread(latent_channels)
    magnitude = np.arcsinh(0.8 * usual)  # E|y| of a Gaussian is about 0.8 sigma
    expected = member.T @ magnitude / np.maximum(member.sum(0), 1)
    log_scale = np.log(usual) - SLOPE * member @ expected
    return HyperpriorInit((magnitudes, averages, places), (back, between, scales), log_scale)


def around(kernels: tuple[Kernel, Kernel, Kernel]) -> tuple[Initializer, Initializer, Initializer]:
    """Returns initializers of the kernels: these, plus small random values."""

    def around_one(kernel: Kernel) -> Initializer:
        def init(key: Any, shape: Any, dtype: Any = np.float32, out_sharding: Any = None) -> Any:
            random = jax.nn.initializers.glorot_uniform()(key, shape, dtype)
            return jnp.asarray(kernel, dtype) + OTHERS * random

        return init

    first, second, third = kernels
    return around_one(first), around_one(second), around_one(third)
