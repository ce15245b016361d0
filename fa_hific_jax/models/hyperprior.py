"""Hyperprior: y to z, and z_hat to the mean and scale with which y is coded."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.entropy.factorized import FactorizedPrior
from fa_hific_jax.entropy.gaussian import SCALE_MIN
from fa_hific_jax.models.layers import Conv, Size, Upsample, edge_mode, halved

Latents = Float[Array, "b hy wy cy"]
HyperLatents = Float[Array, "b hz wz cz"]


class HyperAnalysis(nn.Module):
    """z of y, at a quarter of its size: 3x3, then two stride-2 5x5 convolutions, ReLU between.

    Attributes:
      channels: of z and inside the network (paper: 320).
      variant: "pytorch" reflects y at the edges of the 5x5 convolutions, "tensorflow" has zeros.
      dtype: in which convolutions are computed.
    """

    channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, y: Latents, size: Size | None = None) -> HyperLatents:
        x = y.astype(self.dtype)
        conv = Conv(self.channels, 3, mode="constant", dtype=self.dtype, name="conv0")
        x = nn.relu(conv(x, size))
        down = functools.partial(
            Conv, self.channels, 5, stride=2, mode=edge_mode(self.variant), dtype=self.dtype
        )
        x, size = nn.relu(down(name="conv1")(x, size)), halved(size)
        z = down(name="conv2")(x, size)
        return ops.at_least_float32(z)


class HyperSynthesis(nn.Module):
    """One parameter of the coding distribution, of the size of y: mirror of HyperAnalysis.

    Attributes:
      channels: inside the network.
      latent_channels: of y.
      initial: what it puts out, about, before training.
      dtype: in which convolutions are computed.
    """

    channels: int
    latent_channels: int
    initial: float
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, z_hat: HyperLatents) -> Latents:
        # Rounded z begins as all zeros: without biases no ReLU would be open to its gradient.
        random_bias = nn.initializers.normal(0.1)
        x = z_hat.astype(self.dtype)
        for layer in range(2):
            x = Upsample(
                self.channels, 5, bias_init=random_bias, dtype=self.dtype, name=f"up{layer}"
            )(x)
            x = nn.relu(x)
        x = Conv(
            self.latent_channels,
            3,
            mode="constant",
            bias_init=nn.initializers.constant(self.initial),
            dtype=self.dtype,
            name="conv2",
        )(x)
        return ops.at_least_float32(x)


class Hyperprior(nn.Module):
    """Mean-scale hyperprior of HiFiC (Minnen et al. 2018; two separate synthesis networks).

    Attributes:
      channels: of z and inside the networks (paper: 320).
      latent_channels: of y (paper: 220).
      variant: "pytorch" or "tensorflow".
      dtype: in which convolutions are computed.
    """

    channels: int
    latent_channels: int
    variant: str
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self):
        self.analysis = HyperAnalysis(self.channels, self.variant, self.dtype)
        self.synthesis_mean = HyperSynthesis(self.channels, self.latent_channels, 0.0, self.dtype)
        self.synthesis_scale = HyperSynthesis(self.channels, self.latent_channels, 1.0, self.dtype)
        self.prior = FactorizedPrior(self.channels, self.variant)

    def synthesis(self, z_hat: HyperLatents) -> tuple[Latents, Latents]:
        """Mean and scale (at least SCALE_MIN) of y."""
        scale = ops.lower_bound(self.synthesis_scale(z_hat), SCALE_MIN)
        return self.synthesis_mean(z_hat), scale
