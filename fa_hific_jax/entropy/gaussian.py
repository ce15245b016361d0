"""Gaussian and logistic models of the latents, and code lengths of likelihoods."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.entropy.tables import SCALE_MIN
from fa_hific_jax.fidelity.variants import VARIANTS

LIKELIHOOD_MIN = 1e-9

Values = Float[Array, "*s"]


def _normal_cdf(x):
    return 0.5 * jax.scipy.special.erfc(-x / jnp.asarray(np.sqrt(2.0), x.dtype))


def likelihood(cdf: Callable, y: Values, mean: Values, scale: Values) -> Values:
    """Returns P(y - 1/2 < Y < y + 1/2) for Y = mean + scale X, in float32, at least 1e-9.

    Minnen et al. 2018, eq. 3. `cdf` is that of X, which is symmetric. `scale` is at least
    SCALE_MIN. Values below either bound still get the gradients that would raise them (see
    `ops.lower_bound`). The difference is taken in the lower tail, where it does not cancel.
    """
    y, mean, scale = (ops.at_least_float32(array) for array in (y, mean, scale))
    scale = ops.lower_bound(scale, SCALE_MIN)
    distance = jnp.abs(y - mean)
    upper, lower = cdf((0.5 - distance) / scale), cdf((-0.5 - distance) / scale)
    return ops.lower_bound(upper - lower, LIKELIHOOD_MIN)


gaussian_likelihood = functools.partial(likelihood, _normal_cdf)
LIKELIHOODS = {
    "gaussian": gaussian_likelihood,
    # An option of the PyTorch HiFiC (src/hyperprior.py) that its published medium-rate model uses.
    "logistic": functools.partial(likelihood, jax.nn.sigmoid),
}


def bits(likelihood: Values, variant: str) -> Values:
    """Returns the code length in bits, -log2(likelihood + offset).

    The offset is 1e-9 in the PyTorch HiFiC (src/hyperprior.py), where the most expensive symbol
    costs 28.9 bits, and 0 in TensorFlow Compression and NeuralCompression, where it costs 29.9.
    """
    return -jnp.log2(likelihood + VARIANTS[variant].bits_offset)
