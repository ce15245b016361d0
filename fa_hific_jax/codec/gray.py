"""Gray photographs, which come back gray although the networks know of colors alone."""

import numpy as np
from jaxtyping import UInt8

_WEIGHTS = np.array([299, 587, 114])  # thousandths, ITU-R BT.601; docs/bitstream.md has them too

Image = UInt8[np.ndarray, "h w 3"]


def is_gray(image: Image) -> bool:
    """Whether red, green and blue are equal everywhere."""
    return all(np.array_equal(image[..., 0], image[..., channel]) for channel in (1, 2))


def luma(image: Image) -> Image:
    """An image of the rounded luma of each pixel, three times."""
    levels = np.empty(image.shape[:2], np.uint8)
    for row, pixels in zip(levels, image, strict=True):  # little memory beside the image's
        row[:] = (pixels @ _WEIGHTS + 500) // 1000
    return np.repeat(levels[..., None], 3, axis=-1)
