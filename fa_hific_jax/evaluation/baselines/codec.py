"""What every classical codec is to the rest: a range of qualities, encode, decode, a version."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "h w 3"]


class Coded(NamedTuple):
    """A file, what the same codec decodes it to, the setting that made it, and the time it took."""

    data: bytes
    image: Pixels
    setting: str
    seconds_encode: float
    seconds_decode: float


class Codec(NamedTuple):
    """A classical codec.

    Attributes:
      label: its name for people.
      qualities: all settings, from the smallest file to the largest.
      sweep: those that span some 0.05 to 1.5 bits per pixel, in the same order.
      longest_side: of an image, in pixels, that the format or its program takes.
      settings: what never changes, for the record.
      missing: why it cannot be used here, or None.
      version: of all that decides on the size of a file.
      encode: (image, quality) -> (file, setting in words).
      decode: file -> image, by the same codec.
    """

    label: str
    qualities: range
    sweep: tuple[int, ...]
    longest_side: int
    settings: Mapping[str, str | int | bool]
    missing: Callable[[], str | None]
    version: Callable[[], str]
    encode: Callable[[Pixels, int], tuple[bytes, str]]
    decode: Callable[[bytes], Pixels]
