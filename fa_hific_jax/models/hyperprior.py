"""Hyperprior: y to z, and z_hat to the mean and scale with which y is coded."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.entropy.factorized import FactorizedPrior
from fa_hific_jax.entropy.tables import SCALE_MIN
from fa_hific_jax.fidelity.variants import VARIANTS
from fa_hific_jax.models import LOG_UNIT, MEDIAN
from fa_hific_jax.models.layers import Conv, Size, Upsample, halved, interpolating

Latents = Float[Array, "b hy wy cy"]
HyperLatents = Float[Array, "b hz wz cz"]
Initializer = nn.initializers.Initializer

_GLOROT = nn.initializers.glorot_uniform()


class HyperAnalysis(nn.Module):
    """Latents y to z, at a quarter of their size: a 3x3 and two stride-2 5x5 convolutions.

    Attributes:
      channels: channels of z and inside the network (paper: 320).
      variant: key of VARIANTS; the edges of the 5x5 convolutions differ.
      dtype: data type of the convolutions.
      kernel_inits: initializers of the three kernels.
    """

    channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")
    kernel_inits: tuple[Initializer, Initializer, Initializer] = (_GLOROT, _GLOROT, _GLOROT)

    @nn.compact
    def __call__(self, y: Latents, size: Size | None = None) -> HyperLatents:
        inits = self.kernel_inits
        conv = functools.partial(Conv, self.channels, dtype=self.dtype)
        x = y.astype(self.dtype)
        x = conv(3, mode="constant", kernel_init=inits[0], name="conv0")(x, size)
        down = functools.partial(conv, 5, stride=2, mode=VARIANTS[self.variant].edges)
        x = down(kernel_init=inits[1], name="conv1")(nn.relu(x), size)
        z = down(kernel_init=inits[2], name="conv2")(nn.relu(x), halved(size))
        return ops.at_least_float32(z)


class HyperSynthesis(nn.Module):
    """Hyper-latents to one parameter of y's coding distribution, the mirror of HyperAnalysis.

    Attributes:
      channels: channels inside the network.
      latent_channels: channels of y.
      initial: approximate output before training, one number or one for each channel.
      dtype: data type of the convolutions.
      log_unit: initial logarithm of the unit in which each channel of the output is expressed, the
        parameter LOG_UNIT; () for outputs without such a parameter.
      kernel_inits: initializers of the three kernels.
    """

    channels: int
    latent_channels: int
    initial: float | tuple[float, ...]
    dtype: jnp.dtype = jnp.dtype("float32")
    log_unit: tuple[float, ...] = ()
    kernel_inits: tuple[Initializer, Initializer, Initializer] = (
        interpolating,
        interpolating,
        _GLOROT,
    )

    @nn.compact
    def __call__(self, z_hat: HyperLatents) -> Latents:
        # z_hat is zero at first. Without biases no ReLU would pass a gradient to it.
        random_bias = nn.initializers.normal(0.1)
        x = z_hat.astype(self.dtype)
        for layer in range(2):
            x = Upsample(
                self.channels,
                5,
                kernel_init=self.kernel_inits[layer],
                bias_init=random_bias,
                dtype=self.dtype,
                name=f"up{layer}",
            )(x)
            x = nn.relu(x)
        x = Conv(
            self.latent_channels,
            3,
            mode="constant",
            kernel_init=self.kernel_inits[2],
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

    Where the variant has medians, z and z_hat here are those of the networks less the medians, so
    that the rounded z is an integer in every variant. CompressAI learns medians by a loss of their
    own, which this package lacks: they keep their values in training, at first 0.

    Attributes:
      channels: channels of z and inside the networks (paper: 320).
      latent_channels: channels of y (paper: 220).
      variant: key of VARIANTS.
      dtype: data type of the convolutions.
    """

    channels: int
    latent_channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self):
        self.analysis_network = HyperAnalysis(
            self.channels, self.variant, self.dtype, name="analysis"
        )
        synthesis = functools.partial(
            HyperSynthesis, self.channels, self.latent_channels, dtype=self.dtype
        )
        self.synthesis_mean, self.synthesis_scale = synthesis(0.0), synthesis(1.0)
        self.density = FactorizedPrior(self.channels, self.variant, name="prior")
        if VARIANTS[self.variant].medians:
            self.median = self.param(MEDIAN, nn.initializers.zeros, (self.channels,))

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
        if not VARIANTS[self.variant].medians:
            return 0.0
        # Their gradients, as z less and plus them, are 0 but for rounding, which Adam would follow.
        return jax.lax.stop_gradient(self.median).reshape(1, 1, 1, -1)
