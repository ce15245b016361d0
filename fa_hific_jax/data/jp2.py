"""Parses what Pillow does not report of JPEG 2000: profile and color space (ISO 15444-1)."""

import struct
from collections.abc import Iterator
from io import BufferedIOBase

from fa_hific_jax.data.parsed import ParsedFile

SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
_BY_NUMBER, _PROFILES = 1, (2, 3)
_KNOWN = (12, 16, 17, 18)  # CMYK, sRGB, gray and sYCC, which Pillow distinguishes


def parse(file: BufferedIOBase) -> ParsedFile:
    """Parses a JP2 file: returns its profile, or a note if its color space is unknown."""
    profile, number = b"", None
    for body in (body for name, body in _boxes(file) if name == b"colr"):
        method = body[0] if len(body) > 3 else 0
        if method in _PROFILES:
            profile = profile or body[3:]
        elif method == _BY_NUMBER and number is None and len(body) >= 7:
            (number,) = struct.unpack_from(">I", body, 3)
    file.seek(0)
    if profile:
        return ParsedFile(file, info={"icc_profile": profile})
    known = number is None or number in _KNOWN
    note = f"its color space number {number} is unknown and was ignored"
    return ParsedFile(file, notes=() if known else (note,))


def _boxes(file: BufferedIOBase) -> Iterator[tuple[bytes, bytes]]:
    """Yields name and content of the boxes before the pixels, also of those inside `jp2h`."""
    file.seek(0)
    while len(head := file.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"jp2h":
            continue  # Its content consists of boxes, which are read next.
        if name == b"jp2c" or size < 8:
            return
        yield name, file.read(size - 8)
