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

Features = Float[Array, "b h w c"]
Resized = Float[Array, "b _ _ _"]
Size = tuple[Int[Array, ""], Int[Array, ""]]
"""Height and width of the true image at the top left of an array; the rest has no meaning.

With it one compiled program serves images of many sizes, with the results that arrays of the true
sizes would have. Convolutions reflect, or see zeros, at the true border.
"""


def same_padding(kernel: int) -> Padding:
    """Returns the padding with which an odd kernel is centered on its output pixel."""
    return ((kernel // 2, kernel // 2), (kernel // 2, kernel // 2))


def pad(
    x: Features,
    padding: Padding,
    mode: Literal["reflect", "constant"],
    size: Size | None = None,
) -> Resized:
    """Returns x with rows and columns added: reflected without repeating the edge, or zeros.

    With a size the added values begin at the true border and replace what lies beyond it.
    """
    if size is None:
        return jnp.pad(x, ((0, 0), *padding, (0, 0)), mode=mode)
    for axis, (before, after), extent in zip((1, 2), padding, size, strict=True):
        position = jnp.arange(-before, x.shape[axis] + after, dtype=jnp.int32)
        period = jnp.maximum(2 * (extent - 1), 1)
        phase = position % period
        source = jnp.where(phase < extent, phase, period - phase)
        x = jnp.take(x, source, axis=axis, mode="clip")
        if mode == "constant":
            x = _zero_outside(x, axis, (position >= 0) & (position < extent))
    return x


def halved(size: Size | None) -> Size | None:
    """Returns the true size after a stride of 2, for an even size."""
    return None if size is None else (size[0] // 2, size[1] // 2)


def doubled(size: Size | None) -> Size | None:
    """Returns the true size after an upsampling."""
    return None if size is None else (2 * size[0], 2 * size[1])


def _zero_outside(x: Array, axis: int, inside: Array) -> Array:
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    return jnp.where(inside.reshape(shape), x, jnp.zeros_like(x))


class Conv(nn.Module):
    """Convolution of a padded input.

    Attributes:
      features: output channels.
      kernel: side of the square kernel.
      stride: step in both directions.
      padding: rows and columns to add; by default those that center the kernel.
      mode: "reflect" or "constant" (zeros).
      kernel_init: initial kernel; Glorot uniform as in the Keras layers of the original HiFiC.
      bias_init: initial bias.
      dtype: data type of the convolution; parameters are float32.
    """

    features: int
    kernel: int
    stride: int = 1
    padding: Padding | None = None
    mode: Literal["reflect", "constant"] = "reflect"
    kernel_init: nn.initializers.Initializer = nn.initializers.glorot_uniform()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Features, size: Size | None = None) -> Resized:
        padding = same_padding(self.kernel) if self.padding is None else self.padding
        return nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding="VALID",
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            dtype=self.dtype,
            conv_general_dilated=lambda x, kernel, strides, *_, **__: convolve(
                x, kernel, strides[0]
            ),
        )(pad(x, padding, self.mode, size))


def interpolating(key, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Returns a kernel that interpolates between pixels (linearly if 3x3) and mixes channels.

    If all taps are random, the four phases of the output are unrelated functions of the input, and
    training has to remove this checkerboard at every level first. So the phases begin alike (Aitken
    et al. 2017), and only the mixing of channels is random.
    """
    side = shape[0]
    taps = np.convolve([1.0, 1.0], np.full(side - 1, 1.0 / (side - 1)))
    window = jnp.asarray(np.outer(taps, taps)[:, :, None, None], dtype)
    return window * nn.initializers.glorot_uniform()(key, shape[2:], dtype)[None, None]


class Upsample(nn.Module):
    """Transposed convolution that exactly doubles the size, the adjoint of a stride-2 convolution.

    The stored kernel correlates with the zero-dilated input: it is PyTorch's kernel flipped in both
    spatial axes, with input and output channels swapped. `center` taps lie before the one on the
    output pixel itself, by default kernel // 2, as for PyTorch's ConvTranspose2d with
    `padding=kernel // 2, output_padding=1`.

    One convolution of the small input computes the four phases of the output, which are then
    interleaved. On a CPU, XLA's gradients of dilated convolutions are several times slower.
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
        y = convolve(x, phases.astype(self.dtype))
        batch, height, width, _ = y.shape
        y = y.reshape(batch, height, width, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        y = y.reshape(batch, 2 * height, 2 * width, self.features)
        return y + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class ChannelNorm(nn.Module):
    """Normalization of each pixel over its channels, with a gain and an offset per channel.

    It computes (x - mean) / sqrt(var + 1e-3) * gamma + beta, where var is the unbiased variance
    (division by C - 1) as in HiFiC (tensorflow/compression, models/hific/archs.py). It keeps no
    statistics and mixes no positions, so training, tiles and whole images of any size agree. It
    computes in float32 and returns the dtype of its input.
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

    edges: Literal["reflect", "constant"]
    dtype: jnp.dtype = jnp.dtype("float32")

    @nn.compact
    def __call__(self, x: Features, size: Size | None = None) -> Features:
        channels = x.shape[-1]
        conv = functools.partial(Conv, channels, 3, mode=self.edges, dtype=self.dtype)
        inner = nn.relu(ChannelNorm(name="norm1")(conv(name="conv1")(x, size)))
        inner = conv(name="conv2")(inner, size)
        return x + ChannelNorm(name="norm2")(inner)
