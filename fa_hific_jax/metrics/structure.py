"""SSIM, MS-SSIM and errors of the radial power spectrum, in float64 on the device."""

import contextlib
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, UInt8

from fa_hific_jax import spectra
from fa_hific_jax.errors import UserError
from fa_hific_jax.ops import enable_x64

Picture = UInt8[np.ndarray, "_ _ _"]
Pictures = UInt8[np.ndarray, "_ _ _ _"]
Column = list[float] | str
"""A metric of each pair of a batch, or the reason why pairs of this size have none."""
Planes = Float64[Array, "_ _ _"]  # batch and channels as one axis, height, width

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW_SIZE, WINDOW_SIGMA = 11, 1.5
# The window must fit into the image at the coarsest scale.
MS_SSIM_SIDE_ABOVE = (WINDOW_SIZE - 1) * 2 ** (len(WEIGHTS) - 1)
# A multiple of 3, so that each third of the spectrum has whole radial bands.
RADIAL_BANDS = 60
_THIRDS = ("band_low", "band_middle", "band_high")


def check_pair(x: np.ndarray, x_hat: np.ndarray) -> None:
    """Raises a UserError unless both images, or batches of images, are uint8 of the same shape."""
    if x.shape != x_hat.shape:
        raise UserError(
            f"images of different shapes {x.shape} and {x_hat.shape} cannot be compared: crop or "
            "code them to one size"
        )
    for image in (x, x_hat):
        if image.dtype != np.uint8:
            raise UserError(f"metrics need 8-bit images, not {image.dtype}: round the values first")


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Lets the block use float64, on the default device or, if that is a TPU, on the host."""
    has_float64 = jax.default_backend() != "tpu"
    device = None if has_float64 else jax.local_devices(backend="cpu")[0]
    with enable_x64(True), jax.default_device(device):
        yield


def similarities(x: Pictures, x_hat: Pictures) -> dict[str, Column]:
    """Returns "ms_ssim" and "ssim" of each pair, at most 1, as means over channels.

    SSIM is that of Wang et al., "Image quality assessment: from error visibility to structural
    similarity", 2004, with that paper's constants. The 11 x 11 Gaussian window of sigma 1.5 is used
    only where it fits, on each channel at full resolution.

    MS-SSIM is that of Wang et al., "Multiscale structural similarity for image quality assessment",
    2003, with five scales and the same window. It equals that of `pytorch_msssim`, which CompressAI
    reports. Like there, an odd side gets a line of zeros at its start before it is halved.
    """
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
    b, height, width, c = x.shape
    a, a_hat = (
        each.astype(jnp.float64).transpose(0, 3, 1, 2).reshape(-1, height, width)
        for each in (x, x_hat)
    )
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


def spectral_errors(x: Pictures, x_hat: Pictures) -> dict[str, Column]:
    """Returns the errors in dB of the log power of x_hat in 60 radial bands, for RGB images.

    The error of a radial band is d = 10 log10((power of x_hat + 0.001) / (power of x + 0.001)),
    with the radial power spectra of `fa_hific_jax.spectra`. It is negative where power was lost.

    "lsd" is the root mean square of d over all radial bands: the log-spectral distance of speech
    coding (Gray and Markel, "Distance measures for speech processing", 1976), applied to the radial
    spectra that Durall et al., "Watch your up-convolution", CVPR 2020, compare. "band_low",
    "band_middle" and "band_high" are means of d over thirds of 0 to 0.5 cycles per pixel.
    """
    check_pair(x, x_hat)
    radial_band, count = spectra.radial_bands(x.shape[1], x.shape[2], RADIAL_BANDS)
    held = count > 0
    if not held.reshape(3, -1).any(axis=1).all():
        return dict.fromkeys(("lsd", *_THIRDS), "the image is too small for three frequency bands")
    with double_precision():
        totals = [np.asarray(_band_totals(image, radial_band)) for image in (x, x_hat)]
    before, after = (spectra.decibels(total[:, held] / count[held]) for total in totals)
    difference = after - before
    third = np.repeat(np.arange(3), RADIAL_BANDS // 3)[held]
    bands = {n: difference[:, third == i].mean(axis=1).tolist() for i, n in enumerate(_THIRDS)}
    return {"lsd": np.sqrt(np.mean(np.square(difference), axis=1)).tolist(), **bands}


@jax.jit
def _band_totals(
    x: UInt8[Array, "b h w 3"], radial_band: Int[Array, "h w"]
) -> Float64[Array, "b bands"]:
    """Returns the sum of the power in each radial band."""
    luma = jnp.tensordot(x.astype(jnp.float64), jnp.asarray(spectra.LUMA), 1)
    window = jnp.asarray(spectra.window(*x.shape[1:3]))
    power = jnp.square(jnp.abs(jnp.fft.fft2(luma * window[None]))) / jnp.sum(window**2)
    sums = functools.partial(
        jax.ops.segment_sum, segment_ids=radial_band.reshape(-1), num_segments=RADIAL_BANDS + 1
    )
    return jax.vmap(sums)(power.reshape(len(x), -1))[:, :RADIAL_BANDS]
