"""Dynamic spectrum loss: focal frequency loss of Gaussian-blurred feature maps."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
from fa_hific_jax.losses.focal_frequency import focal_frequency_loss
from fa_hific_jax.ops import Image, at_least_float32

Features = Float[Array, "_ _ _ _"]  # as Image, but of a size and width of its own


def spectrum_loss(
    encoder_features: Sequence[Features],
    generator_features: Sequence[Features],
    *,
    sigmas: Float[Array, "2 _"] | None = None,
    kernel_size: int = 9,
    **ffl_options: Any,
) -> Float[Array, ""]:
    """Mean over levels i of FFL(blur(C_i, sigmas[1, i]), blur(A_i, sigmas[0, i])).

    With constant sigmas this is the spectrum loss (SL), with trained ones the dynamic spectrum
    loss (DSL), without sigmas (no blur) the focal frequency loss of the features. Lin et al.,
    "Catch Missing Details: Image Reconstruction with Frequency Augmented Variational Autoencoder",
    CVPR 2023.

    The code of the FA-HiFiC authors blurs otherwise: its kernel also sums over the channels, so
    that all output channels are the same, and it pads with zeros. This is the depthwise blur of
    the paper, with the reflected borders of the FA-VAE code. The authors further divide each
    level's loss by its channel count, although FFL is a mean over channels already.

    Args:
      encoder_features: A_i, finest level first, any range.
      generator_features: C_i, of the shapes of A_i.
      sigmas: positive standard deviations in pixels of each level; row 0 of the encoder, row 1 of
        the generator.
      kernel_size: side of the Gaussian kernel, odd, 3 to 15.
      **ffl_options: passed to `focal_frequency_loss`.

    Raises:
      UserError: kernel_size is even or out of range.
      ValueError: the numbers of levels differ.
    """
    levels = len(encoder_features)
    if len(generator_features) != levels or (sigmas is not None and sigmas.shape != (2, levels)):
        raise ValueError(
            f"{levels} encoder levels, {len(generator_features)} generator levels and sigmas of "
            f"shape {None if sigmas is None else sigmas.shape} do not go together"
        )
    losses = []
    for i, (a, c) in enumerate(zip(encoder_features, generator_features, strict=True)):
        if sigmas is not None:
            a = gaussian_blur(a, sigmas[0, i], kernel_size)
            c = gaussian_blur(c, sigmas[1, i], kernel_size)
        losses.append(focal_frequency_loss(c, a, **ffl_options))
    return jnp.mean(jnp.stack(losses))


def gaussian_blur(x: Image, sigma: Float[Array, ""], size: int) -> Image:
    """Each channel of x convolved with `gaussian_kernel(size, sigma)`, borders reflected.

    The shape stays, whatever the sides. Differentiable in x and sigma; computed in float32, in
    float64 for float64 x.
    """
    x = at_least_float32(x)
    kernel = _gaussian_1d(size, sigma.astype(x.dtype))
    # The kernel is separable. For value and gradient on CPU, products with a banded matrix along
    # each side take a third of the time of sums of shifted images at (8, 64, 64, 16), two thirds at
    # (2, 256, 256, 60), and about a tenth of that of grouped convolutions.
    rows, columns = (_blur_matrix(kernel, side) for side in x.shape[1:3])
    precision = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ij,bjwc->biwc", rows, x, precision=precision)
    return jnp.einsum("ij,bhjc->bhic", columns, x, precision=precision)


def gaussian_kernel(size: int, sigma: Float[Array, ""]) -> Float[Array, "size size"]:
    """exp(-(u^2 + v^2) / (2 sigma^2)) on the pixel grid around the centre, with sum 1.

    Differentiable in sigma, which must be positive.

    Raises:
      UserError: size is not odd and in 3 to 15.
    """
    kernel = _gaussian_1d(size, sigma)
    return kernel[:, None] * kernel[None, :]


def sigma_from_raw(raw: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """softplus(raw): a positive sigma from an unconstrained parameter."""
    return jax.nn.softplus(raw)


def raw_from_sigma(sigma: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """The raw parameter from which `sigma_from_raw` gives this positive sigma."""
    return sigma + jnp.log(-jnp.expm1(-sigma))


def _gaussian_1d(size: int, sigma: Float[Array, ""]) -> Float[Array, " size"]:
    if size % 2 == 0 or not 3 <= size <= 15:
        raise UserError(f"kernel size {size}: choose an odd number from 3 to 15")
    distance = jnp.arange(size, dtype=sigma.dtype) - size // 2
    return jax.nn.softmax(-0.5 * jnp.square(distance / sigma))


def _blur_matrix(kernel: Float[Array, " size"], side: int) -> Float[Array, "side side"]:
    """M with M @ column = the column, reflected at its ends, convolved with the kernel."""
    (size,) = kernel.shape
    identity = jnp.eye(side, dtype=kernel.dtype)
    padded = jnp.pad(identity, ((size // 2, size // 2), (0, 0)), mode="reflect")
    shifted = jnp.stack([padded[k : k + side] for k in range(size)])
    return jnp.einsum("k,kij->ij", kernel, shifted, precision=jax.lax.Precision.HIGHEST)
