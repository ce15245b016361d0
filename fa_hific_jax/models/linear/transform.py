"""Linear transform of 16x16 blocks beside encoder and generator, which begins as a lapped DCT.

A plain HiFiC spends most of its training on learning to carry an image through latents. With this
transform the model begins as a transform codec of JPEG's kind with a learned entropy model. The
networks learn what to add to its latents and to its pictures. The transform is trained with them.

At low rates, separate blocks would be visible. So the pixels on both sides of each border between
blocks are mixed before the analysis and after the synthesis, which makes it a lapped transform: a
DCT behind a pre-filter (Tran, Liang & Tu 2003, "Lapped transform via time-domain pre- and
post-filtering"). The filter is the biorthogonal one of Malvar (1998, "Biorthogonal and nonuniform
lapped transforms for transform coding with reduced blocking and ringing artifacts"). It spreads the
mean of a block as a smooth bump that overlaps the neighbors. The filters are not trained.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy  # Its submodules load when they are first used; networks without this one need none.
from jaxtyping import Array, Float, Int

from fa_hific_jax import ops
from fa_hific_jax.models.layers import Size
from fa_hific_jax.settings.model import BLOCK_VALUES

BLOCK = 16
"""Side of a block in pixels."""

FINEST_STEP = 1 / 10
"""Quantization step of an untrained model's orthonormal coefficients at a gain of 1, for images in
[0, 1]."""

CHROMA = 6.0
"""Factor on the squared frequency of color differences when coefficients are chosen. The power of
color differences in photographs is that much lower."""

# The image itself passes here: TPUs would otherwise round it to 8 bits.
_PRECISION = jax.lax.Precision.HIGHEST

_LEVELS = 2.0, 0.55, 0.28
_FALL = 0.66
_OF_MEANS = 3.0
"""Model of a coefficient's standard deviation in photographs, fitted to photographs at half size:
the level of its color over (1 + squared frequency)^fall, times a factor for means."""

_COLORS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])


class LinearAnalysis(nn.Module):
    """Transforms each block of an image in [0, 1] to one vector of latents.

    Attributes:
      latent_channels: channels of y, at most BLOCK_VALUES.
    """

    latent_channels: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], size: Size | None = None
    ) -> Float[Array, "b hy wy cy"]:
        kernel = self.param("kernel", _analysis, (1, 1, BLOCK_VALUES, self.latent_channels))
        blocks = _mix_borders(ops.at_least_float32(x) - 0.5, border_filter(), size)
        b, h, w, _ = blocks.shape
        blocks = blocks.reshape(b, h // BLOCK, BLOCK, w // BLOCK, BLOCK, 3)
        blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // BLOCK, w // BLOCK, -1)
        return jnp.matmul(blocks, kernel[0, 0] / FINEST_STEP, precision=_PRECISION)


class LinearSynthesis(nn.Module):
    """Transforms each vector of latents to one block of an image, 16 times as large as y_hat."""

    @nn.compact
    def __call__(
        self, y_hat: Float[Array, "b hy wy cy"], size: Size | None = None
    ) -> Float[Array, "b h w 3"]:
        kernel = self.param("kernel", _synthesis, (1, 1, y_hat.shape[-1], BLOCK_VALUES))
        y_hat = ops.at_least_float32(y_hat)
        blocks = jnp.matmul(y_hat, kernel[0, 0] * FINEST_STEP, precision=_PRECISION) + 0.5
        b, h, w, _ = blocks.shape
        blocks = blocks.reshape(b, h, w, BLOCK, BLOCK, 3).transpose(0, 1, 3, 2, 4, 5)
        image = blocks.reshape(b, h * BLOCK, w * BLOCK, 3)
        pixels = None if size is None else (size[0] * BLOCK, size[1] * BLOCK)
        return _mix_borders(image, np.linalg.inv(border_filter()), pixels)


def border_filter() -> Float[np.ndarray, "16 16"]:
    """Returns the matrix of the pre-filter for the `BLOCK` pixels around a border.

    It keeps the even part of the pixels and multiplies the odd part by V = J C2^T D C4 J. C2 and C4
    are DCT-II and DCT-IV, J reverses the order, and D multiplies the lowest coefficient by sqrt(2).
    At a mirrored edge of the image the odd part is zero, so edges are not filtered.
    """
    half = BLOCK // 2
    gains = np.ones(half)
    gains[0] = np.sqrt(2)
    fourth = np.asarray(scipy.fft.dct(np.eye(half), type=4, norm="ortho", axis=0))
    odd = np.asarray(scipy.fft.idct(gains[:, None] * fourth, norm="ortho", axis=0))[::-1, ::-1]
    same, turned = np.eye(half), np.eye(half)[::-1]
    split = np.block([[same, turned], [turned, -same]])
    return split @ scipy.linalg.block_diag(same, odd) @ split / 2


def spread(count: int) -> Float[np.ndarray, " count"]:
    """Returns the approximate standard deviation of each of the `count` lowest coefficients."""
    order = _order(count)
    color, square = order // BLOCK**2, _squares().ravel()[order % BLOCK**2]
    means = np.where(square == 1, _OF_MEANS, 1.0)
    return means * np.asarray(_LEVELS)[color] / square**_FALL / FINEST_STEP


def bands(count: int) -> Int[np.ndarray, " count"]:
    """Returns the band of each coefficient: its color and octave of squared frequency.

    Means have no band, -1.
    """
    order = _order(count)
    color, square = order // BLOCK**2, _squares().ravel()[order % BLOCK**2]
    kind = np.where(square == 1, -1, 100 * color + np.floor(np.log2(square)).astype(int))
    found = np.unique(kind[kind >= 0])
    return np.where(kind < 0, -1, np.searchsorted(found, kind))


def dct_basis(count: int) -> Float[np.ndarray, "v count"]:
    """Returns the `count` lowest basis vectors of the orthonormal DCT-II of color blocks.

    The colors are the sum of R, G and B and two differences, which are hardly correlated.
    """
    cosines = np.asarray(scipy.fft.dct(np.eye(BLOCK), norm="ortho", axis=0))
    basis = np.einsum("uy,vx,kc->kuvyxc", cosines, cosines, _COLORS).reshape(BLOCK_VALUES, -1)
    return basis[_order(count)].T


def _mix_borders(
    image: Float[Array, "b h w 3"], mix: Float[np.ndarray, "16 16"], size: Size | None
) -> Float[Array, "b h w 3"]:
    """Returns the image with the pixels around each border between blocks multiplied by `mix`.

    With a `size`, only the borders within that part, at the top left, are mixed.
    """
    for axis in (0, 1):
        image = jnp.swapaxes(image, 1, 2)
        b, extent, other, colors = image.shape
        borders, half = extent // BLOCK - 1, BLOCK // 2
        runs = image[:, half : extent - half].reshape(b, borders, BLOCK, other, colors)
        mixed = jnp.einsum("ij,bkjwc->bkiwc", mix.astype(image.dtype), runs, precision=_PRECISION)
        if size is not None:
            within = (jnp.arange(borders, dtype=jnp.int32) + 1) * BLOCK < size[1 - axis]
            mixed = jnp.where(within[:, None, None, None], mixed, runs)
        mixed = mixed.reshape(b, borders * BLOCK, other, colors)
        ends = image[:, :half], image[:, extent - half :]
        image = jnp.concatenate([ends[0], mixed, ends[1]], axis=1)
    return image


def _squares() -> Float[np.ndarray, "16 16"]:
    square = np.arange(BLOCK) ** 2
    return 1.0 + np.add.outer(square, square)


def _order(count: int) -> np.ndarray:
    rank = np.multiply.outer([1.0, CHROMA, CHROMA], _squares()).ravel()
    return np.argsort(rank, kind="stable")[:count]


def _analysis(key: jax.Array, shape: tuple[int, int, int, int]) -> Float[Array, "1 1 v cy"]:
    del key
    return jnp.asarray(dct_basis(shape[3]), jnp.float32)[None, None]


def _synthesis(key: jax.Array, shape: tuple[int, int, int, int]) -> Float[Array, "1 1 cy v"]:
    del key
    return jnp.asarray(dct_basis(shape[2]).T, jnp.float32)[None, None]
