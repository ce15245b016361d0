"""Convolutions with the paddings of the references, ChannelNorm and the residual block."""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fa_hific_jax import ops
from fa_hific_jax.fidelity.variants import Padding
from fa_hific_jax.models.convolution import convolve
from fa_hific_jax.settings.model import ModelConfig

Images = Float[Array, "b h w 3"]
Latents = Float[Array, "b hy wy cy"]
LatentFeatures = Float[Array, "b hy wy f"]
HyperLatents = Float[Array, "b hz wz cz"]
Features = Float[Array, "b h w c"]
Resized = Float[Array, "b _ _ _"]
FeatureMaps = tuple[Resized, ...]
PerImage = Float[Array, " b"]
Edges = Literal["reflect", "constant"]
Size = tuple[Int[Array, ""], Int[Array, ""]]
"""Height and width of the true image at the top left of an array; the rest has no meaning.

With it one compiled program serves images of many sizes, with the results that arrays of the true
sizes would have. Convolutions reflect, or see zeros, at the true border.
"""

GLOROT = nn.initializers.glorot_uniform()  # as in the Keras layers of the original HiFiC


def last_kernel(config: ModelConfig) -> nn.initializers.Initializer:
    """Returns the initializer with which a network begins by adding nothing to a linear path."""
    return GLOROT if config.linear_path == "none" else nn.initializers.zeros


def shrunk(size: Size | None, by: int) -> Size | None:
    """Returns the true size after the sides were divided by an integer."""
    return None if size is None else (size[0] // by, size[1] // by)


def grown(size: Size | None, by: int) -> Size | None:
    """Returns the true size after the sides were multiplied by an integer."""
    return None if size is None else (by * size[0], by * size[1])


def same_padding(kernel: int) -> Padding:
    """Returns the padding with which an odd kernel is centered on its output pixel."""
    return ((kernel // 2, kernel // 2), (kernel // 2, kernel // 2))


def pad(x: Features, padding: Padding, mode: Edges, size: Size | None = None) -> Resized:
    """Returns x with rows and columns added: reflected without repeating the edge, or zeros.

    With a size the added values begin at the true border and replace what lies beyond it.
    """
    if size is None:
        return jnp.pad(x, ((0, 0), *padding, (0, 0)), mode=mode)
    for axis, (before, after), extent in zip((1, 2), padding, size, strict=True):
        position = jnp.arange(-before, x.shape[axis] + after, dtype=jnp.int32)
        period = jnp.maximum(2 * (extent - 1), 1)
        phase = position % period
        x = jnp.take(x, jnp.where(phase < extent, phase, period - phase), axis=axis, mode="clip")
        if mode == "constant":
            inside = jnp.expand_dims((position >= 0) & (position < extent), (0, 3 - axis, 3))
            x = jnp.where(inside, x, jnp.zeros_like(x))
    return x


def fold(image: Features, side: int) -> Resized:
    """Returns side^2 c channels for each block of side x side pixels, row by row."""
    b, h, w, c = image.shape
    blocks = image.reshape(b, h // side, side, w // side, side, c).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, h // side, w // side, side**2 * c)


def unfold(channels: Features, side: int) -> Resized:
    """Inverse of `fold`."""
    b, h, w, c = channels.shape
    blocks = channels.reshape(b, h, w, side, side, c // side**2).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, side * h, side * w, c // side**2)


class Conv(nn.Module):
    """Convolution of a padded input, by default with the padding that centers the kernel.

    It is computed in `dtype`; parameters are float32.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: Padding | None = None
    mode: Edges = "reflect"
    kernel_init: nn.initializers.Initializer = GLOROT
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Features, size: Size | None = None) -> Resized:
        conv = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            padding="VALID",
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            dtype=self.dtype,
            conv_general_dilated=lambda x, w, strides, *_, **__: convolve(x, w, strides[0]),
        )
        return conv(pad(x, self.padding or same_padding(self.kernel), self.mode, size))


def interpolating(key, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Returns a kernel that interpolates between pixels (linearly if 3x3) and mixes channels.

    If all taps are random, the four phases of the output are unrelated functions of the input, and
    training has to remove this checkerboard at every level first. So the phases begin alike (Aitken
    et al. 2017), and only the mixing of channels is random.
    """
    side = shape[0]
    taps = np.convolve([1.0, 1.0], np.full(side - 1, 1.0 / (side - 1)))
    window = jnp.asarray(np.outer(taps, taps)[:, :, None, None], dtype)
    return window * GLOROT(key, shape[2:], dtype)[None, None]


class Upsample(nn.Module):
    """Transposed convolution that exactly doubles the size, the adjoint of a stride-2 convolution.

    The stored kernel correlates with the zero-dilated input: it is PyTorch's kernel flipped in both
    spatial axes, with input and output channels swapped. `center` taps lie before the one on the
    output pixel itself, by default kernel // 2, as for PyTorch's ConvTranspose2d with
    `padding=kernel // 2, output_padding=1`. One convolution of the small input computes the four
    phases of the output: on a CPU, XLA's gradients of dilated convolutions are several times
    slower.
    """

    features: int
    kernel: int
    center: int | None = None
    kernel_init: nn.initializers.Initializer = interpolating
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Features, size: Size | None = None) -> Resized:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,))
        # Output 2 i + r sees input i + s - reach through tap 2 s + 1 - r, counted from the first
        # tap of the kernel once it has been padded to an even side.
        center = self.kernel // 2 if self.center is None else self.center
        before = (center + 1) % 2
        widen = (before, (self.kernel + before) % 2)
        taps = (self.kernel + sum(widen)) // 2
        reach = (center + before - 1) // 2
        phases = jnp.pad(kernel, (widen, widen, (0, 0), (0, 0)))
        phases = phases.reshape(taps, 2, taps, 2, *shape[2:])[:, ::-1, :, ::-1]
        phases = phases.transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, x.shape[-1], -1)
        edges = (reach, taps - 1 - reach)
        x = pad(x.astype(self.dtype), (edges, edges), "constant", size)
        y = unfold(convolve(x, phases.astype(self.dtype)), 2)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class ChannelNorm(nn.Module):
    """(x - mean) / sqrt(var + 1e-3) * gamma + beta over the channels of each pixel, in float32.

    var is the unbiased variance (division by C - 1) as in HiFiC (tensorflow/compression,
    models/hific/archs.py). The norm keeps no statistics and mixes no positions, so training, tiles
    and whole images of any size agree.
    """

    @nn.compact
    def __call__(self, x: Features) -> Features:
        channels = x.shape[-1]
        gamma = self.param("gamma", nn.initializers.ones, (channels,))
        beta = self.param("beta", nn.initializers.zeros, (channels,))
        wide = ops.at_least_float32(x)
        centered = wide - jnp.mean(wide, axis=-1, keepdims=True)
        variance = jnp.sum(jnp.square(centered), axis=-1, keepdims=True) / max(channels - 1, 1)
        shape = (1, 1, 1, channels)
        normalized = centered * jax.lax.rsqrt(variance + 1e-3)
        return (normalized * gamma.reshape(shape) + beta.reshape(shape)).astype(x.dtype)


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), without an activation after the sum."""

    edges: Edges
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Features, size: Size | None = None) -> Features:
        conv = functools.partial(Conv, x.shape[-1], 3, mode=self.edges, dtype=self.dtype)
        inner = nn.relu(ChannelNorm(name="norm1")(conv(name="conv1")(x, size)))
        return x + ChannelNorm(name="norm2")(conv(name="conv2")(inner, size))
