"""Parses PNG: Pillow gets the chunks that pixels need; the others are read here or dropped.

So a chunk that is damaged, larger than Pillow accepts or after the pixels does not prevent
decoding. The chunks and their order of precedence follow PNG, third edition (W3C 2025).
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt16
from PIL import Image

from fa_hific_jax.data import color
from fa_hific_jax.data.color import Space
from fa_hific_jax.data.parsed import END_MISSING, FURTHER_PAGES, TRUNCATED, ParsedFile, damage_note

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = ("IHDR", "PLTE", "IDAT", "IEND")
# struct's forms of chunks of a fixed size, and of a transparent level or color by color type.
_FORMS = {"cICP": "4B", "sRGB": "B", "gAMA": ">I", "cHRM": ">8i", "pHYs": ">IIB", "acTL": ">II"}
_KEYS = {0: ">H", 2: ">HHH"}
_LARGE_TEXT = 2**20
_LARGEST = 2**24  # bytes of a profile or of metadata that are read
_SRGB_TOLERANCE = 0.05  # Within 5 % of 2.2, an exponent means sRGB's curve, as in libpng.
_XMP, _OLD_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"
_INFO = ("transparency", "icc_profile", "exif", "xmp")


class _Chunk(NamedTuple):
    name: str
    data: bytes
    size: int  # stated size in bytes
    sound: bool  # True if the chunk is complete and its checksum is right


def parse(data: bytes) -> ParsedFile:
    """Parses a PNG file.

    Raises ValueError if a chunk that the pixels need is damaged, missing or unknown.
    """
    chunks = list(_chunks(data))
    if not chunks or chunks[0].name != "IHDR" or not chunks[0].sound or chunks[0].size != 13:
        raise ValueError("its header is damaged")
    depth, color_type = chunks[0].data[8:10]
    pixels, notes = _pixels(chunks, color_type)
    kept = _information(chunks, color_type, notes)
    space = _space(kept, notes)
    if space is not None:
        kept.pop("icc_profile", None)
    if "old_exif" in kept:
        kept.setdefault("exif", kept["old_exif"])
    info = {name: kept[name] for name in _INFO if name in kept}
    key = tuple(level & (1 << depth) - 1 for level in kept.get("tRNS", ()))
    return ParsedFile(pixels, info, space, tuple(notes), key, depth)


def deep_color(pixels: bytes, upper: Image.Image) -> UInt16[np.ndarray, "h w 3"]:
    """Returns all 16 bits of RGB or RGBA; Pillow's image `upper` has only the upper 8."""
    lower = Image.open(io.BytesIO(pixels))
    tile = lower.tile[0]  # pyright: ignore[reportAttributeAccessIssue]
    lower.tile = [(*tile[:3], tile[3].replace("16B", "16L"))]  # pyright: ignore
    return np.asarray(upper)[..., :3].astype(np.uint16) * 256 + np.asarray(lower)[..., :3]


def _chunks(data: bytes) -> Iterator[_Chunk]:
    at, name = len(SIGNATURE), b""
    while at + 8 <= len(data) and name != b"IEND":
        size, name = struct.unpack_from(">I4s", data, at)
        body, at = data[at + 8 : at + 8 + size], at + 12 + size
        crc = struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
        yield _Chunk(name.decode("latin1"), body, size, data[at - 4 : at] == crc)


def _pixels(chunks: list[_Chunk], color_type: int) -> tuple[bytes, list[str]]:
    """Returns a PNG of only the chunks that decide the pixels' levels, with notes."""
    palettes = [c for c in chunks if c.name == "PLTE" and color_type == 3]
    if color_type == 3 and not palettes:
        raise ValueError("its palette is missing")
    for name in (c.name for c in chunks if c.name.isalpha() and c.name[0].isupper()):
        if name not in _CRITICAL:
            raise ValueError(f"it needs a reader that knows its {name} chunk")
    needed = [c for c in chunks if c.name == "IDAT" or c in palettes]
    if any(len(chunk.data) < chunk.size for chunk in needed):
        raise ValueError(TRUNCATED)
    if not all(chunk.sound for chunk in palettes):
        raise ValueError("its palette is damaged")
    parts = [SIGNATURE]
    for chunk in [chunks[0], *needed, _Chunk("IEND", b"", 0, True)]:
        name = chunk.name.encode("latin1")
        crc = zlib.crc32(chunk.data, zlib.crc32(name))
        parts += [struct.pack(">I", chunk.size), name, chunk.data, struct.pack(">I", crc)]
    notes = []
    if not all(chunk.sound for chunk in needed):  # Pillow checks the zlib stream's own checksum.
        notes.append("the checksum of a pixel chunk is wrong, but that of the pixels is right")
    if chunks[-1].name != "IEND":
        notes.append(END_MISSING)
    return b"".join(parts), notes


def _information(chunks: list[_Chunk], color_type: int, notes: list[str]) -> dict[str, Any]:
    """Returns the content of the other chunks, the first of each kind; damage becomes a note."""
    kept: dict[str, Any] = {}
    damaged = []
    for chunk in (chunk for chunk in chunks if chunk.name not in _CRITICAL):
        try:
            if not chunk.sound:
                raise ValueError("the checksum is wrong")
            kept = _read(chunk.name, chunk.data, color_type) | kept
        except (ValueError, ZeroDivisionError, struct.error, zlib.error):
            damaged.append(chunk.name if chunk.name.isalnum() else "last")
    notes.extend(damage_note(damaged))
    if "large" in kept:
        notes.append("its text of more than 1 MiB was left out")
    if kept.get("acTL", (1,))[0] > 1 or any(chunk.name == "fdAT" for chunk in chunks):
        notes.append(FURTHER_PAGES)
    return kept


def _read(name: str, data: bytes, color_type: int) -> dict[str, Any]:
    """Returns the content of an undamaged chunk by name; raises if its length is wrong."""
    if form := _KEYS.get(color_type) if name == "tRNS" else _FORMS.get(name):
        values = struct.unpack(form, data)
        if name == "gAMA":
            return {name: 100000 / values[0]}
        if name == "cHRM":
            values = tuple(value / 100000 for value in values)
            color.matrices(values)  # Raises if they are impossible.
        return {name: values}
    if name == "tRNS" and color_type == 3:
        if not 1 <= len(data) <= 256:
            raise ValueError("impossible length")
        return {"transparency": data}
    if name == "iCCP":
        return {"icc_profile": _inflated(data.partition(b"\0")[2][1:], _LARGEST)}
    if name == "eXIf":
        return {"exif": data}
    return _text(name, data) if name in ("tEXt", "zTXt", "iTXt") else {}


def _text(name: str, data: bytes) -> dict[str, Any]:
    keyword, _, text = data.partition(b"\0")
    compressed = name == "zTXt" or (name == "iTXt" and text[:1] == b"\1")
    text = {"tEXt": text, "zTXt": text[1:], "iTXt": text[2:].split(b"\0", 2)[-1]}[name]
    if compressed:
        text = _inflated(text, _LARGEST if keyword in (_XMP, _OLD_EXIF) else _LARGE_TEXT + 1)
    if keyword == _XMP:
        return {"xmp": text}
    if keyword == _OLD_EXIF:
        lines = text.decode("latin1").split("\n")  # The first three tell kind and length.
        return {"old_exif": bytes.fromhex("".join(lines[3:]))}
    return {"large": True} if len(text) > _LARGE_TEXT else {}


def _inflated(data: bytes, most: int) -> bytes:
    """Returns at most the first `most` bytes of a zlib stream."""
    stream = zlib.decompressobj()
    result = stream.decompress(data, most)
    if not stream.eof and len(result) < most:
        raise ValueError("incomplete")
    return result


def _space(kept: dict[str, Any], notes: list[str]) -> Space | None:
    """Returns the color space that the chunks state, None for sRGB or an embedded profile.

    cICP takes precedence over iCCP, then sRGB, then gAMA with cHRM.
    """
    if "cICP" in kept:
        primaries, transfer, *rest = kept["cICP"]
        space = color.coded(primaries, transfer)
        if space is not None and rest == [0, 1]:
            return space
        notes.append(color.UNKNOWN.format("with code points {}/{}/{}/{}".format(*kept["cICP"])))
    if "icc_profile" in kept or "sRGB" in kept or not {"gAMA", "cHRM"} & kept.keys():
        return None
    exponent = kept.get("gAMA", 2.2)
    near = abs(exponent / 2.2 - 1) < _SRGB_TOLERANCE
    return Space(kept.get("cHRM", color.SRGB), 13 if near else exponent)
