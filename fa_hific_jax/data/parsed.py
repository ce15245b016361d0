"""The result of parsing an image file: bytes that Pillow decodes, apart from all other content."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fa_hific_jax.data.color import Space

FURTHER_PAGES = "only the first of its frames or pages is kept"
END_MISSING = "its end is missing, but all its pixels are there"
TRUNCATED = "it is truncated within its pixels"

Decode = Callable[[Image.Image, list[str]], tuple[np.ndarray, np.ndarray | None]]


class ParsedFile(NamedTuple):
    """The parts of an image file, so that damage outside the pixels does not prevent decoding."""

    pixels: bytes  # the file that Pillow decodes
    info: dict[str, Any] = {}  # other content under Pillow's names: "icc_profile", "exif", "xmp"
    space: Space | None = None  # the color space, if the file states one without a profile
    notes: tuple[str, ...] = ()  # sentences about what was ignored
    # PNG only:
    key: tuple[int, ...] = ()  # the gray level or the color that is transparent
    depth: int = 8  # number of bits per sample
    # TIFF only:
    size: tuple[int, ...] = ()  # stored width and height in pixels
    orientation: int = 1  # as EXIF numbers it
    decode: Decode | None = None  # turns Pillow's image into levels and alpha, adding notes


def damage_note(names: list[str]) -> tuple[str, ...]:
    """Returns the note on damaged chunks, nothing if there are none."""
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        return tuple(f"its {name} chunk is damaged and was ignored" for name in names)
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return (f"its {listed} chunks are damaged and were ignored",)
