"""What JPEG 2000 states in its boxes and Pillow does not hand on (ISO 15444-1, annex I)."""

import struct
from collections.abc import Iterator
from io import BufferedIOBase

from fa_hific_jax.data.parsed import ParsedFile

SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_BY_NUMBER, _PROFILES = 1, (2, 3)
# CMYK, sRGB, gray and sYCC: what Pillow tells apart.
_KNOWN = (12, 16, 17, 18)


def parse(file: BufferedIOBase) -> ParsedFile:
    """Returns the parts of a JP2: its profile, or a note on a color space that is not known."""
    profile, number = b"", None
    for body in _colors(file):
        method = body[0] if len(body) > 3 else 0
        if method in _PROFILES:
            profile = profile or body[3:]
        elif method == _BY_NUMBER and number is None and len(body) >= 7:
            (number,) = struct.unpack_from(">I", body, 3)
    file.seek(0)
    if profile:
        return ParsedFile(file, info={"icc_profile": profile})
    known = number is None or number in _KNOWN
    note = f"its color space of the number {number} is not known and was ignored"
    return ParsedFile(file, notes=() if known else (note,))


def _colors(file: BufferedIOBase) -> Iterator[bytes]:
    """The contents of the boxes `colr`."""
    file.seek(0)
    for name, body in _boxes(file):
        if name == b"colr":
            yield body


def _boxes(file: BufferedIOBase) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of the boxes before the pixels, those within the header's among them."""
    while len(head := file.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"jp2h":
            continue  # Its content is boxes.
        if name == b"jp2c" or size < 8:
            return
        yield name, file.read(size - 8)
