"""Parses WebP: Pillow gets the chunks that pixels need; EXIF and XMP are read here (RFC 9649)."""

import io
import struct
from io import BufferedIOBase
from typing import Any

from fa_hific_jax.data.parsed import TRUNCATED, ParsedFile, damaged_chunks

_HEAD = 12  # number of bytes of the header: RIFF, the size of the rest, WEBP
_PIXELS = (b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_NEEDED = (b"VP8X", b"ICCP", b"ANIM", *_PIXELS)
_INFO = {b"EXIF": "exif", b"XMP ": "xmp"}
_INFO_FLAGS = 0x0C  # bits in VP8X that announce EXIF and XMP


def parse(file: BufferedIOBase) -> ParsedFile:
    """Parses a WebP file; raises ValueError if pixels are missing. Pillow finds other damage."""
    data = file.read()
    info: dict[str, Any] = {}
    chunks, damaged, at = [], [], _HEAD
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
        if name in _PIXELS and len(body) < size:
            raise ValueError(TRUNCATED)
        if name == b"VP8X" and body:
            body = bytes([body[0] & ~_INFO_FLAGS]) + body[1:]
        if name in _NEEDED:
            chunks.append(struct.pack("<4sI", name, size) + body + bytes(len(body) % 2))
        elif name in _INFO and len(body) == size:
            info.setdefault(_INFO[name], body)
        elif name in _INFO:
            damaged.append(name.decode().strip())
    rest = b"WEBP" + b"".join(chunks)
    pixels = io.BytesIO(struct.pack("<4sI", b"RIFF", len(rest)) + rest)
    return ParsedFile(pixels, info=info, notes=damaged_chunks(damaged))
