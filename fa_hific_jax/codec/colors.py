"""Keeps gray images gray, and replaces invisible colors by some that cost almost no bits."""

import numpy as np
from jaxtyping import Float, UInt8

_WEIGHTS = np.array([299, 587, 114])  # thousandths, ITU-R BT.601; docs/bitstream.md has them too

Image = UInt8[np.ndarray, "h w 3"]


def is_gray(image: Image) -> bool:
    """Returns True if red, green and blue are equal in every pixel."""
    return all(np.array_equal(image[..., 0], image[..., channel]) for channel in (1, 2))


def luma(image: Image) -> Image:
    """Returns the image with the rounded luma of each pixel in all three channels."""
    levels = np.empty(image.shape[:2], np.uint8)
    for row, pixels in zip(levels, image, strict=True):  # by rows, which saves memory
        row[:] = (pixels @ _WEIGHTS + 500) // 1000
    return np.repeat(levels[..., None], 3, axis=-1)


def fill_hidden(rgb: Image, alpha: UInt8[np.ndarray, "h w"]) -> Image:
    """Returns the image with smooth colors, derived from visible ones nearby, where alpha is 0.

    Means of visible colors at coarser and coarser scales fill the hidden pixels at the finer ones
    (the pull-push algorithm of Gortler et al. 1996). The result does not depend on the hidden
    colors.
    """
    if alpha.min() > 0:
        return rgb
    if alpha.max() == 0:
        return np.full_like(rgb, 128)
    visible = (alpha > 0)[..., None]
    filled = _filled(rgb.astype(np.float32), visible)
    return np.where(visible, rgb, np.rint(filled).astype(np.uint8))


def _filled(colors: Float[np.ndarray, "h w 3"], known: np.ndarray) -> Float[np.ndarray, "h w 3"]:
    if known.all():
        return colors
    height, width, _ = known.shape
    edges = ((0, height % 2), (0, width % 2), (0, 0))
    weight, total = (
        each[::2, ::2] + each[1::2, ::2] + each[::2, 1::2] + each[1::2, 1::2]
        for each in (np.pad(known.astype(np.float32), edges), np.pad(colors * known, edges))
    )
    coarse = _filled(total / np.maximum(weight, 1), weight > 0)
    fine = _doubled(_doubled(coarse).swapaxes(0, 1)).swapaxes(0, 1)
    return np.where(known, colors, fine[:height, :width])


def _doubled(values: Float[np.ndarray, "h w c"]) -> Float[np.ndarray, "h2 w c"]:
    """Returns twice as many rows, interpolated linearly."""
    near = np.concatenate([values[:1], values, values[-1:]])
    pairs = [0.75 * values + 0.25 * beside for beside in (near[:-2], near[2:])]
    return np.stack(pairs, axis=1).reshape(-1, *values.shape[1:])
