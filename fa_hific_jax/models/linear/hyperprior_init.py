"""What the hyperprior of a linear path begins with: the local size of coefficients, by band.

From random kernels the hyper-latents of a model whose latents are coefficients of a transform die
out: what they cost is felt from the first step, what they are good for only once analysis and
synthesis agree on a meaning. So they are given one. A band is the latents of one color and one
octave of squared frequency. The analysis begins with the mean of |arcsinh(y)| over a band and over
2x2 latents, and the four of these to a hyper-latent's place are four of its channels; the synthesis
puts them in their places again, interpolates, and makes the logarithm of the scale from them. All
of it is trained like any other kernel, and the other channels begin small.
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
"""Steps of a hyper-latent to one unit of |arcsinh(y)|."""

SLOPE = 1.3
"""How much the logarithm of a scale grows with |arcsinh(y)|: 1 where y is large, more below."""

USUAL_GAIN = 0.4
"""About the gain of y in the middle of the qualities."""

PRIOR_SPREAD = 1.5
"""Initial spread of the prior of hyper-latents; a few of them reach 8, most begin near 0."""

OTHERS = 0.1
"""How large random kernels are beside these, of what they would be alone."""


class HyperpriorInit(NamedTuple):
    """Initial kernels of analysis and synthesis of scales, first layer first, and its last bias."""

    analysis: tuple[Kernel, Kernel, Kernel]
    synthesis: tuple[Kernel, Kernel, Kernel]
    log_scale: Float[np.ndarray, " cy"]


def hyperprior_init(channels: int, latent_channels: int) -> HyperpriorInit:
    """For `channels` hyper-latents; bands for which they do not suffice are left out."""
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
    magnitude = np.arcsinh(0.8 * usual)  # about the mean, of a Gaussian
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
