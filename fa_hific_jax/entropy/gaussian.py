"""Conditional models of the latents, Gaussian and logistic, and code lengths of likelihoods."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.fidelity.variants import VARIANTS

SCALE_MIN = 0.11
"""Smallest standard deviation; below it a rounded symbol is 0 with near certainty."""

SCALE_TABLE = np.exp(np.linspace(np.log(SCALE_MIN), np.log(256.0), 64)).astype(np.float32)
"""The 64 standard deviations for which coding tables exist (HiFiC, models/hific/archs.py)."""

LIKELIHOOD_MIN = 1e-9


def gaussian_likelihood(
    y: Float[Array, "*s"], mean: Float[Array, "*s"], scale: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    """P(y - 1/2 < Y < y + 1/2) of Y ~ N(mean, scale^2), in float32, at least 1e-9.

    Minnen et al. 2018, eq. 3: a Gaussian convolved with the unit box. `scale` is raised to
    SCALE_MIN. Both bounds let gradients through that would raise what is below them. The
    difference is taken in the lower tail, where it does not cancel.
    """
    return _likelihood(y, mean, scale, _normal_cdf)


def logistic_likelihood(
    y: Float[Array, "*s"], mean: Float[Array, "*s"], scale: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    """P(y - 1/2 < Y < y + 1/2) of a logistic Y, F(v) = sigmoid((v - mean) / scale).

    Otherwise as `gaussian_likelihood`. An option of the PyTorch HiFiC (src/hyperprior.py) with
    which its published medium-rate model was trained.
    """
    return _likelihood(y, mean, scale, jax.nn.sigmoid)


LIKELIHOODS = {"gaussian": gaussian_likelihood, "logistic": logistic_likelihood}


def bits(likelihood: Float[Array, "*s"], variant: str) -> Float[Array, "*s"]:
    """Returns the code length in bits, -log2(likelihood + offset).

    The offset is 1e-9 in the PyTorch HiFiC (src/hyperprior.py); TensorFlow Compression has none.
    The dearest symbol costs 28.9 and 29.9 bits.
    """
    return -jnp.log2(likelihood + VARIANTS[variant].bits_offset)


def _likelihood(y, mean, scale, cdf):
    y, mean, scale = (ops.at_least_float32(array) for array in (y, mean, scale))
    scale = ops.lower_bound(scale, SCALE_MIN)
    distance = jnp.abs(y - mean)
    upper = cdf((0.5 - distance) / scale)
    lower = cdf((-0.5 - distance) / scale)
    return ops.lower_bound(upper - lower, LIKELIHOOD_MIN)


def _normal_cdf(x):
    return 0.5 * jax.scipy.special.erfc(-x / jnp.asarray(np.sqrt(2.0), x.dtype))
