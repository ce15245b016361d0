"""Convolution by Winograd's minimal filtering, with fewer multiplications than its definition.

Lavin & Gray 2016 (arXiv 1509.09308). Each tile of 4x4 outputs of an r x r kernel sees n x n inputs,
n = 4 + r - 1. In one dimension, inputs d and taps g are polynomials; their values at n points
(the last is infinity) are multiplied, and the outputs are read off the products:

  y = A^T [(G g) * (B^T d)],  in two dimensions  Y = A^T [(G g G^T) * (B^T d B)] A.

The sum over channels moves inside the brackets, so that each of the n^2 points is one matrix
product (tiles, c) @ (c, o). That takes n^2 / 16 products per output instead of r^2: a quarter for
3x3 kernels, 1 / 2.56 for 2x2.

The points decide the rounding errors, since B^T, G and A^T hold their powers. With (0, 1, -1, 1/2,
-2) errors are a third of those of Lavin's (0, 1, -1, 2, -2): 6e-6 of the largest output at 960
channels in float32.

Time goes to memory before arithmetic, so large images are transformed by bands of rows, which stay
in the cache.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

TILE = 4
"""Side of a tile of outputs."""

_POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
_CACHED = 2**22  # values of the transformed inputs of a band


def convolve(x: Float[Array, "b h w c"], kernel: Float[Array, "r r c o"]) -> Array:
    """Returns the products of the kernel (2x2 or 3x3) with each window of x: (b, h-r+1, w-r+1, o).

    The result has the dtype of x. In float32 it differs from that of the definition by a few 1e-6
    of the largest output.
    """
    side, _, channels, outputs = kernel.shape
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    rows, columns = -(-height // TILE), -(-width // TILE)
    row = (side + TILE - 1) ** 2 * len(x) * columns * max(channels, outputs)
    bands = min(rows, -(-rows * row // _CACHED))
    band = -(-rows // bands)
    bottom, right = TILE * bands * band - height, TILE * columns - width
    x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
    weights = _transformed_kernel(kernel, after=x)

    def one(start: Array | int) -> Array:
        part = lax.dynamic_slice_in_dim(x, start, TILE * band + side - 1, axis=1)
        inputs, grid = _transformed(part, side)
        return _untiled(_outputs(inputs, weights), grid)

    if bands == 1:
        return one(0)[:, :height, :width]
    y = jnp.moveaxis(lax.map(one, TILE * band * jnp.arange(bands)), 0, 1)
    return y.reshape(len(x), -1, *y.shape[3:])[:, :height, :width]


def _transformed(x: Array, side: int) -> tuple[Array, tuple[int, int, int]]:
    """Returns B^T d B of all tiles, (points, tiles, c), and (images, rows, columns) of tiles."""
    images, _, _, channels = x.shape
    matrix = jnp.asarray(matrices(side)[0], x.dtype)
    points = len(matrix)
    rows, columns = ((extent - side + 1) // TILE for extent in x.shape[1:3])
    shifted = [x[:, i : i + TILE * (rows - 1) + 1 : TILE] for i in range(points)]
    x = matrix @ jnp.stack(shifted).reshape(points, -1)
    x = x.reshape(points, images, rows, -1, channels)
    shifted = [x[:, :, :, i : i + TILE * (columns - 1) + 1 : TILE] for i in range(points)]
    x = matrix @ jnp.stack(shifted).reshape(points, -1)
    return x.reshape(points**2, -1, channels), (images, rows, columns)


def _transformed_kernel(kernel: Array, after: Array) -> Array:
    """Returns G g G^T, (points, c, o), in the order of `_transformed`: columns, then rows.

    XLA would transform the kernels of all layers first, and hold four times their memory. So this
    one waits for the input of its layer: a zero that comes from it is added to the matrix.
    """
    side, _, channels, outputs = kernel.shape
    matrix = matrices(side)[1]
    both = np.einsum("ar,bc->barc", matrix, matrix).reshape(-1, side**2)
    zero = (after[0, 0, 0, 0] > jnp.inf).astype(kernel.dtype)
    weights = (jnp.asarray(both, kernel.dtype) + zero) @ kernel.reshape(side**2, -1)
    return weights.reshape(-1, channels, outputs)


def _outputs(inputs: Array, weights: Array) -> Array:
    """Returns A^T [...] A, (TILE * TILE, tiles, o), from transformed inputs and kernel."""
    points, _, outputs = weights.shape
    matrix = matrices(math.isqrt(points) - TILE + 1)[2]
    both = np.einsum("ya,xb->yxba", matrix, matrix).reshape(-1, points)
    products = lax.dot_general(inputs, weights, (((2,), (1,)), ((0,), (0,))))
    y = jnp.asarray(both, inputs.dtype) @ products.reshape(points, -1)
    return y.reshape(TILE**2, -1, outputs)


def _untiled(y: Array, grid: tuple[int, int, int]) -> Array:
    """Returns the images of outputs by tile: (TILE * TILE, tiles, o)."""
    images, rows, columns = grid
    y = y.reshape(TILE, TILE, *grid, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(images, TILE * rows, TILE * columns, -1)


@functools.cache
def matrices(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns B^T (n, n), G (n, side) and A^T (TILE, n), float64, by the method of Toom and Cook.

    G and A^T are the powers of the points; those of infinity are the highest power alone. G is
    divided by N_p, the product of the differences of p from the other points, which also are the
    roots of the polynomials in the rows of B^T.
    """
    points = np.array(_POINTS[: side + TILE - 2])
    others = [np.delete(points, i) for i in range(len(points))]
    scales = [np.prod(p - rest) for p, rest in zip(points, others, strict=True)]

    def powers(count):
        return np.vander(points, count, increasing=True)

    infinite = np.eye(side)[-1:], np.eye(TILE)[:, -1:]
    g = np.concatenate([powers(side) / np.array(scales)[:, None], infinite[0]])
    a = np.concatenate([powers(TILE).T, infinite[1]], axis=1)
    rows = [np.append(np.poly(rest)[::-1], 0.0) for rest in others] + [np.poly(points)[::-1]]
    return np.stack(rows), g, a
