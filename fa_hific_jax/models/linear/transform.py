"""A linear transform of 16x16 blocks beside encoder and generator, begun as a lapped DCT.

With it the networks need not learn to carry an image through latents, which takes a plain HiFiC
most of its training: the model begins as a transform codec of JPEG's kind with a learned entropy
model, and the networks learn what to add to its latents and to its pictures. The transforms of
blocks are trained with the rest.

Blocks alone would show where few bits are spent. So pixels on both sides of each border between
blocks are mixed before the transform and after it, which makes a lapped transform of it: the DCT
behind a pre-filter (Tran, Liang & Tu 2003, "Lapped transform via time-domain pre- and
post-filtering"), the biorthogonal one of Malvar (1998, "Biorthogonal and nonuniform lapped
transforms for transform coding with reduced blocking and ringing artifacts"), by which a mean is
painted as a smooth bump that overlaps its neighbors and has no edge. The filters are not trained.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
import scipy.linalg
from jaxtyping import Array, Float, Int

from fa_hific_jax import ops
from fa_hific_jax.models.layers import Size
from fa_hific_jax.settings.model import BLOCK_VALUES

BLOCK = 16
"""Side of a block in pixels."""

FINEST_STEP = 1 / 10
"""Step, for images in [0, 1], in which the orthonormal coefficients of an untrained model are
rounded at a gain of 1."""

CHROMA = 6.0
"""How much higher a frequency of color differences counts, in square, when the coefficients are
chosen: their power is so much lower in photographs."""

# The image itself passes here: TPUs would otherwise round it to 8 bits.
_PRECISION = jax.lax.Precision.HIGHEST

_LEVELS = 2.0, 0.55, 0.28
_FALL = 0.66
_OF_MEANS = 3.0
"""Standard deviation of a coefficient in photographs: level of its color, over (1 + squared
frequency)^fall, and more of the mean; fitted to halved photographs."""

_COLORS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])


class LinearAnalysis(nn.Module):
    """Transform of each block of an image in [0, 1] to one vector of latents.

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
    """Image, 16 times as large as y_hat, in which each vector of latents makes one block."""

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
    """The pre-filter: what becomes of the `BLOCK` pixels around a border, half on each side.

    Their even part passes; their odd part goes through V = J C2^T D C4 J, where C2 and C4 are
    DCT-II and DCT-IV, J turns the order round and D multiplies the lowest coefficient by sqrt(2).
    At an image's edge, mirrored, there is no odd part, and so nothing to do.
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
    """About the standard deviation of each of the `count` lowest coefficients of y, untrained."""
    order = _order(count)
    color, square = order // BLOCK**2, _squares().ravel()[order % BLOCK**2]
    means = np.where(square == 1, _OF_MEANS, 1.0)
    return means * np.asarray(_LEVELS)[color] / square**_FALL / FINEST_STEP


def bands(count: int) -> Int[np.ndarray, " count"]:
    """Band of each coefficient, an octave of squared frequency in one color; -1 of means."""
    order = _order(count)
    color, square = order // BLOCK**2, _squares().ravel()[order % BLOCK**2]
    kind = np.where(square == 1, -1, 100 * color + np.floor(np.log2(square)).astype(int))
    found = np.unique(kind[kind >= 0])
    return np.where(kind < 0, -1, np.searchsorted(found, kind))


def dct_basis(count: int) -> Float[np.ndarray, "v count"]:
    """The orthonormal DCT-II of color blocks: its `count` lowest coefficients, lowest first.

    Colors are taken as their sum and two differences, in which R, G and B are little correlated.
    """
    cosines = np.asarray(scipy.fft.dct(np.eye(BLOCK), norm="ortho", axis=0))
    basis = np.einsum("uy,vx,kc->kuvyxc", cosines, cosines, _COLORS).reshape(BLOCK_VALUES, -1)
    return basis[_order(count)].T


def _mix_borders(
    image: Float[Array, "b h w 3"], mix: Float[np.ndarray, "16 16"], size: Size | None
) -> Float[Array, "b h w 3"]:
    """Each run of pixels around a border between blocks, of rows and of columns, times a matrix.

    With a `size`, only borders within the part of that size at the top left.
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
