"""WebP taken apart: what decodes goes to Pillow, EXIF and XMP are read here (RFC 9649)."""

import io
import struct
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from fa_hific_jax.data.parsed import TRUNCATED, ParsedFile, listed

_HEAD = 12  # bytes: RIFF, the size of what follows, WEBP
_NEEDED = (b"VP8X", b"ICCP", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_PIXELS = (b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_INFO = {b"EXIF": "exif", b"XMP ": "xmp"}
_INFO_FLAGS = 0x0C  # of VP8X: that there are EXIF and XMP


def is_webp(start: bytes) -> bool:
    """Whether a file that begins so is one."""
    return start[:4] == b"RIFF" and start[8:_HEAD] == b"WEBP"


def parse(file: BufferedIOBase) -> ParsedFile:
    """The parts of a WebP; damage elsewhere than in EXIF, XMP and length is left to Pillow.

    Raises ValueError where pixels are missing.
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
    notes = (f"its {listed(damaged)} chunk is damaged and ignored",) if damaged else ()
    return ParsedFile(pixels, info=info, notes=notes)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Name, content and announced size of each."""
    at = _HEAD
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size], size
        at += 8 + size + size % 2
