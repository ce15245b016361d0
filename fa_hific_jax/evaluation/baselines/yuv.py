"""RGB to planar YCbCr 4:2:0 of 10 bits and back, the input of publicly available VVC encoders.

BT.709 in full range (ITU-R BT.709-6, section 3; H.273, matrix 1, full range flag 1), with
RGB in [0, 255]:

    Y = 0.2126 R + 0.7152 G + 0.0722 B,  Cb = (B - Y) / 1.8556,  Cr = (R - Y) / 1.5748,

each times 1023 / 255, chroma plus 512, rounded. A chroma sample is the mean of 2 x 2 pixels. On the
way back it is interpolated linearly between the centers of those squares.
"""

import numpy as np
from jaxtyping import Float, UInt8

Plane = Float[np.ndarray, "_ _"]

_RED, _BLUE = 0.2126, 0.0722
_GREEN = 1.0 - _RED - _BLUE
_SCALE = 1023.0 / 255.0


def size(height: int, width: int) -> int:
    """Returns the bytes of a picture: even sides, two bytes per sample, 1.5 samples per pixel."""
    return 3 * (height + height % 2) * (width + width % 2)


def from_rgb(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Returns the planes Y, Cb and Cr, 16 bits little-endian; odd sides repeat their last pixel."""
    height, width, _ = image.shape
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge").astype(np.float64)
    red, green, blue = np.moveaxis(even, -1, 0)
    luma = _RED * red + _GREEN * green + _BLUE * blue
    cb = _halved(blue - luma) / (2 * (1 - _BLUE))
    cr = _halved(red - luma) / (2 * (1 - _RED))
    planes = (luma * _SCALE, cb * _SCALE + 512, cr * _SCALE + 512)
    return b"".join(np.clip(np.rint(p), 0, 1023).astype("<u2").tobytes() for p in planes)


def to_rgb(planes: bytes, height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Returns the image of planes of `from_rgb`, rounded and clipped to 8 bits."""
    rows, columns = (height + 1) // 2, (width + 1) // 2
    samples = np.frombuffer(planes, "<u2").astype(np.float64)
    luma, cb, cr = np.split(samples, [4 * rows * columns, 5 * rows * columns])
    luma = luma.reshape(2 * rows, 2 * columns) / _SCALE
    cb, cr = (_doubled((c.reshape(rows, columns) - 512) / _SCALE) for c in (cb, cr))
    blue = luma + 2 * (1 - _BLUE) * cb
    red = luma + 2 * (1 - _RED) * cr
    green = (luma - _RED * red - _BLUE * blue) / _GREEN
    rgb = np.stack([red, green, blue], axis=-1)[:height, :width]
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def _halved(plane: Plane) -> Plane:
    rows, columns = plane.shape
    return plane.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))


def _doubled(plane: Plane) -> Plane:
    for _ in ("rows", "columns"):
        padded = np.pad(plane, ((1, 1), (0, 0)), "edge")
        upper = 0.25 * padded[:-2] + 0.75 * plane
        lower = 0.75 * plane + 0.25 * padded[2:]
        plane = np.stack([upper, lower], axis=1).reshape(-1, plane.shape[1]).T
    return plane
