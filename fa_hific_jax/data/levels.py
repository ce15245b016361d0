"""Converts levels of any bit depth and number type to 8 bits."""

import numpy as np
from jaxtyping import Shaped, UInt8

_STRIP = 2**20  # values scaled at once, which bounds the memory


def eight_bits(
    values: Shaped[np.ndarray, "h w *c"],
    notes: list[str],
    bits: int | None = None,
    negative: bool = False,
) -> UInt8[np.ndarray, "h w *c"]:
    """Scales a range of values to 0 ... 255 and rounds to nearest; an unusual range is noted.

    The range of unsigned integers of up to 16 bits is 0 to 2^bits - 1, that of signed ones 0 to
    their largest possible value, that of wider integers 0 to 65535. Floating point has the first
    of 0 to 1, 255 or 65535 that contains all values. If values are outside, the range is from the
    lowest to the highest value instead.

    Args:
      values: gray or color levels.
      notes: the list to which a sentence about the range is added.
      bits: number of bits per value; by default those of the type.
      negative: True if the low end of the range is white.
    """
    bits = 8 * values.dtype.itemsize if bits is None else bits
    if values.dtype.kind == "u" and bits <= 16:
        low, high = 0.0, 2.0**bits - 1
    else:
        low, high = _span(values, bits)
        ends = (high, low) if negative else (low, high)
        which = "gray level" if values.ndim == 2 else "level"
        if values.dtype.kind == "f" or (low, high) != (0.0, 65535.0):
            notes.append(f"its {which} {ends[0]:g} became black and {ends[1]:g} white")
    result = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP // max(1, values[0].size))
    for start in range(0, len(values), rows):
        part = np.clip(values[start : start + rows], low, high, dtype=np.float64) - low
        part *= 255.0 / max(high - low, 1e-30)
        result[start : start + rows] = np.rint(np.nan_to_num(part))
    return 255 - result if negative else result


def _span(values: np.ndarray, bits: int) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    tops = [2.0 ** (bits - 1) - 1 if bits <= 16 else 65535.0]
    if values.dtype.kind == "f":
        tops = [1.0, 255.0, 65535.0]
    if low >= 0.0 and high <= tops[-1]:
        return 0.0, next(top for top in tops if high <= top)
    return low, high
