"""The result of parsing an image file: bytes that Pillow decodes, apart from all other content."""

import io
from typing import Any, NamedTuple

from fa_hific_jax.data.color import Space

EXTRA_SAMPLES = "its samples beyond the colors were left out"
FURTHER_PAGES = "only the first of its frames or pages is kept"
FURTHER_SIZES = "only the largest of its sizes is kept"
END_MISSING = "its end is missing, but all its pixels are there"
TRUNCATED = "it is truncated within its pixels"


class Layout(NamedTuple):
    """The layout of samples in a TIFF row whose bytes Pillow decodes as gray levels.

    Attributes:
      samples: number of samples per pixel; 1 if each sample has its own plane.
      bits: number of bits per sample.
      kind: NumPy's letter for the type: "u" (unsigned), "i" (signed) or "f" (floating point).
      order: byte order, "<" or ">".
      predictor: 1 for none, 2 for integers, 3 for floating point.
      columns: width in pixels of a row, or of a tile, over which the predictor runs.
      negative: True if zero is white.
      alpha: 0 if there is none. Otherwise the last sample holds it: 1 if the colors are multiplied
        by it, 2 if they are not.
    """

    samples: int
    bits: int
    kind: str
    order: str
    predictor: int
    columns: int
    negative: bool
    alpha: int


class ParsedFile(NamedTuple):
    """The parts of an image file, so that damage outside the pixels does not prevent decoding.

    Attributes:
      pixels: the file that Pillow decodes.
      size: stored width and height in pixels; empty if Pillow should determine them.
      info: other content under Pillow's names: "icc_profile", "exif", "xmp".
      space: the color space, if the file states one without a profile.
      key: the gray level or the color that is transparent; empty if there is none.
      depth: number of bits per sample (PNG only).
      notes: sentences about what was ignored.
      orientation: the EXIF orientation (TIFF only).
      directory: offset of the directory that describes the picture, if the header of `pixels`
        names another one (TIFF only).
      layout: the layout of samples that Pillow reads wrongly or not at all (TIFF only).
      planes: files like `pixels` for the second and later samples, if each has its own plane.
    """

    pixels: Any  # a seekable file; Pillow's type hints do not accept BufferedIOBase
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


def listed(words: list[str]) -> str:
    """Returns the distinct words as an English list: "a, b and c"."""
    words = list(dict.fromkeys(words))
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def damaged_chunks(names: list[str]) -> tuple[str, ...]:
    """Returns the note on damaged chunks, nothing if there are none."""
    if not names:
        return ()
    rest = "chunk is damaged and was" if len(set(names)) == 1 else "chunks are damaged and were"
    return (f"its {listed(names)} {rest} ignored",)
