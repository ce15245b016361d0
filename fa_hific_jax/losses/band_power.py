"""Power of images by spatial frequency: where detail lacks, and a loss that asks for it.

FFL compares spectra with their phases, so that its minimum is as blurred as that of the squared
error. What a viewer misses in blurred texture is power, wherever its phase puts it.
"""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fa_hific_jax.ops import Image, at_least_float32

RINGS = 8
"""Of equal width, from 0 to 0.5 cycles per pixel; the corners beyond count with the last."""

CELLS = 16
"""To a cycle per pixel, along both axes; those of the half plane count, the others mirror them."""

BLOCK = 32
"""Side of the blocks whose spectra are taken, pixels: as large as texture that looks alike."""

FLOOR = 1.0 / 255.0**2
"""Added to powers: detail of less than a grey level is not asked for."""


def ring_log_power(x: Image) -> Float[Array, "b blocks rings"]:
    """ln(mean power + FLOOR) of each ring and block, all channels together.

    Of images in [0, 1], each block under a Hann window of unit power, with the orthonormal
    transform: white noise of variance v has power v in every ring. What is left over at the right
    and bottom of images whose sides are no multiples of BLOCK is left out; images with a side below
    BLOCK are one block.
    """
    return _log_power(x, ring_shares)


def cell_log_power(x: Image) -> Float[Array, "b blocks cells"]:
    """As `ring_log_power`, of cells.

    A regular pattern is a few frequencies: of the power of texture in a ring, but in few cells.
    """
    return _log_power(x, cell_shares)


def _log_power(x: Image, shares: Callable[[int, int], np.ndarray]) -> Float[Array, "b blocks _"]:
    x = at_least_float32(x)
    blocks = _blocks(x)
    height, width = blocks.shape[2:4]
    window = _hann(height)[:, None] * _hann(width)[None]
    window = jnp.asarray(window / np.sqrt(np.mean(window**2)), x.dtype)
    centred = blocks - jnp.mean(blocks, axis=(2, 3), keepdims=True)
    spectrum = jnp.fft.rfft2(centred * window[None, None, :, :, None], axes=(2, 3), norm="ortho")
    power = jnp.mean(jnp.square(spectrum.real) + jnp.square(spectrum.imag), axis=-1)
    members = jnp.asarray(shares(height, width), x.dtype)
    return jnp.log(jnp.einsum("nbhw,hwr->nbr", power, members) + FLOOR)


def power_loss(prediction: Image, target: Image) -> Float[Array, ""]:
    """Mean over images, blocks and cells of (ln P(prediction) - ln P(target))^2."""
    difference = cell_log_power(prediction) - cell_log_power(target)
    return jnp.mean(jnp.square(difference))


def deficit(prediction: Image, target: Image) -> Float[Array, " rings"]:
    """Mean of ln P(target) - ln P(prediction) for each ring: positive where power is missing."""
    return jnp.mean(ring_log_power(target) - ring_log_power(prediction), axis=(0, 1))


@functools.cache
def ring_of(height: int, width: int) -> np.ndarray:
    """Ring of each frequency of a real transform, int of shape (height, width // 2 + 1)."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    return np.minimum((2 * RINGS * radius).astype(int), RINGS - 1)


@functools.cache
def cell_of(height: int, width: int) -> np.ndarray:
    """Cell of each frequency of a real transform, int of shape (height, width // 2 + 1)."""
    row = (CELLS * (np.fft.fftfreq(height) % 1.0)).astype(int)
    column = np.minimum((CELLS * np.fft.rfftfreq(width)).astype(int), CELLS // 2 - 1)
    return row[:, None] * (CELLS // 2) + column[None]


@functools.cache
def ring_shares(height: int, width: int) -> np.ndarray:
    """Weights (height, width // 2 + 1, RINGS) with which frequencies make up the mean of a ring."""
    return _shares(ring_of(height, width), RINGS, width)


@functools.cache
def cell_shares(height: int, width: int) -> np.ndarray:
    """Weights (height, width // 2 + 1, cells) with which frequencies make up the mean of a cell."""
    return _shares(cell_of(height, width), CELLS * CELLS // 2, width)


def _shares(band: np.ndarray, bands: int, width: int) -> np.ndarray:
    column = np.arange(width // 2 + 1)
    twice = np.where((column == 0) | (2 * column == width), 1.0, 2.0)
    members = np.eye(bands)[band] * twice[None, :, None]
    members[0, 0] = 0.0  # brightness is no texture
    return members / np.maximum(members.sum(axis=(0, 1)), 1.0)


def _blocks(x: Image) -> Float[Array, "b blocks high wide c"]:
    batch, height, width, channels = x.shape
    high, wide = (BLOCK if side >= BLOCK else side for side in (height, width))
    rows, columns = height // high, width // wide
    x = x[:, : rows * high, : columns * wide]
    x = x.reshape(batch, rows, high, columns, wide, channels).swapaxes(2, 3)
    return x.reshape(batch, rows * columns, high, wide, channels)


def _hann(n: int) -> np.ndarray:
    return np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2
