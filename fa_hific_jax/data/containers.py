"""Parses WebP (RFC 9649), AVIF and HEIC (ISO 14496-12), JPEG 2000 and JPEG XL.

Of WebP, Pillow gets the chunks that pixels need; EXIF and XMP are read here. Of the others, what
Pillow does not report is read here.
"""

import importlib
import struct
from typing import Any

from fa_hific_jax.data import color
from fa_hific_jax.data.parsed import TRUNCATED, ParsedFile, damage_note

_PIXELS = (b"ANMF", b"ALPH", b"VP8 ", b"VP8L")
_NEEDED = (b"VP8X", b"ICCP", b"ANIM", *_PIXELS)
_INFO = {b"EXIF": "exif", b"XMP ": "xmp"}
_INFO_FLAGS = 0x0C  # bits in VP8X that announce EXIF and XMP
_DESCRIPTION = 2**16  # bytes at the start that contain the description of any still picture
_AVIF = {b"avif", b"avis"}
_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
_JP2_SPACES = (None, 12, 16, 17, 18)  # CMYK, sRGB, gray and sYCC, which Pillow distinguishes


def parse_webp(data: bytes) -> ParsedFile:
    """Parses a WebP file; raises ValueError if pixels are missing. Pillow finds other damage."""
    info: dict[str, Any] = {}
    chunks, damaged = [], []
    at = 12  # behind RIFF, the size of the rest and WEBP
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
    pixels = struct.pack("<4sI", b"RIFF", len(rest)) + rest
    return ParsedFile(pixels, info, notes=damage_note(damaged))


def parse_heif(data: bytes) -> ParsedFile:
    """Parses AVIF, or HEIC if pillow-heif is installed, which it registers; else a ValueError."""
    first = data[8 : int.from_bytes(data[:4], "big")][:_DESCRIPTION]  # the content of `ftyp`
    brands = {first[at : at + 4] for at in (0, *range(8, len(first), 4))}
    if _HEIC & brands and not _AVIF & brands:
        plug_in = _plug_in("pillow_heif", "HEIC; install pillow-heif, or save it as JPEG first")
        plug_in.register_heif_opener()
    notes = ["its HDR gain map is left out"] if b"tmap" in brands else []
    space = None
    place = data.find(b"colrnclx", 0, _DESCRIPTION)
    if 0 <= place <= len(data) - 12:
        primaries, transfer = struct.unpack_from(">HH", data, place + 8)
        # Code point 2 says unspecified: sRGB.
        space = color.coded(1 if primaries == 2 else primaries, 13 if transfer == 2 else transfer)
        if space is None:
            notes.append(color.UNKNOWN.format(f"with code points {primaries}/{transfer}"))
    return ParsedFile(data, space=space, notes=tuple(notes))


def parse_jp2(data: bytes) -> ParsedFile:
    """Parses a JP2 file: returns its profile, or a note if its color space is unknown."""
    number, at = None, 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        if name == b"jp2c" or size < 8 and name != b"jp2h":  # the pixels, or damage
            break
        at += 8 if name == b"jp2h" else size  # The content of jp2h consists of boxes.
        if name != b"colr" or len(body) < 4:
            continue
        if body[0] in (2, 3):  # a profile
            return ParsedFile(data, {"icc_profile": body[3:]})
        if body[0] == 1 and number is None and len(body) >= 7:
            (number,) = struct.unpack_from(">I", body, 3)
    note = color.UNKNOWN.format(f"number {number}")
    return ParsedFile(data, notes=() if number in _JP2_SPACES else (note,))


def parse_jpeg_xl(data: bytes) -> ParsedFile:
    """Registers JPEG XL with Pillow; raises ValueError if the plug-in is not installed."""
    _plug_in("pillow_jxl", "JPEG XL; run pip install 'fa-hific-jax[jpegxl]'")
    return ParsedFile(data)


def _plug_in(module: str, missing: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(missing) from error
