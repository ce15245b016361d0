"""Hyperprior for latents that are coefficients of a transform."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from fa_hific_jax import ops
from fa_hific_jax.entropy.factorized import FactorizedPrior
from fa_hific_jax.entropy.tables import SCALE_MIN, SCALE_TABLE
from fa_hific_jax.models.hyperprior import HyperAnalysis, HyperLatents, HyperSynthesis, Latents
from fa_hific_jax.models.layers import Size
from fa_hific_jax.models.linear.hyperprior_init import PRIOR_SPREAD, around, hyperprior_init
from fa_hific_jax.models.linear.transform import spread

MAX_LOG_SCALE = float(np.log(SCALE_TABLE[-1])) + 1.0
"""Upper bound of a logarithmic scale, above the largest scale of the coding tables and far below
those at which exp overflows."""


class CoefficientHyperprior(nn.Module):
    """Mean-scale hyperprior for channels whose sizes differ by orders of magnitude.

    It has the networks of `models.hyperprior.Hyperprior`. Its analysis sees arcsinh(y) and the
    magnitude of that. Its synthesis returns logarithms of scales, and means in a unit that is
    learned for each channel.
    Its initial parameters are those of `hyperprior_init`.

    Attributes:
      channels: channels of z and inside the networks.
      latent_channels: channels of y.
      variant: key of VARIANTS.
      dtype: data type of the convolutions.
    """

    channels: int
    latent_channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self):
        start = hyperprior_init(self.channels, self.latent_channels)
        self.analysis_network = HyperAnalysis(
            self.channels,
            self.variant,
            self.dtype,
            around(start.analysis),
            name="analysis",
        )
        synthesis = functools.partial(
            HyperSynthesis, self.channels, self.latent_channels, dtype=self.dtype
        )
        units = tuple(np.log(spread(self.latent_channels)))
        self.synthesis_mean = synthesis(0.0, log_unit=units)
        self.synthesis_scale = synthesis(
            tuple(start.log_scale), kernel_inits=around(start.synthesis)
        )
        self.prior = FactorizedPrior(self.channels, self.variant, PRIOR_SPREAD)

    def analysis(self, y: Latents, size: Size | None = None) -> HyperLatents:
        """Returns z of y, before rounding."""
        y = jnp.arcsinh(y)
        return self.analysis_network(jnp.concatenate([y, jnp.abs(y)], axis=-1), size)

    def synthesis(self, z_hat: HyperLatents) -> tuple[Latents, Latents]:
        """Returns mean and scale (at least SCALE_MIN) of y."""
        log_scale = jnp.minimum(self.synthesis_scale(z_hat), MAX_LOG_SCALE)
        return self.synthesis_mean(z_hat), ops.lower_bound(jnp.exp(log_scale), SCALE_MIN)
