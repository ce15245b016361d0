"""The learned factorized prior of the hyper-latents."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.entropy.gaussian import LIKELIHOOD_MIN
from fa_hific_jax.fidelity.variants import VARIANTS

INIT_SCALE = 10.0
"""Default spread of the initial density, as in Balle et al. and in both HiFiC codes."""

Layer = tuple[Any, Any, Any]
"""H (channels, out, in), b and a (channels, out, 1) of one layer; a is None if it has no g."""


def cdf_logits(layers: Sequence[Layer], values, xp: Any = jnp):
    """Returns the logit of each channel's cumulative at its values, (channels, n) to (channels, n).

    Balle et al. 2018, section 6.1: f_K o ... o f_1 with f_k(v) = g(softplus(H_k) v + b_k) and
    g(v) = v + tanh(a_k) tanh(v), monotone in v. The last layer of the PyTorch HiFiC also has a g;
    those of TensorFlow Compression, CompressAI and the paper do not. `xp` is jax.numpy, or
    numpy for coding tables in float64.
    """
    v = values[:, None, :]
    for h, b, a in layers:
        v = xp.matmul(xp.logaddexp(h, xp.zeros_like(h)), v) + b
        if a is not None:
            v = v + xp.tanh(a) * xp.tanh(v)
    return v[:, 0, :]


def layers_of(params: Mapping[str, Any]) -> list[Layer]:
    """Returns the layers from the parameters of a FactorizedPrior."""
    layers = itertools.takewhile(lambda k: f"h{k}" in params, itertools.count())
    return [(params[f"h{k}"], params[f"b{k}"], params.get(f"a{k}")) for k in layers]


class FactorizedPrior(nn.Module):
    """A learned density of z for each channel, defined by its cumulative (see `cdf_logits`)."""

    channels: int  # of z
    variant: str  # a key of VARIANTS
    init_scale: float = INIT_SCALE  # spread of the initial density

    def setup(self):
        variant, layers = VARIANTS[self.variant], []
        widths = (1, *variant.prior_filters, 1)
        scale = self.init_scale ** (1 / (len(widths) - 1))
        for k, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
            column = (self.channels, fan_out, 1)
            h_init = nn.initializers.constant(np.log(np.expm1(1 / scale / fan_out)))
            h = self.param(f"h{k}", h_init, (self.channels, fan_out, fan_in))
            b = self.param(f"b{k}", _centered_uniform, column)
            curved = k < len(widths) - 2 or not variant.prior_ends_linear
            a = self.param(f"a{k}", nn.initializers.zeros, column) if curved else None
            layers.append((h, b, a))
        self.layers = layers

    def __call__(self, z: Float[Array, "b hz wz c"]) -> Float[Array, "b hz wz c"]:
        """Returns P(z - 1/2 < Z < z + 1/2) in float32, at least 1e-9."""
        z = ops.at_least_float32(z)
        values = z.reshape(-1, self.channels).T
        lower, upper = cdf_logits(self.layers, values - 0.5), cdf_logits(self.layers, values + 0.5)
        # Where both sigmoids are near 1, their difference would cancel, so it is taken in the other
        # tail, unlike in CompressAI. `jnp.sign` would make the likelihood 0 at the exact median.
        sign = jnp.where(lower + upper > 0, -1.0, 1.0)
        likelihood = jnp.abs(jax.nn.sigmoid(sign * upper) - jax.nn.sigmoid(sign * lower))
        return ops.lower_bound(likelihood.T.reshape(z.shape), LIKELIHOOD_MIN)


def _centered_uniform(key, shape):
    return jax.random.uniform(key, shape, minval=-0.5, maxval=0.5)
