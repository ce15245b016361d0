"""Gaussian blur of feature maps, differentiable in its width."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
from fa_hific_jax.ops import Image, at_least_float32

Features = Float[Array, "_ _ _ _"]  # as Image, but of a size and width of its own

# Outputs that are computed together; at least one less than the longest kernel.
_BLOCK = 16


def gaussian_blur(x: Image, sigma: Float[Array, ""], size: int) -> Image:
    """Returns each channel of x convolved with a Gaussian, borders reflected.

    The kernel is that of `separable_blur`. The result has the shape of x, which may have any size.
    Differentiable in x and sigma; computed in float32, in float64 for float64 x.

    Raises:
      UserError: size is even or not in 3 to 15.
    """
    if size % 2 == 0:
        raise UserError(f"kernel size {size}: choose an odd number from 3 to 15")
    return separable_blur(at_least_float32(x), sigma, size, "reflect")


def separable_blur(x: Image, sigma: Float[Array, ""], size: int, mode: str) -> Features:
    """Returns each channel of x convolved with a Gaussian kernel, in x's dtype.

    The kernel is exp(-(u^2 + v^2) / (2 sigma^2)), scaled to sum 1, for u and v from -(size // 2)
    on. One of even size, which only the legacy blur uses, has its peak below and to the right of
    the center. The blur is differentiable in sigma, which must be positive.

    `mode` is that of `jnp.pad` for the size // 2 rows and columns that are added at every border.

    Raises:
      UserError: size is not in 3 to 15.
    """
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
