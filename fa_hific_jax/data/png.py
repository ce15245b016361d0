"""PNG taken apart: what the pixels need goes to Pillow, the rest is read here or dropped.

So a chunk that is damaged, too large for Pillow's liking or after the pixels costs nothing but
what it holds. Chunks and their order of precedence: PNG, third edition (W3C 2025).
"""

import io
import struct
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt16
from PIL import Image

from fa_hific_jax.data import color
from fa_hific_jax.data.color import Space
from fa_hific_jax.data.parsed import FURTHER_PAGES, TRUNCATED, ParsedFile, listed

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CRITICAL = ("IHDR", "PLTE", "IDAT", "IEND")
_LARGE_TEXT = 2**20
_LARGEST_PROFILE = 2**24
_SRGB_EXPONENT = 0.05  # an exponent this near to 2.2 stands for sRGB's curve, as for libpng
_XMP, _OLD_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"
_INFO = ("transparency", "icc_profile", "exif", "xmp", _OLD_EXIF.decode())


class _Chunk(NamedTuple):
    name: str
    data: bytes
    size: int  # as announced
    sound: bool  # whole, with the right checksum


def parse(file: BufferedIOBase, header_only: bool = False) -> ParsedFile:
    """The parts of a PNG, without pixels if so asked.

    Raises ValueError where what the pixels need is damaged.
    """
    chunks = list(_chunks(file, not header_only))
    header = _header(chunks)
    pixels, notes = (io.BytesIO(), []) if header_only else _pixels(chunks, header[3])
    kept = _information(chunks, header, notes)
    info = {name: kept[name] for name in _INFO if name in kept}
    space = _space(kept, notes)
    if space is not None:
        info.pop("icc_profile", None)
    return ParsedFile(pixels, header[:2], info, space, kept.get("key", ()), header[2], tuple(notes))


def deep_color(parsed: ParsedFile, upper: Image.Image) -> UInt16[np.ndarray, "h w 3"]:
    """All 16 bits of RGB or RGBA, of which Pillow's image has the upper 8."""
    parsed.pixels.seek(0)
    with Image.open(parsed.pixels) as image:
        tile = image.tile[0]  # pyright: ignore[reportAttributeAccessIssue]
        image.tile = [(*tile[:3], tile[3].replace("16B", "16L"))]  # pyright: ignore
        lower = np.asarray(image)[..., :3]
        return np.asarray(upper)[..., :3].astype(np.uint16) * 256 + lower


def _chunks(file: BufferedIOBase, pixels: bool = True) -> Iterator[_Chunk]:
    file.seek(len(SIGNATURE))
    while len(head := file.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"IDAT" and not pixels:
            file.seek(size + 4, io.SEEK_CUR)
            continue
        data, crc = file.read(size), file.read(4)
        sound = crc == zlib.crc32(data, zlib.crc32(name)).to_bytes(4, "big")
        yield _Chunk(name.decode("latin1"), data, size, sound)
        if name == b"IEND":
            return


def _header(chunks: list[_Chunk]) -> tuple[int, ...]:
    """Width, height, bits of a sample, color type, and three of no concern here."""
    first = chunks[0] if chunks else None
    if first is None or first.name != "IHDR" or not first.sound or first.size != 13:
        raise ValueError("its header is damaged")
    return struct.unpack(">IIBBBBB", first.data)


def _pixels(chunks: list[_Chunk], color_type: int) -> tuple[io.BytesIO, list[str]]:
    """A PNG of what decides the pixels' levels and nothing else, with notes."""
    needed = [c for c in chunks if c.name == "IDAT" or (c.name == "PLTE" and color_type == 3)]
    if color_type == 3 and not any(c.name == "PLTE" for c in needed):
        raise ValueError("its palette is missing")
    unknown = [c.name for c in chunks if c.name.isalpha() and c.name[0].isupper()]
    unknown = [name for name in unknown if name not in _CRITICAL]
    if unknown:
        raise ValueError(f"it needs a reader that knows its {listed(unknown)} chunk")
    for chunk in needed:
        if len(chunk.data) < chunk.size:
            raise ValueError(TRUNCATED)
        if not chunk.sound and chunk.name == "PLTE":
            raise ValueError("its palette is damaged")
    file = io.BytesIO()
    file.write(SIGNATURE)
    for chunk in [chunks[0], *needed, _Chunk("IEND", b"", 0, True)]:
        name = chunk.name.encode("latin1")
        crc = zlib.crc32(chunk.data, zlib.crc32(name))
        file.write(struct.pack(">I", chunk.size) + name + chunk.data + struct.pack(">I", crc))
    file.seek(0)
    notes = []
    if not all(chunk.sound for chunk in needed):  # their zlib stream has a checksum of its own
        notes.append("a checksum around its pixels is wrong, the one within them is right")
    if chunks[-1].name != "IEND":
        notes.append("its end is missing, after the last of its pixels")
    return file, notes


def _information(chunks: list[_Chunk], header: tuple[int, ...], notes: list[str]) -> dict[str, Any]:
    """What the chunks beside the pixels tell, the first of each kind; damage becomes a note."""
    kept: dict[str, Any] = {}
    damaged = []
    for chunk in chunks:
        if chunk.name in _CRITICAL:
            continue
        try:
            if not chunk.sound:
                raise ValueError("another checksum")
            kept = _read(chunk, header) | kept
        except (ValueError, struct.error, zlib.error):
            damaged.append(chunk.name if chunk.name.isalnum() else "last")
    if damaged:
        what, verb = ("chunk", "is") if len(set(damaged)) == 1 else ("chunks", "are")
        notes.append(f"its {listed(damaged)} {what} {verb} damaged and ignored")
    if "large" in kept:
        notes.append("more than a megabyte of text in it was left out")
    if kept.get("frames", 1) > 1 or any(chunk.name == "fdAT" for chunk in chunks):
        notes.append(FURTHER_PAGES)
    return kept


def _read(chunk: _Chunk, header: tuple[int, ...]) -> dict[str, Any]:
    """What a sound chunk tells, by name; raises where it has another length than it should."""
    depth, color_type, data = header[2], header[3], chunk.data
    match chunk.name:
        case "tRNS" if color_type in (0, 2):
            key = struct.unpack(">H" if color_type == 0 else ">HHH", data)
            return {"key": tuple(level & (1 << depth) - 1 for level in key)}
        case "tRNS" if color_type == 3:
            if not 1 <= len(data) <= 256:
                raise ValueError("impossible length")
            return {"transparency": data}
        case "cICP":
            return {"cicp": struct.unpack("4B", data)}
        case "iCCP":
            compressed = data.partition(b"\0")[2]
            return {"icc_profile": _inflated(compressed[1:], _LARGEST_PROFILE)}
        case "sRGB":
            return {"srgb": struct.unpack("B", data)}
        case "gAMA":
            return {"gamma": 100000 / _positive(*struct.unpack(">I", data))}
        case "cHRM":
            points = tuple(value / 100000 for value in struct.unpack(">8i", data))
            color.to_srgb(np.zeros((1, 1, 3), np.uint8), Space(points))  # raises if impossible
            return {"primaries": points}
        case "pHYs":
            struct.unpack(">IIB", data)
        case "acTL":
            return {"frames": struct.unpack(">II", data)[0]}
        case "eXIf":
            return {"exif": data}
        case "tEXt" | "zTXt" | "iTXt":
            return _text(chunk)
    return {}


def _text(chunk: _Chunk) -> dict[str, Any]:
    keyword, _, text = chunk.data.partition(b"\0")
    most = _LARGEST_PROFILE if keyword in (_XMP, _OLD_EXIF) else _LARGE_TEXT + 1
    if chunk.name == "zTXt":
        text = _inflated(text[1:], most)
    elif chunk.name == "iTXt":
        compressed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
        text = _inflated(text, most) if compressed else text
    if keyword == _XMP:
        return {"xmp": text}
    if keyword == _OLD_EXIF:
        return {keyword.decode(): text.decode("latin1")}
    return {"large": True} if len(text) > _LARGE_TEXT else {}


def _inflated(data: bytes, most: int) -> bytes:
    """At most so many bytes of a zlib stream."""
    stream = zlib.decompressobj()
    result = stream.decompress(data, most)
    if not stream.eof and len(result) < most:
        raise ValueError("incomplete")
    return result


def _positive(value: int) -> int:
    if value <= 0:
        raise ValueError("not positive")
    return value


def _space(kept: dict[str, Any], notes: list[str]) -> Space | None:
    """The space of the first of cICP, iCCP, sRGB, gAMA with cHRM; None for iCCP and sRGB."""
    if "cicp" in kept:
        primaries, transfer, matrix, full = kept["cicp"]
        space = color.coded(primaries, transfer)
        if space is not None and (matrix, full) == (0, 1):
            return space
        notes.append(
            f"its color space of the code points {primaries}/{transfer}/{matrix}/{full} is not "
            "known and was ignored"
        )
    if "icc_profile" in kept or "srgb" in kept or not {"gamma", "primaries"} & kept.keys():
        return None
    exponent = kept.get("gamma", 2.2)
    near = abs(exponent / 2.2 - 1) < _SRGB_EXPONENT
    return Space(kept.get("primaries", color.SRGB), 13 if near else exponent)
