"""DISTS: structure and texture of two images in the features of VGG16.

Ding, Ma, Wang and Simoncelli, "Image quality assessment: unifying structure and texture
similarity", TPAMI 2022. The network's weights are those of LPIPS's VGG16, torchvision's; how much
each channel counts is the authors', dists_channels.npz under the licence in dists_channels.txt.
"""

import functools
from importlib import resources

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from fa_hific_jax.losses.lpips_backbones import Features, Weights, vgg16
from fa_hific_jax.ops import Image

CHANNELS = (3, 64, 128, 256, 512, 512)
# Of ImageNet, as torchvision's networks take their images.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FLOOR = 1e-6

PerChannel = Float32[np.ndarray | Array, " _"]


def dists(
    weights: Weights, texture: PerChannel, structure: PerChannel, x: Image, x_hat: Image
) -> Float[Array, " b"]:
    """DISTS of each pair of RGB images in [0, 1], float32: 0 for equal ones, 1 for unlike ones.

    1 - sum over channels of texture * S1 + structure * S2, where S1 compares means and S2 variances
    and covariance over the whole image, of the image itself and of the last maps of VGG16's five
    blocks, whose maximum poolings are replaced by ones of the Euclidean norm. Images are taken as
    they are: the authors' demonstration first shrinks them to 256 pixels, so that it gives other
    numbers.

    Args:
      weights: of VGG16 (`LpipsParams.weights`).
      texture, structure: weight of each of the channels, together 1 (`channel_weights`).
    """
    distance = jnp.ones(x.shape[0], jnp.float32)
    start = 0
    for a, b in zip(_maps(weights, x), _maps(weights, x_hat), strict=True):
        within = slice(start, start := start + a.shape[-1])
        means, structures = _similarities(a, b)
        distance -= jnp.sum(means * texture[within][None], axis=1)
        distance -= jnp.sum(structures * structure[within][None], axis=1)
    return distance


@functools.cache
def channel_weights() -> tuple[PerChannel, PerChannel]:
    """(texture, structure), the authors' alpha and beta over their common sum."""
    with resources.files("fa_hific_jax.metrics").joinpath("dists_channels.npz").open("rb") as file:
        with np.load(file, allow_pickle=False) as arrays:
            alpha, beta = arrays["alpha"], arrays["beta"]
    total = alpha.sum(dtype=np.float64) + beta.sum(dtype=np.float64)
    return (alpha / total).astype(np.float32), (beta / total).astype(np.float32)


def _maps(weights: Weights, x: Image) -> list[Features]:
    x = x.astype(jnp.float32)
    mean, deviation = (
        jnp.asarray(each, jnp.float32)[None, None, None] for each in (_MEAN, _DEVIATION)
    )
    return [x, *vgg16(weights, (x - mean) / deviation, _norm_pool)]


def _norm_pool(x: Features) -> Features:
    """Root of the mean of squares in 3 x 3 pixels, weighted 1 2 1 each way, at stride 2."""
    _, height, width, _ = x.shape
    x = jnp.pad(jnp.square(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x[:, 0:height:2] + 2 * x[:, 1 : height + 1 : 2] + x[:, 2 : height + 2 : 2]
    x = x[:, :, 0:width:2] + 2 * x[:, :, 1 : width + 1 : 2] + x[:, :, 2 : width + 2 : 2]
    return jnp.sqrt(x / 16 + 1e-12)


def _similarities(a: Features, b: Features) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
    """Of the means and of the structures of each channel, at most 1."""
    axes = (1, 2)
    mean_a, mean_b = (jnp.mean(maps, axis=axes, keepdims=True) for maps in (a, b))
    means = (2 * mean_a * mean_b + _FLOOR) / (mean_a**2 + mean_b**2 + _FLOOR)
    a, b = a - mean_a, b - mean_b
    covariance = jnp.mean(a * b, axis=axes)
    variances = jnp.mean(a**2, axis=axes) + jnp.mean(b**2, axis=axes)
    return means[:, 0, 0], (2 * covariance + _FLOOR) / (variances + _FLOOR)
