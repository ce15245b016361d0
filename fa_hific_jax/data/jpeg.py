"""Parses JPEG: Pillow gets tables and scans; the application segments are read here."""

import io
import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fa_hific_jax.data.parsed import TRUNCATED, ParsedFile

SIGNATURE = b"\xff\xd8\xff"
_SOS, _COMMENT = 0xDA, 0xFE
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_DROPPED = (*range(0xE0, 0xF0), _COMMENT)  # segments of applications and comments, unless they are
# JFIF's and Adobe's, which tell what the components are. These are their smallest sizes.
_COLOR = {(0xE0, b"JFIF\0"): 14, (0xEE, b"Adobe"): 12}
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_GAIN_MAP = b"http://ns.adobe.com/hdr-gain-map/"
_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class _Segment(NamedTuple):
    marker: int
    data: bytes  # content after the length
    start: int  # offset of the marker in the file


def parse(data: bytes) -> ParsedFile:
    """Parses a JPEG file: Pillow gets what the first picture needs, with JFIF's and Adobe's marker.

    A file without a scan goes to Pillow unchanged.
    """
    segments = []
    for segment in _segments(data):
        if segment.marker == _SOS:
            break
        segments.append(segment)
    else:
        return ParsedFile(data)
    kept = [s for s in segments if len(s.data) >= _COLOR.get((s.marker, s.data[:5]), 2**16)]
    kept += [s for s in segments if s.marker not in _DROPPED]
    head = b"".join(struct.pack(">BBH", 0xFF, s.marker, len(s.data) + 2) + s.data for s in kept)
    info, notes = _information(segments)
    return ParsedFile(SIGNATURE[:2] + head + data[segment.start :], info, notes=notes)


def completed(data: bytes) -> Image.Image:
    """Decodes a file that lacks its end marker; raises ValueError if pixels are missing too.

    To tell, the file is also decoded with different bits appended: missing pixels depend on these
    bits. The scans must also contain each coefficient to its last bit.
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
    while (found := _MARKER.search(data, at)) and found.start() + 4 <= len(data):
        at, marker = found.start(), data[found.start() + 1]
        if marker == _END[1]:
            return
        end = at + 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
        yield _Segment(marker, data[at + 4 : end], at)
        at = end


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
    if profile := found(0xE2, b"ICC_PROFILE\0"):
        info["icc_profile"] = _profile(profile)
    if found(0xE2, b"MPF\0"):
        return info, ("its further pictures, such as previews or gain maps, are left out",)
    return info, ("its HDR gain map is left out",) if xmp and _GAIN_MAP in xmp[0] else ()


def _profile(pieces: list[bytes]) -> bytes:
    """Joins pieces of a profile, which begin with number and count; invalid if some are missing."""
    by_number = {piece[0]: piece for piece in pieces if len(piece) > 2}
    whole = all(sorted(by_number) == [*range(1, piece[1] + 1)] for piece in by_number.values())
    return b"".join(by_number[n][2:] for n in sorted(by_number)) if whole else b"damaged"


def _all_scans(data: bytes) -> bool:
    """Returns True if the scans contain each coefficient of each component to its last bit."""
    left: dict[int, np.ndarray] = {}  # missing low bits of each coefficient
    for marker, body, _ in _segments(data):
        if marker in _FRAMES and len(body) > 5:
            left = {identity: np.full(64, 255) for identity in body[6 : 6 + 3 * body[5] : 3]}
        elif marker == _SOS and body and len(body) >= 2 * body[0] + 4:
            first, last, bits = body[1 + 2 * body[0] :][:3]
            for name in left.keys() & set(body[1 : 1 + 2 * body[0] : 2]):
                left[name][first : last + 1] = bits & 15
    return bool(left) and not any(each.any() for each in left.values())
