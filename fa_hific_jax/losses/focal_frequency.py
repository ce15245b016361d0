"""Focal frequency loss: a spectral distance that weights each frequency by its error."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
from fa_hific_jax.ops import Image, at_least_float32

HalfSpectrum = Float[Array, "b p c h w_half"]
Matrix = Float[Array, "_ _ _ _ _"]  # image, patch, height, width, channel


class Focus(NamedTuple):
    """Options that determine the weight of a frequency from its error."""

    alpha: float = 1.0  # exponent: the larger, the more the largest errors count
    log_matrix: bool = False  # take log(1 + weight) before scaling
    batch_matrix: bool = False  # scale by the maximum of the batch, not of each channel and patch


LINEAR = Focus()  # weights proportional to the error


def focal_frequency_loss(
    prediction: Image,
    target: Image,
    *,
    focus: Focus = LINEAR,
    patch_factor: int = 1,
    ave_spectrum: bool = False,
    matrix: Matrix | None = None,
    emphasis: Float[Array, "h half"] | None = None,
) -> Float[Array, ""]:
    """Returns the mean over images, channels and frequencies of w |F(target) - F(prediction)|^2.

    F is the orthonormal 2-D Fourier transform. The weight w = |F(target) - F(prediction)|^alpha is
    scaled to a maximum of 1 and is a constant to differentiation. Jiang et al., "Focal Frequency
    Loss for Image Reconstruction and Synthesis", ICCV 2021, with the options of the authors'
    package `focal-frequency-loss`, whose `loss_weight` is left to the caller.

    Args:
      prediction, target: images or feature maps of one shape, any range; the loss grows with the
        square of the range. Computed in float32, in float64 for float64 inputs.
      focus: exponent alpha and options of the weight.
      patch_factor: number of patches per side, a divisor of both sides; each has its own spectrum.
      ave_spectrum: True to compare spectra averaged over the batch.
      matrix: weights that replace w and `focus`, nominally in [0, 1]. The axes are image (of length
        1 with ave_spectrum), patch (row by row), vertical and horizontal frequency (in the order of
        a full FFT of the patch) and channel, each of its full length or 1. No gradient passes.
      emphasis: factor on the weight of each frequency of a patch's real transform, (height,
        width // 2 + 1); None for a factor of 1.
    """
    # The transform is linear, so one transform of the difference replaces one of each image.
    difference = at_least_float32(prediction) - at_least_float32(target)
    if ave_spectrum:
        difference = jnp.mean(difference, axis=0, keepdims=True)
    b, h, w, c = difference.shape
    if h % patch_factor or w % patch_factor:
        raise UserError(
            f"patch_factor {patch_factor} does not divide the sides of a {h} x {w} input: "
            "choose a common divisor of both"
        )
    patches = difference.reshape(b, patch_factor, h // patch_factor, patch_factor, -1, c)
    patches = patches.transpose(0, 1, 3, 5, 2, 4).reshape(b, -1, c, *patches.shape[2:5:2])
    # A real image has a symmetric spectrum, so one half is enough.
    spectrum = jnp.fft.rfft2(patches, norm="ortho")
    distance = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    # Without stop_gradient, the square root at equal spectra would turn the gradient into NaN.
    constant = jax.lax.stop_gradient(distance)
    if matrix is None:
        weight = _weight(constant, focus)
    else:
        weight = _half_of(jax.lax.stop_gradient(matrix.astype(distance.dtype)), patches.shape)
    if emphasis is not None:
        weight = weight * emphasis[None, None, None].astype(weight.dtype)
    counts = jnp.asarray(multiplicity(patches.shape[-1]), distance.dtype)
    return jnp.sum(weight * distance * counts[None, None, None, None]) / difference.size


def multiplicity(width: int) -> np.ndarray:
    """Returns how often each column of a real transform occurs in the full spectrum, 1 or 2."""
    column = np.arange(width // 2 + 1)
    return np.where((column == 0) | (2 * column == width), 1, 2)


def _weight(distance: HalfSpectrum, focus: Focus) -> HalfSpectrum:
    weight = jnp.sqrt(distance) ** focus.alpha
    if focus.log_matrix:
        weight = jnp.log1p(weight)
    peak = jnp.max(weight, axis=None if focus.batch_matrix else (-2, -1), keepdims=True)
    return jnp.where(peak > 0, weight / jnp.where(peak > 0, peak, jnp.ones_like(peak)), 0.0)


def _half_of(matrix: Matrix, shape: tuple[int, ...]) -> HalfSpectrum:
    """Returns the matrix on the half spectrum: the mean of each frequency and its mirror image."""
    matrix = matrix.transpose(0, 1, 4, 2, 3)
    if any(side not in (1, whole) for side, whole in zip(matrix.shape, shape, strict=True)):
        raise ValueError(
            f"a matrix of shape {matrix.shape} does not fit spectra of shape {shape} "
            "(image, patch, channel, height, width)"
        )
    matrix = jnp.broadcast_to(matrix, (*matrix.shape[:3], *shape[3:]))
    mirrored = jnp.roll(jnp.flip(matrix, (3, 4)), 1, (3, 4))
    return 0.5 * (matrix + mirrored)[..., : shape[4] // 2 + 1]
