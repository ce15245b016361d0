"""Discriminator: is this patch real, given the latents?"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax import ops
from fa_hific_jax.models.layers import SAME_4X4, Conv, Features, Resized, pad

SPECTRAL = "spectral"
"""Collection of the power iteration's vectors, the discriminator's only state."""


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of the discriminator: group `discriminator` of the configs."""

    widths: tuple[int, ...]
    context_channels: int


class SpectralConv(nn.Module):
    """Reflection-padded 4x4 convolution whose kernel is divided by its largest singular value.

    Miyato et al. 2018: sigma = u^T W v with W of shape (outputs, rest); u and v are explicit state
    in the collection "spectral", one power iteration each time it is applied with the collection
    mutable, none otherwise. The gradient flows through W in sigma, not through u and v.
    """

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Features) -> Resized:
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        weights = kernel.reshape(-1, self.features)
        u = self.variable(
            SPECTRAL,
            "u",
            lambda: _unit(jax.random.normal(self.make_rng("params"), (self.features,))),
        )
        v = self.variable(SPECTRAL, "v", lambda: _unit(weights @ u.value))
        if self.is_mutable_collection(SPECTRAL) and not self.is_initializing():
            fixed = jax.lax.stop_gradient(weights)
            v.value = _unit(fixed @ u.value)
            u.value = _unit(v.value @ fixed)
        sigma = v.value @ weights @ u.value
        padding = SAME_4X4 if self.stride == 1 else ((1, 1), (1, 1))
        y = jax.lax.conv_general_dilated(
            pad(x, padding, "reflect"),
            kernel / sigma,
            (self.stride, self.stride),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.reshape(1, 1, 1, -1)


class Discriminator(nn.Module):
    """Conditional patch discriminator of HiFiC (Mentzer et al. 2020, fig. 2 and appendix A).

    4x4 spectrally normalised convolutions, stride 2 but for the last, LeakyReLU(0.2), then 1x1 to
    one logit per patch of 1/8 of the image's size. It sees the image beside a context: y_hat
    through a 3x3 convolution, enlarged 16 times by nearest neighbours.
    """

    config: DiscriminatorConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], y_hat: Float[Array, "b hy wy cy"]
    ) -> Float[Array, "b hd wd 1"]:
        """Logits (positive: real) of images in [0, 1], image i judged with latents i.

        x may be smaller than 16 times y_hat where the image was padded; the context is cropped.
        """
        context = nn.leaky_relu(Conv(self.config.context_channels, 3, name="context")(y_hat), 0.2)
        context = jnp.repeat(jnp.repeat(context, 16, axis=1), 16, axis=2)
        context = context[:, : x.shape[1], : x.shape[2]]
        h = jnp.concatenate([ops.at_least_float32(x), context], axis=-1)
        last = len(self.config.widths) - 1
        for layer, width in enumerate(self.config.widths):
            stride = 1 if layer == last else 2
            h = nn.leaky_relu(SpectralConv(width, stride, name=f"conv{layer}")(h), 0.2)
        return Conv(1, 1, name="conv_out")(h)


def _unit(x):
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)
