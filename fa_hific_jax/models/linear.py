"""Linear path: a transform of 16x16 blocks beside encoder and generator, and its hyperprior.

A plain HiFiC spends most of its training on learning to carry an image through latents. With this
transform the model begins as a transform codec of JPEG's kind with a learned entropy model. The
networks learn what to add to its latents and to its pictures. The transform is trained with them.

At low rates, separate blocks would be visible. So the pixels on both sides of each border between
blocks are mixed before the analysis and after the synthesis by a filter that is not trained. This
makes it a lapped transform: a DCT behind a pre-filter (Tran, Liang & Tu 2003, "Lapped transform via
time-domain pre- and post-filtering"), here the biorthogonal one of Malvar (1998, "Biorthogonal and
nonuniform lapped transforms for transform coding with reduced blocking and ringing artifacts").
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy  # Its submodules load when they are first used; networks without this one need none.
from jaxtyping import Float, Int

from fa_hific_jax import ops
from fa_hific_jax.entropy.factorized import FactorizedPrior
from fa_hific_jax.entropy.tables import SCALE_MIN, SCALE_TABLE
from fa_hific_jax.models.hyperprior import HyperAnalysis, HyperSynthesis
from fa_hific_jax.models.layers import (
    GLOROT,
    HyperLatents,
    Images,
    Latents,
    Size,
    fold,
    grown,
    unfold,
)
from fa_hific_jax.settings.model import BLOCK_VALUES, ModelConfig

BLOCK = 16  # side of a block in pixels
# Quantization step of an untrained model's orthonormal coefficients at a gain of 1, for images in
# [0, 1].
FINEST_STEP = 1 / 10
# Factor on the squared frequency of color differences when coefficients are chosen. The power of
# color differences in photographs is that much lower.
CHROMA = 6.0
RESOLUTION = 2.0  # quantization steps of a hyper-latent per unit of |arcsinh(y)|
# Growth of the logarithm of a scale per unit of |arcsinh(y)|: 1 for large y, more for small y.
SLOPE = 1.3
USUAL_GAIN = 0.4  # approximate gain of y at the middle quality
# Initial spread of the hyper-latents' prior. Most hyper-latents begin near 0, a few reach 8.
PRIOR_SPREAD = 1.5
OTHERS = 0.1  # factor on the random kernels that are added to those of `hyperprior_init`
# Upper bound of a logarithmic scale, above the largest scale of the coding tables and far below
# those at which exp overflows.
MAX_LOG_SCALE = float(np.log(SCALE_TABLE[-1])) + 1.0

# The image itself passes here: TPUs would otherwise round it to 8 bits.
_PRECISION = jax.lax.Precision.HIGHEST

# Model of a coefficient's standard deviation in photographs, fitted to photographs at half size:
# the level of its color over (1 + squared frequency)^fall, times a factor for means.
_LEVELS = np.array([2.0, 0.55, 0.28])
_FALL = 0.66
_OF_MEANS = 3.0

_COLORS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])

Kernels = tuple[Float[np.ndarray, "_ _ _ _"], ...]


class LinearAnalysis(nn.Module):
    """Transforms each block of an image in [0, 1] to one vector of at most BLOCK_VALUES latents."""

    latent_channels: int

    @nn.compact
    def __call__(self, x: Images, size: Size | None = None) -> Latents:
        basis = functools.partial(dct_basis, self.latent_channels)
        kernel = self.param("kernel", lambda key: jnp.asarray(basis()[None, None], jnp.float32))
        mixed = _mix_borders(ops.at_least_float32(x) - 0.5, border_filter(), size)
        kernel = kernel[0, 0] / FINEST_STEP
        return jnp.matmul(fold(mixed, BLOCK), kernel, precision=_PRECISION)


class LinearSynthesis(nn.Module):
    """Transforms each vector of latents to one block of an image, 16 times as large as y_hat."""

    @nn.compact
    def __call__(self, y_hat: Latents, size: Size | None = None) -> Images:
        basis = functools.partial(dct_basis, y_hat.shape[-1])
        kernel = self.param("kernel", lambda key: jnp.asarray(basis().T[None, None], jnp.float32))
        y_hat, kernel = ops.at_least_float32(y_hat), kernel[0, 0] * FINEST_STEP
        image = unfold(jnp.matmul(y_hat, kernel, precision=_PRECISION) + 0.5, BLOCK)
        return _mix_borders(image, np.linalg.inv(border_filter()), grown(size, BLOCK))


class CoefficientHyperprior(nn.Module):
    """Mean-scale hyperprior for channels whose sizes differ by orders of magnitude.

    It has the networks of `Hyperprior`. Its analysis sees arcsinh(y) and the magnitude of that. Its
    synthesis returns logarithms of scales, and means in a unit that is learned for each channel.
    Its initial parameters are those of `hyperprior_init`.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.dtype("float32")

    def setup(self):
        channels, variant = self.config.hyper_channels, self.config.variant
        latents = self.config.latent_channels
        *kernels, log_scale = hyperprior_init(channels, latents)
        down, up = (tuple(map(_around, each)) for each in kernels)
        self.analysis_network = HyperAnalysis(channels, variant, self.dtype, down, name="analysis")
        synthesis = functools.partial(HyperSynthesis, channels, latents, dtype=self.dtype)
        self.synthesis_mean = synthesis(0.0, log_unit=tuple(np.log(spread(latents))))
        self.synthesis_scale = synthesis(tuple(log_scale), kernel_inits=up)
        self.prior = FactorizedPrior(channels, variant, PRIOR_SPREAD)

    def analysis(self, y: Latents, size: Size | None = None) -> HyperLatents:
        """Returns z of y, before rounding."""
        y = jnp.arcsinh(y)
        return self.analysis_network(jnp.concatenate([y, jnp.abs(y)], axis=-1), size)

    def synthesis(self, z_hat: HyperLatents) -> tuple[Latents, Latents]:
        """Returns mean and scale (at least SCALE_MIN) of y."""
        log_scale = jnp.minimum(self.synthesis_scale(z_hat), MAX_LOG_SCALE)
        return self.synthesis_mean(z_hat), ops.lower_bound(jnp.exp(log_scale), SCALE_MIN)


def hyperprior_init(channels: int, latent_channels: int) -> tuple[Kernels, Kernels, np.ndarray]:
    """Returns initial kernels of analysis and scale synthesis, and the last bias of the latter.

    If the kernels are random, the hyper-latents of transform coefficients die out. Their rate
    counts from the first step, but they help only once analysis and synthesis agree on a meaning.
    So they begin with one.

    A band holds the latents of one color and one octave of squared frequency. The analysis begins
    as the mean of |arcsinh(y)| over a band and over 2x2 latents. Each hyper-latent covers four such
    means, and they become four of its channels, so there are at most channels / 4 bands. The
    synthesis puts them back in their places, interpolates, and turns them into the logarithm of the
    scale. All kernels are trained, and the other channels begin small.
    """
    band = bands(latent_channels)
    count = min(int(band.max()) + 1, channels // 4)
    member = np.equal.outer(band, np.arange(count)).astype(np.float64)  # (cy, bands)
    each = np.arange(count)

    magnitudes = np.zeros((3, 3, 2 * latent_channels, channels))
    magnitudes[1, 1, latent_channels:, :count] = member / np.maximum(member.sum(0), 1)
    averages, places, back, between = np.zeros((4, 5, 5, channels, channels))
    averages[2:4, 2:4, each, each] = 1 / 4
    for phase, (row, column) in enumerate(np.ndindex(2, 2)):
        places[2 + row, 2 + column, each, phase * count + each] = RESOLUTION
        back[2 - row, 2 - column, phase * count + each, each] = 1 / RESOLUTION
    taps = np.array([0, 0.5, 1, 0.5, 0])
    between[:, :, each, each] = np.outer(taps, taps)[:, :, None]
    scales = np.zeros((3, 3, channels, latent_channels))
    scales[1, 1, :count] = SLOPE * member.T

    usual = USUAL_GAIN * spread(latent_channels)
    magnitude = np.arcsinh(0.8 * usual)  # E|y| of a Gaussian is about 0.8 sigma
    expected = member.T @ magnitude / np.maximum(member.sum(0), 1)
    log_scale = np.log(usual) - SLOPE * member @ expected
    return (magnitudes, averages, places), (back, between, scales), log_scale


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
    _, color, square = _lowest(count)
    return np.where(square == 1, _OF_MEANS, 1.0) * _LEVELS[color] / square**_FALL / FINEST_STEP


def bands(count: int) -> Int[np.ndarray, " count"]:
    """Returns the band of each coefficient, its color and octave of squared frequency, or -1.

    Means have no band.
    """
    _, color, square = _lowest(count)
    kind = np.where(square == 1, -1, 100 * color + np.floor(np.log2(square)).astype(int))
    return np.where(kind < 0, -1, np.searchsorted(np.unique(kind[kind >= 0]), kind))


def dct_basis(count: int) -> Float[np.ndarray, "v count"]:
    """Returns the `count` lowest basis vectors of the orthonormal DCT-II of color blocks.

    The colors are the sum of R, G and B and two differences, which are hardly correlated.
    """
    cosines = np.asarray(scipy.fft.dct(np.eye(BLOCK), norm="ortho", axis=0))
    basis = np.einsum("uy,vx,kc->kuvyxc", cosines, cosines, _COLORS).reshape(BLOCK_VALUES, -1)
    return basis[_lowest(count)[0]].T


def _lowest(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (index, color, 1 + squared frequency) of the `count` lowest coefficients."""
    square = np.arange(BLOCK) ** 2
    squares = 1.0 + np.add.outer(square, square).ravel()
    rank = np.multiply.outer([1.0, CHROMA, CHROMA], squares).ravel()
    index = np.argsort(rank, kind="stable")[:count]
    return index, index // BLOCK**2, squares[index % BLOCK**2]


def _around(kernel: Float[np.ndarray, "_ _ _ _"]) -> nn.initializers.Initializer:
    def init(key: Any, shape: Any, dtype: Any = np.float32, out_sharding: Any = None) -> Any:
        return jnp.asarray(kernel, dtype) + OTHERS * GLOROT(key, shape, dtype)

    return init


def _mix_borders(image: Images, mix: Float[np.ndarray, "16 16"], size: Size | None) -> Images:
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
        image = jnp.concatenate([image[:, :half], mixed, image[:, extent - half :]], axis=1)
    return image
