"""Dynamic spectrum loss: focal frequency loss of Gaussian-blurred feature maps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.focal_frequency import LINEAR, Focus, focal_frequency_loss
from fa_hific_jax.ops import Image, at_least_float32

Features = Float[Array, "_ _ _ _"]  # as Image, but of a size and width of its own

WEIGHTINGS = ("mean", "authors")
"""Weightings of the levels in `spectrum_loss`."""

# Outputs of a blur that are computed together; at least one less than the longest kernel.
_BLOCK = 16


def spectrum_loss(
    encoder_features: Sequence[Features],
    generator_features: Sequence[Features],
    *,
    sigmas: Float[Array, "2 _"] | None = None,
    kernel_size: int = 9,
    legacy_kernel: bool = False,
    weighting: str = "mean",
    focus: Focus = LINEAR,
) -> Float[Array, ""]:
    """Returns the sum over levels i of weight_i FFL(blur(C_i, s[1, i]), blur(A_i, s[0, i])).

    With constant sigmas s this is the spectrum loss (SL), with trained ones the dynamic spectrum
    loss (DSL), without sigmas (no blur) the focal frequency loss of the features. Lin et al.,
    "Catch Missing Details: Image Reconstruction with Frequency Augmented Variational Autoencoder",
    CVPR 2023. The default is that paper's mean over levels and its depthwise blur, with reflected
    borders as in the FA-VAE code. Kernel and weights of the FA-HiFiC authors are options.

    Args:
      encoder_features: A_i, finest level first, any range.
      generator_features: C_i, of the shapes of A_i.
      sigmas: positive standard deviations in pixels for each level; row 0 is for the encoder, row 1
        for the generator. The four of the FA-HiFiC authors are [[A1, A2], [C1, C2]].
      kernel_size: side of the Gaussian kernel, 3 to 15, odd unless legacy.
      legacy_kernel: True to blur with `legacy_gaussian_blur`.
      weighting: one of WEIGHTINGS. "mean" (FA-VAE): 1 / number of levels. "authors" (FA-HiFiC):
        1 / channels of the level, 1/60 and 1/120 at the paper's widths, although FFL is a mean over
        channels already.
      focus: options of `focal_frequency_loss`.

    Raises:
      UserError: kernel_size is out of range, or even.
      ValueError: the numbers of levels differ, or the weighting is unknown.
    """
    levels = len(encoder_features)
    if len(generator_features) != levels or (sigmas is not None and sigmas.shape != (2, levels)):
        raise ValueError(
            f"{levels} encoder levels, {len(generator_features)} generator levels and sigmas of "
            f"shape {None if sigmas is None else sigmas.shape} do not go together"
        )
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting {weighting!r}: choose one of {', '.join(WEIGHTINGS)}")
    blur = legacy_gaussian_blur if legacy_kernel else gaussian_blur
    losses = []
    for i, (a, c) in enumerate(zip(encoder_features, generator_features, strict=True)):
        divisor = levels if weighting == "mean" else a.shape[-1]
        if sigmas is not None:
            a, c = blur(a, sigmas[0, i], kernel_size), blur(c, sigmas[1, i], kernel_size)
        losses.append(focal_frequency_loss(c, a, focus=focus) / divisor)
    return jnp.sum(jnp.stack(losses))


def gaussian_blur(x: Image, sigma: Float[Array, ""], size: int) -> Image:
    """Returns each channel of x convolved with `gaussian_kernel(size, sigma)`, borders reflected.

    The result has the shape of x, which may have any size. Differentiable in x and sigma; computed
    in float32, in float64 for float64 x.

    Raises:
      UserError: size is even or not in 3 to 15.
    """
    if size % 2 == 0:
        raise UserError(f"kernel size {size}: choose an odd number from 3 to 15")
    return _convolve(at_least_float32(x), sigma, size, "reflect")


def legacy_gaussian_blur(
    x: Image, sigma: Float[Array, ""], size: int
) -> Float[Array, "b blurred_h blurred_w 1"]:
    """The FA-HiFiC authors' blur: the sum of all channels, blurred with zeros around.

    Their code (src/network/gaussian_kernel.py) repeats the kernel over output and input channels,
    so that each output channel is the blur of the sum over input channels; all are the same and
    one is given here, of which focal frequency loss has the same mean. Borders darken. With an
    even size the result has a row and a column more than x. Precision as in `gaussian_blur`.

    Raises:
      UserError: size is not in 3 to 15.
    """
    x = jnp.sum(at_least_float32(x), axis=-1, keepdims=True)
    return _convolve(x, sigma, size, "constant")


def gaussian_kernel(size: int, sigma: Float[Array, ""]) -> Float[Array, "size size"]:
    """Returns exp(-(u^2 + v^2) / (2 sigma^2)), scaled to sum 1, for u and v from -(size // 2) on.

    Differentiable in sigma, which must be positive. A kernel of even size, which only the legacy
    blur uses, has its peak below and to the right of the center.

    Raises:
      UserError: size is not in 3 to 15.
    """
    kernel = _gaussian_1d(size, sigma)
    return kernel[:, None] * kernel[None, :]


def sigma_from_raw(raw: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns softplus(raw), a positive sigma from an unconstrained parameter."""
    return jax.nn.softplus(raw)


def raw_from_sigma(sigma: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Returns the parameter from which `sigma_from_raw` gives this positive sigma."""
    return sigma + jnp.log(-jnp.expm1(-sigma))


def _convolve(x: Image, sigma: Float[Array, ""], size: int, mode: str) -> Features:
    kernel = _gaussian_1d(size, sigma.astype(x.dtype))
    for axis in (1, 2):  # The kernel is separable.
        x = _along(x, kernel, axis, mode)
    return x


def _gaussian_1d(size: int, sigma: Float[Array, ""]) -> Float[Array, " size"]:
    if not 3 <= size <= 15:
        raise UserError(f"kernel size {size}: choose a number from 3 to 15")
    distance = jnp.arange(size, dtype=sigma.dtype) - size // 2
    return jax.nn.softmax(-0.5 * jnp.square(distance / sigma))


def _along(x: Image, kernel: Float[Array, " size"], axis: int, mode: str) -> Features:
    """Returns the correlation of x, padded at both ends of an axis, with the kernel along it.

    Each block of outputs is the product of one banded matrix with the inputs that it depends on.
    Value and gradient on a CPU, at (1, 256, 256, 16), take 45 % of the time that one matrix for the
    whole side takes, 40 % of that of sums of shifted images, and far less than grouped
    convolutions.
    """
    size, block = len(kernel), _BLOCK
    outputs = x.shape[axis] + 2 * (size // 2) - size + 1
    blocks = -(-outputs // block)
    x = _pad(x, axis, size // 2, size // 2, mode)
    x = _pad(x, axis, 0, (blocks + 1) * block - x.shape[axis], "constant")
    x = x.reshape(*x.shape[:axis], blocks + 1, block, *x.shape[axis + 1 :])
    before, after = (jax.lax.slice_in_dim(x, i, i + blocks, axis=axis) for i in (0, 1))
    seen = jnp.concatenate(
        [before, jax.lax.slice_in_dim(after, 0, size - 1, axis=axis + 1)], axis=axis + 1
    )
    band = jnp.stack([jnp.pad(kernel, (i, block - 1 - i)) for i in range(block)])
    product = "ij,bnjwc->bniwc" if axis == 1 else "ij,bhnjc->bhnic"
    y = jnp.einsum(product, band, seen, precision=jax.lax.Precision.HIGHEST)
    y = y.reshape(*y.shape[:axis], blocks * block, *y.shape[axis + 2 :])
    return jax.lax.slice_in_dim(y, 0, outputs, axis=axis)


def _pad(x: Image, axis: int, before: int, after: int, mode: str) -> Features:
    edges = [(0, 0)] * 4
    edges[axis] = (before, after)
    return jnp.pad(x, edges, mode=mode)
