"""NIQE: how far the local statistics of an image lie from those of undistorted photographs.

Mittal, Soundararajan and Bovik, "Making a 'completely blind' image quality analyzer", IEEE Signal
Processing Letters 2013, as in the authors' software. The photographs' statistics are theirs:
niqe_pristine.npz, under the notice in niqe_pristine.txt.
"""

import functools
from importlib import resources

import numpy as np
from jaxtyping import Float64, UInt8
from scipy import ndimage
from scipy.special import gamma

from fa_hific_jax.metrics.pixels import check_picture

Grey = Float64[np.ndarray, "_ _"]
Blocks = Float64[np.ndarray, "n pixels"]

BLOCK = 96
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
# MATLAB's rgb2gray.
_GREY = (0.298936021293775, 0.587043074451121, 0.114020904255103)


def niqe(image: UInt8[np.ndarray, "_ _ _"]) -> float | None:
    """NIQE of one RGB image, (h, w, 3); lower is nearer to undistorted photographs.

    None where fewer than two whole blocks of 96 x 96 pixels fit, or two that are not flat. It needs
    no original and knows none: an image can score lower than what it was made from.
    """
    check_picture(image)
    return niqe_of_grey(np.floor(image.astype(np.float64) @ np.array(_GREY) + 0.5))


def niqe_of_grey(image: Grey) -> float | None:
    """NIQE of grey levels 0 to 255."""
    height, width = (side // BLOCK * BLOCK for side in image.shape)
    if height * width < 2 * BLOCK**2:
        return None
    image = image[:height, :width]
    found = np.concatenate([_features(image, BLOCK), _features(_halved(image), BLOCK // 2)], axis=1)
    found = found[np.isfinite(found).all(axis=1)]
    if len(found) < 2:
        return None
    mean, covariance = _pristine()
    shift = found.mean(axis=0) - mean
    spread = (covariance + np.cov(found, rowvar=False)) / 2
    return float(np.sqrt(shift @ np.linalg.pinv(spread) @ shift))


def _features(image: Grey, block: int) -> Float64[np.ndarray, "n 18"]:
    """Per block: shape and width of the normalised levels and of the products of neighbours."""
    mean = _smoothed(image)
    deviation = np.sqrt(np.abs(_smoothed(image**2) - mean**2))
    height, width = image.shape
    blocks = ((image - mean) / (deviation + 1)).reshape(
        height // block, block, width // block, block
    )
    blocks = blocks.transpose(0, 2, 1, 3).reshape(-1, block, block)
    shape, left, right = _fitted(blocks.reshape(len(blocks), -1))
    columns = [shape, (left + right) / 2]
    for shift in _SHIFTS:  # around the borders of each block
        products = blocks * np.roll(blocks, shift, axis=(1, 2))
        shape, left, right = _fitted(products.reshape(len(blocks), -1))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        columns += [shape, mean, left, right]
    return np.stack(columns, axis=1)


def _smoothed(image: Grey) -> Grey:
    """Means in a 7 x 7 Gaussian window, borders repeated."""
    window = np.exp(-0.5 * np.square(np.arange(-3, 4) / (7 / 6)))
    for axis in (0, 1):
        image = ndimage.correlate1d(image, window / window.sum(), axis=axis, mode="nearest")
    return image


def _halved(image: Grey) -> Grey:
    """Half the size by MATLAB's imresize: bicubic, widened against aliasing, borders mirrored."""
    # Keys' cubic (a = -1/2), stretched by 2, between the pixels: its values at 1/4, 3/4, 5/4, 7/4.
    half = np.array([111, 29, -9, -3]) / 256
    window = np.concatenate([half[::-1], half])
    for axis in (0, 1):
        # The window of 8 is centred on its fifth element: on the second of each pair of pixels.
        smooth = ndimage.correlate1d(image, window, axis=axis, mode="reflect")
        image = smooth[1::2] if axis == 0 else smooth[:, 1::2]
    return image


def _fitted(x: Blocks) -> tuple[Float64[np.ndarray, " n"], ...]:
    """(shape, left scale, right scale) of an asymmetric generalised Gaussian for each row.

    By moments, as in the authors' software (Lasmar et al., ICIP 2009); not finite where a row has
    no values on one side of 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = (
            np.sqrt(np.sum(np.where(side, x**2, 0), axis=1) / np.sum(side, axis=1))
            for side in (x < 0, x > 0)
        )
        ratio = left / right
        moments = np.mean(np.abs(x), axis=1) ** 2 / np.mean(x**2, axis=1)
        moments *= (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, known = _shapes()
    above = np.clip(np.searchsorted(known, moments), 1, len(known) - 1)
    nearer_below = moments - known[above - 1] <= known[above] - moments
    shape = np.where(np.isfinite(moments), shapes[above - nearer_below], np.nan)
    scale = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


@functools.cache
def _shapes() -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """Shapes from 0.2 to 10 and, rising with them, (mean |x|)^2 / mean x^2 of each."""
    shapes = 0.2 + 0.001 * np.arange(9801)
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


@functools.cache
def _pristine() -> tuple[Float64[np.ndarray, " 36"], Float64[np.ndarray, "36 36"]]:
    """Mean and covariance of the features of undistorted photographs."""
    with resources.files("fa_hific_jax.metrics").joinpath("niqe_pristine.npz").open("rb") as file:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays["mean"], arrays["covariance"]
