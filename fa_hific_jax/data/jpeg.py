"""Parses JPEG: Pillow gets tables and scans; the application segments are read here."""

import io
import re
import struct
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fa_hific_jax.data import tags
from fa_hific_jax.data.parsed import TRUNCATED, ParsedFile

SIGNATURE = b"\xff\xd8\xff"
_SOS, _COMMENT = 0xDA, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_APPLICATIONS = range(0xE0, 0xF0)
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_ICC, _PICTURES = b"ICC_PROFILE\0", b"MPF\0"
_PICTURE_COUNT = 0xB001
_GAIN_MAP = b"http://ns.adobe.com/hdr-gain-map/"
_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class _Segment(NamedTuple):
    marker: int
    data: bytes  # content after the length
    start: int  # offset of the marker in the file


def parse(file: BufferedIOBase) -> ParsedFile:
    """Parses a JPEG file: Pillow gets what the first picture needs, with JFIF's and Adobe's marker.

    A file without a scan goes to Pillow unchanged.
    """
    data = file.read()
    segments = []
    for segment in _segments(data):
        if segment.marker == _SOS:
            break
        segments.append(segment)
    else:
        return ParsedFile(io.BytesIO(data))
    kept = [s for s in segments if _decides_color(s)]
    kept += [s for s in segments if s.marker not in (*_APPLICATIONS, _COMMENT)]
    head = b"".join(struct.pack(">BBH", 0xFF, s.marker, len(s.data) + 2) + s.data for s in kept)
    info, notes = _information(segments)
    pixels = io.BytesIO(SIGNATURE[:2] + head + data[segment.start :])
    return ParsedFile(pixels, info=info, notes=notes)


def completed(data: bytes) -> Image.Image:
    """Decodes a file that has all its pixels and lacks the end marker.

    To tell whether it has, the file is also decoded with different bits appended: if pixels are
    missing, they depend on these bits. The scans must also contain each coefficient to its last
    bit.

    Raises:
      OSError, ValueError: pixels are missing.
    """
    data = data[:-1] if data.endswith(b"\xff") else data
    files = (data + 64 * fill + _END for fill in (b"", b"\x55", b"\xaa"))
    first, *others = (Image.open(io.BytesIO(file)) for file in files)
    same = all(np.array_equal(np.asarray(first), np.asarray(other)) for other in others)
    if not (same and _all_scans(data)):
        raise ValueError(TRUNCATED)
    return first


def _segments(data: bytes) -> Iterator[_Segment]:
    """Yields the segments of the first picture, without the entropy-coded data between them."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
            at += 1
            continue
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _END[1]:
            return
        end = at + 2 + max(length, 2)
        yield _Segment(marker, data[at + 4 : end], at)
        at = end
        if marker == _SOS:
            found = _MARKER.search(data, at)
            at = found.start() if found else len(data)


def _decides_color(segment: _Segment) -> bool:
    """Returns True for JFIF's and Adobe's segments, which tell what the components are."""
    jfif = segment.marker == 0xE0 and segment.data.startswith(b"JFIF\0")
    adobe = segment.marker == 0xEE and segment.data.startswith(b"Adobe")
    return (jfif and len(segment.data) >= 14) or (adobe and len(segment.data) >= 12)


def _information(segments: list[_Segment]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns EXIF, XMP and profile, and notes on what else was left out."""

    def found(marker: int, prefix: bytes) -> list[bytes]:
        every = (s.data for s in segments if s.marker == marker)
        return [data.removeprefix(prefix) for data in every if data.startswith(prefix)]

    info: dict[str, Any] = {}
    if exif := found(0xE1, _EXIF):
        info["exif"] = _EXIF + b"".join(exif)
    if xmp := found(0xE1, _XMP):
        info["xmp"] = xmp[0]
    if profile := found(0xE2, _ICC):
        info["icc_profile"] = _profile(profile)
    pictures = found(0xE2, _PICTURES)
    count = _count(pictures[0]) if pictures else 1
    if count is None:
        return info, ("its index of further pictures is damaged, so only the first is kept",)
    if count > 1:
        kept = f"only the first of its {count} pictures is kept"
        return info, (f"{kept} (others may be previews, depth or gain maps)",)
    gain_map = xmp and _GAIN_MAP in xmp[0]
    return info, ("its HDR gain map is left out",) if gain_map else ()


def _profile(pieces: list[bytes]) -> bytes:
    """Joins the pieces of a color profile; returns invalid bytes if some are missing.

    A piece begins with its number, from 1, and the count of pieces.
    """
    by_number = {piece[0]: piece[2:] for piece in pieces if len(piece) > 2}
    count = pieces[0][1] if len(pieces[0]) > 2 else 0
    whole = sorted(by_number) == list(range(1, count + 1))
    return b"".join(by_number[number] for number in sorted(by_number)) if whole else b"damaged"


def _count(index: bytes) -> int | None:
    """Returns the number of pictures in the file, None if the index (CIPA DC-007) is damaged."""
    file = io.BytesIO(index)
    try:
        head = tags.header(file)
        return tags.directory(file, head, head.first)[0][_PICTURE_COUNT][0]
    except (ValueError, LookupError, struct.error):
        return None


def _all_scans(data: bytes) -> bool:
    """Returns True if the scans contain each coefficient of each component to its last bit."""
    left: dict[int, np.ndarray] = {}  # missing low bits of each coefficient
    for marker, body, _ in _segments(data):
        if marker in _FRAMES and len(body) > 5:
            left = {identity: np.full(64, 255) for identity in body[6 : 6 + 3 * body[5] : 3]}
        elif marker == _SOS and body and len(body) >= 2 * body[0] + 4:
            first, last, bits = body[1 + 2 * body[0] :][:3]
            for name in body[1 : 1 + 2 * body[0] : 2]:
                if name in left:
                    left[name][first : last + 1] = bits & 15
    return bool(left) and not any(each.any() for each in left.values())
