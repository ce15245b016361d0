"""Hyperprior: y to z, and z_hat to the mean and scale with which y is coded."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.entropy.factorized import INIT_SCALE, FactorizedPrior
from fa_hific_jax.entropy.gaussian import SCALE_MIN, SCALE_TABLE
from fa_hific_jax.models.band_start import PRIOR_SPREAD, around, band_start
from fa_hific_jax.models.layers import Conv, Size, Upsample, edge_mode, halved, interpolating

Latents = Float[Array, "b hy wy cy"]
HyperLatents = Float[Array, "b hz wz cz"]

LOG_UNIT = "log_unit"
"""Name of the parameter that a synthesis of means in units has; that of scales is logarithmic."""

MAX_LOG_SCALE = float(np.log(SCALE_TABLE[-1])) + 1.0
"""Above the last scale that is coded differently; far above, exp would overflow."""


class HyperAnalysis(nn.Module):
    """z of y, at a quarter of its size: 3x3, then two stride-2 5x5 convolutions, ReLU between.

    Attributes:
      channels: of z and inside the network (paper: 320).
      variant: "pytorch" reflects y at the edges of the 5x5 convolutions, "tensorflow" has zeros.
      dtype: in which convolutions are computed.
      kernel_inits: initialisers of the three kernels, () for the usual ones.
    """

    channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")
    kernel_inits: tuple[nn.initializers.Initializer, ...] = ()

    @nn.compact
    def __call__(self, y: Latents, size: Size | None = None) -> HyperLatents:
        x = y.astype(self.dtype)
        inits = self.kernel_inits or [nn.initializers.glorot_uniform()] * 3
        conv = functools.partial(Conv, self.channels, dtype=self.dtype)
        x = conv(3, mode="constant", kernel_init=inits[0], name="conv0")(x, size)
        down = functools.partial(conv, 5, stride=2, mode=edge_mode(self.variant))
        x = down(kernel_init=inits[1], name="conv1")(nn.relu(x), size)
        z = down(kernel_init=inits[2], name="conv2")(nn.relu(x), halved(size))
        return ops.at_least_float32(z)


class HyperSynthesis(nn.Module):
    """One parameter of the coding distribution, of the size of y: mirror of HyperAnalysis.

    Attributes:
      channels: inside the network.
      latent_channels: of y.
      initial: what it puts out, about, before training; of every channel, or of each.
      dtype: in which convolutions are computed.
      log_unit: logarithm of the unit, of each channel, of what it puts out, before training; it is
        the parameter LOG_UNIT. () for a unit of 1, without parameter.
      kernel_inits: initialisers of the three kernels, () for the usual ones.
    """

    channels: int
    latent_channels: int
    initial: float | tuple[float, ...]
    dtype: jnp.dtype = jnp.dtype("float32")
    log_unit: tuple[float, ...] = ()
    kernel_inits: tuple[nn.initializers.Initializer, ...] = ()

    @nn.compact
    def __call__(self, z_hat: HyperLatents) -> Latents:
        # Rounded z begins as all zeros: without biases no ReLU would be open to its gradient.
        random_bias = nn.initializers.normal(0.1)
        glorot = nn.initializers.glorot_uniform()
        inits = self.kernel_inits or (interpolating, interpolating, glorot)
        x = z_hat.astype(self.dtype)
        for layer in range(2):
            x = Upsample(
                self.channels,
                5,
                kernel_init=inits[layer],
                bias_init=random_bias,
                dtype=self.dtype,
                name=f"up{layer}",
            )(x)
            x = nn.relu(x)
        x = Conv(
            self.latent_channels,
            3,
            mode="constant",
            kernel_init=inits[2],
            bias_init=nn.initializers.constant(jnp.asarray(self.initial)),
            dtype=self.dtype,
            name="conv2",
        )(x)
        x = ops.at_least_float32(x)
        if not self.log_unit:
            return x
        log_unit = self.param(LOG_UNIT, lambda key: jnp.asarray(self.log_unit, jnp.float32))
        return x * jnp.exp(log_unit).reshape(1, 1, 1, -1)


class Hyperprior(nn.Module):
    """Mean-scale hyperprior of HiFiC (Minnen et al. 2018; two separate synthesis networks).

    Attributes:
      channels: of z and inside the networks (paper: 320).
      latent_channels: of y (paper: 220).
      variant: "pytorch" or "tensorflow".
      dtype: in which convolutions are computed.
      spread: standard deviation of each channel of y, about, where they differ by orders of
        magnitude, as coefficients of a transform do. Then the analysis sees arcsinh(y) and its
        magnitude, the synthesis puts out logarithms of scales, and means in a unit per channel.
        () for the hyperprior of HiFiC.
    """

    channels: int
    latent_channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")
    spread: tuple[float, ...] = ()

    def setup(self):
        analysis = functools.partial(
            HyperAnalysis, self.channels, self.variant, self.dtype, name="analysis"
        )
        synthesis = functools.partial(
            HyperSynthesis, self.channels, self.latent_channels, dtype=self.dtype
        )
        if self.spread:
            start = band_start(self.channels, self.latent_channels)
            self.analysis_network = analysis(tuple(map(around, start.analysis)))
            self.synthesis_mean = synthesis(0.0, log_unit=tuple(np.log(self.spread)))
            self.synthesis_scale = synthesis(
                tuple(start.log_scale), kernel_inits=tuple(map(around, start.synthesis))
            )
        else:
            self.analysis_network = analysis()
            self.synthesis_mean, self.synthesis_scale = synthesis(0.0), synthesis(1.0)
        self.prior = FactorizedPrior(
            self.channels, self.variant, PRIOR_SPREAD if self.spread else INIT_SCALE
        )

    def analysis(self, y: Latents, size: Size | None = None) -> HyperLatents:
        """z of y, before rounding."""
        if self.spread:
            y = jnp.arcsinh(y)
            y = jnp.concatenate([y, jnp.abs(y)], axis=-1)
        return self.analysis_network(y, size)

    def synthesis(self, z_hat: HyperLatents) -> tuple[Latents, Latents]:
        """Mean and scale (at least SCALE_MIN) of y."""
        mean, scale = self.synthesis_mean(z_hat), self.synthesis_scale(z_hat)
        if self.spread:
            scale = jnp.exp(jnp.minimum(scale, MAX_LOG_SCALE))
        return mean, ops.lower_bound(scale, SCALE_MIN)
