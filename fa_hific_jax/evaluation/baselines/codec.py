"""The interface of a classical codec: its range of qualities, encoder, decoder and version."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

Pixels = UInt8[np.ndarray, "h w 3"]


class Coded(NamedTuple):
    """A file, the image that the same codec decodes from it, the setting, and the wall times."""

    data: bytes
    image: Pixels
    setting: str
    seconds_encode: float
    seconds_decode: float


class Codec(NamedTuple):
    """A classical codec."""

    label: str  # the name shown to users
    qualities: range  # all qualities in its own unit, from the smallest file to the largest
    sweep: tuple[int, ...]  # qualities that span some 0.05 to 1.5 bpp on Kodak, in the same order
    longest_side: int  # longest side in pixels that the format or its program takes
    settings: Mapping[str, Any]  # options that never change, for the record
    missing: Callable[[], str | None]  # returns the reason why it cannot be used here
    version: Callable[[], str]  # returns the versions of all that determines the size of a file
    encode: Callable[[Pixels, int], tuple[bytes, str]]  # returns the file and the setting in words
    decode: Callable[[bytes], Pixels]
