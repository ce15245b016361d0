"""A linear transform of 16x16 blocks beside encoder and generator, begun as the DCT.

With it the networks need not learn to carry an image through latents, which takes a plain HiFiC
most of its training: the model begins as a transform codec of JPEG's kind with a learned entropy
model, and the networks learn what to add to its latents and to its pictures. Both transforms are
trained with the rest.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fa_hific_jax import ops

LINEAR_PATHS = ("none", "beside", "alone")
"""How it stands to the networks; alone it is all of the autoencoder but the hyperprior."""

BLOCK = 16
VALUES = 3 * BLOCK**2
"""Of a block of pixels."""

FINEST_STEP = 1 / 10
"""Step, for images in [0, 1], in which the orthonormal coefficients of an untrained model are
rounded at a gain of 1."""

CHROMA = 6.0
"""How much higher a frequency of colour differences counts, in square, when the coefficients are
chosen: their power is so much lower in photographs."""

_LEVELS = 2.0, 0.55, 0.28
_FALL = 0.66
_OF_MEANS = 3.0
"""Standard deviation of a coefficient in photographs: level of its colour, over (1 + squared
frequency)^fall, and more of the mean; fitted to halved photographs."""

_COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])


class BlockAnalysis(nn.Module):
    """What the linear path adds to y: the transform of each block of an image in [0, 1].

    Attributes:
      latent_channels: of y, at most `VALUES`.
    """

    latent_channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b hy wy cy"]:
        kernel = self.param("kernel", _analysis, (1, 1, VALUES, self.latent_channels))
        blocks = ops.at_least_float32(x) - 0.5
        b, h, w, _ = blocks.shape
        blocks = blocks.reshape(b, h // BLOCK, BLOCK, w // BLOCK, BLOCK, 3)
        blocks = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // BLOCK, w // BLOCK, VALUES)
        return blocks @ (kernel[0, 0] / FINEST_STEP)


class BlockSynthesis(nn.Module):
    """What the linear path makes of y: `BLOCK`^2 pixels of three colours for each latent."""

    @nn.compact
    def __call__(self, y_hat: Float[Array, "b hy wy cy"]) -> Float[Array, "b hy wy v"]:
        kernel = self.param("kernel", _synthesis, (1, 1, y_hat.shape[-1], VALUES))
        return ops.at_least_float32(y_hat) @ (kernel[0, 0] * FINEST_STEP) + 0.5


def image_of(blocks: Float[Array, "b hy wy v"]) -> Float[Array, "b h w 3"]:
    """The image of which `BlockSynthesis` made the blocks."""
    b, h, w, _ = blocks.shape
    blocks = blocks.reshape(b, h, w, BLOCK, BLOCK, 3).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(b, h * BLOCK, w * BLOCK, 3)


def spread(count: int) -> Float[np.ndarray, " count"]:
    """About the standard deviation of each of the `count` lowest coefficients of y, untrained."""
    order = _order(count)
    colour, square = order // BLOCK**2, _squares().ravel()[order % BLOCK**2]
    means = np.where(square == 1, _OF_MEANS, 1.0)
    return means * np.asarray(_LEVELS)[colour] / square**_FALL / FINEST_STEP


def bands(count: int) -> Int[np.ndarray, " count"]:
    """Band of each coefficient, an octave of squared frequency in one colour; -1 of means."""
    order = _order(count)
    colour, square = order // BLOCK**2, _squares().ravel()[order % BLOCK**2]
    kind = np.where(square == 1, -1, 100 * colour + np.floor(np.log2(square)).astype(int))
    found = np.unique(kind[kind >= 0])
    return np.where(kind < 0, -1, np.searchsorted(found, kind))


def dct_basis(count: int) -> Float[np.ndarray, "v count"]:
    """The orthonormal DCT-II of colour blocks: its `count` lowest coefficients, lowest first.

    Colours are taken as their sum and two differences, in which R, G and B are little correlated.
    """
    place, frequency = np.arange(BLOCK) + 0.5, np.arange(BLOCK)
    cosines = np.cos(np.pi / BLOCK * np.outer(frequency, place)) * np.sqrt(2 / BLOCK)
    cosines[0] /= np.sqrt(2)
    basis = np.einsum("uy,vx,kc->kuvyxc", cosines, cosines, _COLOURS).reshape(VALUES, VALUES)
    return basis[_order(count)].T


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
