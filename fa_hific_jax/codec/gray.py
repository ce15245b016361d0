"""Keeps gray images gray, although the networks code every image as a color image."""

import numpy as np
from jaxtyping import UInt8

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
