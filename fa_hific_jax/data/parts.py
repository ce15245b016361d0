"""What the readers of PNG, JPEG and TIFF hand over: the pixels' bytes, apart from all else."""

import io
import os
from io import BufferedIOBase
from typing import Any, NamedTuple

from fa_hific_jax.data.color import Space

EXTRA_SAMPLES = "of its samples those beyond the colors were left out"
FURTHER_PAGES = "of its several frames or pages only the first is kept"
FURTHER_SIZES = "of its several sizes only the largest is kept"
TRUNCATED = "it is truncated within its pixels"


class Layout(NamedTuple):
    """How samples lie in the bytes of a row of TIFF, where Pillow is given these as gray levels.

    Attributes:
      samples: of a pixel, 1 where each kind has a plane of its own.
      bits: of a sample.
      kind: "u", "i" or "f", as NumPy calls them.
      order: of bytes, "<" or ">".
      predictor: 1 none, 2 of integers, 3 of floating point.
      columns: pixels of a row, or of a tile's row, over which prediction runs.
      negative: whether zero is white.
      alpha: 0 none, 1 in the last sample and multiplied into the others, 2 in the last sample.
    """

    samples: int
    bits: int
    kind: str
    order: str
    predictor: int
    columns: int
    negative: bool
    alpha: int


class Parts(NamedTuple):
    """A file taken apart, so that damage in what the pixels do not need stays outside.

    Attributes:
      pixels: what Pillow decodes.
      size: width and height of what is stored, where Pillow is not to be asked for it.
      info: the rest under the names that Pillow gives it: "icc_profile", "exif", "xmp".
      space: the color space, where the file states one without a profile.
      key: the gray level, or the color, that stands for clear; none for the most part.
      depth: bits of a sample of PNG.
      notes: sentences on what was ignored.
      orientation: EXIF's, of TIFF.
      directory: offset of the one that describes a TIFF, where the header names another.
      layout: of TIFF whose samples Pillow does not read rightly.
      planes: files like `pixels` for the second sample of each pixel and on, where these lie apart.
    """

    pixels: Any  # a file that can be sought in; Pillow's types take no BufferedIOBase
    size: tuple[int, ...] = ()
    info: dict[str, Any] = {}
    space: Space | None = None
    key: tuple[int, ...] = ()
    depth: int = 8
    notes: tuple[str, ...] = ()
    orientation: int = 1
    directory: int = 0
    layout: Layout | None = None
    planes: tuple[io.BytesIO, ...] = ()


def open_file(source: Any) -> BufferedIOBase:
    """A path, bytes or an open file as one that can be read more than once.

    A file that was open is not closed.
    """
    if isinstance(source, bytes):
        return io.BytesIO(source)
    file = open(source, "rb") if isinstance(source, str | os.PathLike) else source
    usable = isinstance(file, BufferedIOBase) and file.seekable()
    return file if usable else io.BytesIO(file.read())


def listed(words: list[str]) -> str:
    """The words, each once, as an enumeration."""
    words = list(dict.fromkeys(words))
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
