"""Gaussian blur of feature maps, differentiable in its width."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fa_hific_jax.errors import UserError
from fa_hific_jax.ops import Image, at_least_float32

Features = Float[Array, "_ _ _ _"]  # like Image, but of a size and width of its own

# Outputs that are computed together; at least one less than the longest kernel.
_BLOCK = 16


def gaussian_blur(x: Image, sigma: Float[Array, ""], size: int) -> Image:
    """Returns `separable_blur` of x with reflected borders, of any sides and in x's shape.

    It is computed in float32, in float64 for float64 x. A size that is even or not in 3 to 15
    raises a UserError.
    """
    if size % 2 == 0:
        raise UserError(f"kernel size {size}: choose an odd number from 3 to 15")
    return separable_blur(at_least_float32(x), sigma, size, "reflect")


def separable_blur(x: Image, sigma: Float[Array, ""], size: int, mode: str) -> Features:
    """Returns each channel of x convolved with a Gaussian kernel, in x's dtype.

    The kernel is exp(-(u^2 + v^2) / (2 sigma^2)), scaled to sum 1, for u and v from -(size // 2)
    on. One of even size, which only the legacy blur uses, has its peak below and to the right of
    the center. The blur is differentiable in sigma, which must be positive. `mode` is that of
    `jnp.pad` for the size // 2 rows and columns that are added at every border.
    """
    if not 3 <= size <= 15:
        raise UserError(f"kernel size {size}: choose a number from 3 to 15")
    sigma = sigma.astype(x.dtype)
    distance = jnp.arange(size, dtype=sigma.dtype) - size // 2
    kernel = jax.nn.softmax(-0.5 * jnp.square(distance / sigma))
    for axis, product in ((1, "ij,bnjwc->bniwc"), (2, "ij,bhnjc->bhnic")):
        x = _along(x, kernel, axis, product, mode)
    return x


def _along(x: Image, kernel: Float[Array, " size"], axis: int, product: str, mode: str) -> Features:
    """Returns the correlation of x, padded at both ends of an axis, with the kernel along it.

    Each block of outputs is the product of one banded matrix with the inputs that it depends on.
    Value and gradient on a CPU, at (1, 256, 256, 16), take 45 % of the time that one matrix for the
    whole side takes, 40 % of that of sums of shifted images, and far less than grouped
    convolutions.
    """

    def padded(x, before, after, mode):
        edges = [(before, after) if i == axis else (0, 0) for i in range(4)]
        return jnp.pad(x, edges, mode=mode)

    size, block = len(kernel), _BLOCK
    x = padded(x, size // 2, size // 2, mode)
    outputs = x.shape[axis] - size + 1
    blocks = -(-outputs // block)
    x = padded(x, 0, (blocks + 1) * block - x.shape[axis], "constant")
    x = x.reshape(*x.shape[:axis], blocks + 1, block, *x.shape[axis + 1 :])
    before, after = (jax.lax.slice_in_dim(x, i, i + blocks, axis=axis) for i in (0, 1))
    after = jax.lax.slice_in_dim(after, 0, size - 1, axis=axis + 1)
    seen = jnp.concatenate([before, after], axis=axis + 1)
    band = jnp.stack([jnp.pad(kernel, (i, block - 1 - i)) for i in range(block)])
    y = jnp.einsum(product, band, seen, precision=jax.lax.Precision.HIGHEST)
    y = y.reshape(*y.shape[:axis], blocks * block, *y.shape[axis + 2 :])
    return jax.lax.slice_in_dim(y, 0, outputs, axis=axis)
