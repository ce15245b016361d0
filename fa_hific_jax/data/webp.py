"""Parses WebP: Pillow gets the chunks that pixels need; EXIF and XMP are read here (RFC 9649)."""

import io
import struct
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from fa_hific_jax.data.parsed import TRUNCATED, ParsedFile, damaged_chunks

_HEAD = 12  # number of bytes of the header: RIFF, the size of the rest, WEBP
_NEEDED = (b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_PIXELS = (b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_INFO = {b"EXIF": "exif", b"XMP ": "xmp"}
_INFO_FLAGS = 0x0C  # bits in VP8X that announce EXIF and XMP


def is_webp(start: bytes) -> bool:
    """Returns True if these are the first bytes of a WebP file."""
    return start[:4] == b"RIFF" and start[8:_HEAD] == b"WEBP"


def parse(file: BufferedIOBase) -> ParsedFile:
    """Parses a WebP file; Pillow finds damage outside EXIF, XMP and the file's length.

    Raises:
      ValueError: pixels are missing.
    """
    data = file.read()
    info: dict[str, Any] = {}
    kept, damaged = [], []
    for name, body, size in _chunks(data):
        if name in _PIXELS and len(body) < size:
            raise ValueError(TRUNCATED)
        if name == b"VP8X" and body:
            body = bytes([body[0] & ~_INFO_FLAGS]) + body[1:]
        if name in _NEEDED:
            kept.append(name + struct.pack("<I", size) + body + bytes(len(body) % 2))
        elif name in _INFO and len(body) == size:
            info.setdefault(_INFO[name], body)
        elif name in _INFO:
            damaged.append(name.decode().strip())
    chunks = b"WEBP" + b"".join(kept)
    pixels = io.BytesIO(b"RIFF" + struct.pack("<I", len(chunks)) + chunks)
    return ParsedFile(pixels, info=info, notes=damaged_chunks(damaged))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Yields name, content and stated size of each chunk."""
    at = _HEAD
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size], size
        at += 8 + size + size % 2
