"""Hyperprior: y to z, and z_hat to the mean and scale with which y is coded."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fa_hific_jax import ops
from fa_hific_jax.entropy.factorized import FactorizedPrior
from fa_hific_jax.entropy.tables import SCALE_MIN
from fa_hific_jax.fidelity.variants import VARIANTS
from fa_hific_jax.models import LOG_UNIT, MEDIAN
from fa_hific_jax.models.layers import (
    GLOROT,
    Conv,
    HyperLatents,
    Latents,
    Size,
    Upsample,
    interpolating,
    shrunk,
)
from fa_hific_jax.settings.model import ModelConfig

Initializers = tuple[nn.initializers.Initializer, ...]


class HyperAnalysis(nn.Module):
    """Latents y to z, at a quarter of their size: a 3x3 and two stride-2 5x5 convolutions.

    All have the channels of z. The edges of the 5x5 ones are those of the variant.
    """

    channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")
    kernel_inits: Initializers = (GLOROT, GLOROT, GLOROT)

    @nn.compact
    def __call__(self, y: Latents, size: Size | None = None) -> HyperLatents:
        inits = self.kernel_inits
        conv = functools.partial(Conv, self.channels, dtype=self.dtype)
        down = functools.partial(conv, 5, stride=2, mode=VARIANTS[self.variant].edges)
        x = y.astype(self.dtype)
        x = conv(3, mode="constant", kernel_init=inits[0], name="conv0")(x, size)
        x = down(kernel_init=inits[1], name="conv1")(nn.relu(x), size)
        z = down(kernel_init=inits[2], name="conv2")(nn.relu(x), shrunk(size, 2))
        return ops.at_least_float32(z)


class HyperSynthesis(nn.Module):
    """Hyper-latents to one parameter of y's coding distribution, the mirror of HyperAnalysis.

    The output before training is about `initial`, one number or one for each channel. `log_unit` is
    the initial value of the parameter LOG_UNIT; with () there is no such parameter.
    """

    channels: int
    latent_channels: int
    initial: float | tuple[float, ...]
    dtype: jnp.dtype = jnp.dtype("float32")
    log_unit: tuple[float, ...] = ()
    kernel_inits: Initializers = (interpolating, interpolating, GLOROT)

    @nn.compact
    def __call__(self, z_hat: HyperLatents) -> Latents:
        *ups, last = self.kernel_inits
        x = z_hat.astype(self.dtype)
        # z_hat is zero at first. Without biases no ReLU would pass a gradient to it.
        up = functools.partial(Upsample, self.channels, 5, bias_init=nn.initializers.normal(0.1))
        for layer, init in enumerate(ups):
            x = nn.relu(up(kernel_init=init, dtype=self.dtype, name=f"up{layer}")(x))
        conv = Conv(
            self.latent_channels,
            3,
            mode="constant",
            kernel_init=last,
            bias_init=nn.initializers.constant(jnp.asarray(self.initial)),
            dtype=self.dtype,
            name="conv2",
        )
        x = ops.at_least_float32(conv(x))
        if not self.log_unit:
            return x
        log_unit = self.param(LOG_UNIT, lambda key: jnp.asarray(self.log_unit, jnp.float32))
        return x * jnp.exp(log_unit).reshape(1, 1, 1, -1)


class Hyperprior(nn.Module):
    """Mean-scale hyperprior of HiFiC (Minnen et al. 2018; two separate synthesis networks).

    Where the variant has medians, z and z_hat here are those of the networks less the medians, so
    that the rounded z is an integer in every variant. CompressAI learns medians by a loss of their
    own, which this package lacks: they keep their values in training, at first 0.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self):
        channels, variant = self.config.hyper_channels, self.config.variant
        self.analysis_network = HyperAnalysis(channels, variant, self.dtype, name="analysis")
        synthesis = functools.partial(HyperSynthesis, channels, self.config.latent_channels)
        self.synthesis_mean = synthesis(0.0, self.dtype)
        self.synthesis_scale = synthesis(1.0, self.dtype)
        self.density = FactorizedPrior(channels, variant, name="prior")
        if VARIANTS[variant].medians:
            self.median = self.param(MEDIAN, nn.initializers.zeros, (channels,))

    def analysis(self, y: Latents, size: Size | None = None) -> HyperLatents:
        """Returns z of y, before rounding."""
        return self.analysis_network(y, size) - self._medians()

    def synthesis(self, z_hat: HyperLatents) -> tuple[Latents, Latents]:
        """Returns mean and scale (at least SCALE_MIN) of y."""
        z_hat = z_hat + self._medians()
        scale = self.synthesis_scale(z_hat)
        return self.synthesis_mean(z_hat), ops.lower_bound(scale, SCALE_MIN)

    def prior(self, z: HyperLatents) -> HyperLatents:
        """Returns P(z - 1/2 < Z < z + 1/2), see `FactorizedPrior`."""
        return self.density(z + self._medians())

    def _medians(self) -> Any:
        if not VARIANTS[self.config.variant].medians:
            return 0.0
        # Their gradients, as z less and plus them, are 0 but for rounding, which Adam would follow.
        return jax.lax.stop_gradient(self.median).reshape(1, 1, 1, -1)
