"""Converts the bytes of a TIFF's rows to gray or RGB levels and alpha."""

import io
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fa_hific_jax.data.color import by_rows, eight_bits

EXTRA_SAMPLES = "its samples beyond the colors were left out"


class Layout(NamedTuple):
    """The layout of samples in a row whose bytes Pillow decodes as gray levels."""

    samples: int  # number of samples per pixel; 1 if each sample has its own plane
    bits: int  # number of bits per sample
    kind: str  # NumPy's letter for the type: "u" (unsigned), "i" (signed), "f" (floating point)
    order: str  # byte order, "<" or ">"
    predictor: int  # 1 for none, 2 for integers, 3 for floating point
    columns: int  # width in pixels of a row, or of a tile, over which the predictor runs
    negative: bool  # True if zero is white
    alpha: int  # 0: none; 1: the last sample, by which colors are multiplied; 2: the last sample

    @property
    def row_bytes(self) -> int:
        return -(-self.columns * self.samples * self.bits // 8)


def decode(
    planes: list[bytes], layout: Layout, width: int, image: Image.Image, notes: list[str]
) -> tuple[UInt8[np.ndarray, "h w *c"], UInt8[np.ndarray, "h w"] | None]:
    """Returns gray or RGB levels, and alpha if there is any.

    The gray levels of `image` are the bytes of all samples, or of the first ones if each sample has
    its own plane; then `planes` are the files of the others. Width is in pixels. A sentence about
    left-out samples or an unusual range is added to `notes`.
    """
    parts = []
    for each in (image, *(Image.open(io.BytesIO(plane)) for plane in planes)):
        rows = np.asarray(each)
        starts = range(0, rows.shape[1], layout.row_bytes)
        tiles = [_unpacked(rows[:, at : at + layout.row_bytes], layout) for at in starts]
        parts.append(np.concatenate(tiles, axis=1)[:, :width])
    samples = np.concatenate(parts, axis=2)
    colors = samples[..., :3] if samples.shape[2] >= 3 else samples[..., 0]
    alpha, extra = None, samples.shape[2] in (2, 4)
    if extra and layout.alpha:
        alpha = eight_bits(samples[..., -1], [], layout.bits)
        if layout.alpha == 1:
            last = samples[..., -1:] if colors.ndim == 3 else samples[..., -1]
            colors = _divided(colors, last, layout.bits)
    elif extra:
        notes.append(EXTRA_SAMPLES)
    return eight_bits(colors, notes, layout.bits, layout.negative), alpha


def _divided(colors: np.ndarray, alpha: np.ndarray, bits: int) -> np.ndarray:
    """Divides premultiplied colors by their alpha, which has the same range."""
    whole = colors.dtype.kind != "f"
    top = 2 ** (bits - (colors.dtype.kind == "i")) - 1 if whole else 1
    with np.errstate(all="ignore"):
        result = np.where(alpha > 0, colors * (top / alpha.astype(np.float64)), 0)
    return np.minimum(np.rint(result), top).astype(colors.dtype) if whole else result


def _unpacked(rows: np.ndarray, layout: Layout) -> np.ndarray:
    """Converts rows of bytes to samples (height, columns, samples) and undoes the predictor."""
    height, count = len(rows), layout.samples
    if layout.bits % 8:
        return _of_bits(rows, layout).reshape(height, -1, count)
    dtype = np.dtype(f"{layout.order}{layout.kind}{layout.bits // 8}")
    rows = np.ascontiguousarray(rows)
    if layout.predictor == 3:  # All highest bytes of a row come first (Adobe's technical note 3).
        sums = np.cumsum(rows.reshape(height, -1, count), axis=1, dtype=np.uint8)
        planes = sums.reshape(height, dtype.itemsize, -1).swapaxes(1, 2)
        values = np.ascontiguousarray(planes).view(dtype.newbyteorder(">"))
        return values.reshape(height, -1, count).astype(dtype.newbyteorder("="))
    values = rows.view(dtype).reshape(height, -1, count).astype(dtype.newbyteorder("="))
    if layout.predictor == 2:
        whole = np.dtype(f"u{dtype.itemsize}")
        values = np.cumsum(values.view(whole), axis=1, dtype=whole).view(values.dtype)
    return values


def _of_bits(rows: np.ndarray, layout: Layout) -> np.ndarray:
    """Unpacks samples of `layout.bits` bits, highest bit first; each row begins at a byte."""
    count = layout.columns * layout.samples
    weights = 2 ** np.arange(layout.bits)[::-1].astype(np.uint16)

    def levels(part: np.ndarray) -> np.ndarray:
        bits = np.unpackbits(part, axis=1, count=count * layout.bits)
        return bits.reshape(len(bits), count, layout.bits) @ weights

    return by_rows(levels, rows)
