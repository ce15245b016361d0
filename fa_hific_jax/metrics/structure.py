"""SSIM and MS-SSIM of 8-bit images, computed in float64 on the device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, UInt8

from fa_hific_jax.metrics.pairs import Column, Picture, Pictures, check_pair, double_precision

Planes = Float64[Array, "_ _ _"]  # batch and channels as one axis, height, width

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW_SIZE, WINDOW_SIGMA = 11, 1.5
# The window must fit into the image at the coarsest scale.
MS_SSIM_SIDE_ABOVE = (WINDOW_SIZE - 1) * 2 ** (len(WEIGHTS) - 1)


def ssim(x: Picture, x_hat: Picture) -> float | None:
    """Returns the SSIM, at most 1, mean over channels; None if a side is below 11 pixels.

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004,
    with that paper's constants. The 11 x 11 Gaussian window of sigma 1.5 is used only where it
    fits, on each RGB channel at full resolution.
    """
    found = similarities(x[None], x_hat[None])["ssim"]
    return None if isinstance(found, str) else found[0]


def ms_ssim(x: Picture, x_hat: Picture) -> float | None:
    """Returns the MS-SSIM, at most 1, mean over channels; None if a side is 160 pixels or less.

    Wang et al., "Multiscale structural similarity for image quality assessment", 2003, with five
    scales and the window of `ssim`. The result equals that of `pytorch_msssim`, which CompressAI
    reports. Like there, an odd side gets a line of zeros at its start before it is halved.
    """
    found = similarities(x[None], x_hat[None])["ms_ssim"]
    return None if isinstance(found, str) else found[0]


def similarities(x: Pictures, x_hat: Pictures) -> dict[str, Column]:
    """Returns "ms_ssim" and "ssim" of a batch of pairs; raises what `check_pair` raises."""
    check_pair(x, x_hat)
    side = min(x.shape[1:3])
    found: dict[str, Column] = {
        "ms_ssim": f"a side has {MS_SSIM_SIDE_ABOVE} pixels or less",
        "ssim": f"a side has less than {WINDOW_SIZE} pixels",
    }
    if side >= WINDOW_SIZE:
        scales = len(WEIGHTS) if side > MS_SSIM_SIDE_ABOVE else 1
        with double_precision():
            first, product = (np.asarray(each).tolist() for each in _scored(x, x_hat, scales))
        found |= {"ssim": first} if scales == 1 else {"ssim": first, "ms_ssim": product}
    return found


@functools.partial(jax.jit, static_argnames="scales")
def _scored(x: UInt8[Array, "b h w c"], x_hat: UInt8[Array, "b h w c"], scales: int):
    """Returns the SSIM of the first scale, and the product over scales, weighted by exponents."""
    b, _, _, c = x.shape
    a, a_hat = _planes(x), _planes(x_hat)
    wholes, product = [], jnp.ones((b, c))
    for scale, weight in enumerate(WEIGHTS[:scales]):
        if scale:
            a, a_hat = _halve(a), _halve(a_hat)
        luminance, contrast_structure = _ssim_terms(a, a_hat)
        wholes.append(jnp.mean(luminance * contrast_structure, axis=(1, 2)).reshape(b, c))
        part = jnp.mean(contrast_structure, axis=(1, 2)).reshape(b, c)
        coarsest = scale == len(WEIGHTS) - 1
        product *= jnp.maximum(wholes[-1] if coarsest else part, 0.0) ** weight
    return jnp.mean(wholes[0], axis=1), jnp.mean(product, axis=1)


def _planes(x: UInt8[Array, "b h w c"]) -> Planes:
    return x.astype(jnp.float64).transpose(0, 3, 1, 2).reshape(-1, *x.shape[1:3])


def _halve(x: Planes) -> Planes:
    """Returns the means of 2 x 2 blocks; an odd side first gets a line of zeros at its start."""
    n, h, w = x.shape
    x = jnp.pad(x, ((0, 0), (h % 2, 0), (w % 2, 0)))
    return x.reshape(n, -(-h // 2), 2, -(-w // 2), 2).mean(axis=(2, 4))


def _ssim_terms(a: Planes, b: Planes) -> tuple[Planes, Planes]:
    """Returns the luminance and contrast-structure maps, whose product is the SSIM map."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    moments = _window(jnp.concatenate([a, b, a * b, a**2 + b**2]))
    mean_a, mean_b, mean_product, mean_squares = jnp.split(moments, 4)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance, variances = mean_product - product, mean_squares - squares
    return (2 * product + c1) / (squares + c1), (2 * covariance + c2) / (variances + c2)


def _window(x: Planes) -> Planes:
    """Returns the Gaussian-weighted local means where the window lies inside x."""
    radius = WINDOW_SIZE // 2
    # pytorch_msssim has a float32 kernel, whose sum differs from 1 by 3e-8. The sixth digit of low
    # scores depends on it.
    weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / WINDOW_SIGMA))
    weights = weights.astype(np.float32)
    weights /= weights.sum(dtype=np.float64).astype(np.float32)
    kernel = jnp.asarray(weights, jnp.float64)
    for along in (kernel[None, None, :, None], kernel[None, None, None]):
        x = jax.lax.conv_general_dilated(x[:, None], along, (1, 1), "VALID")[:, 0]
    return x
