"""Extracts EXIF and XMP from image files and adapts them to the upright decoded picture."""

import contextlib
import io
import re
import struct
from typing import NamedTuple

from PIL import Image

from fa_hific_jax.data import tags
from fa_hific_jax.data.parsed import ParsedFile

_PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_DIRECTORIES = (0x8769, 0x8825)  # EXIF's directories of the exposure and of the place (GPS)
# Tags of a TIFF that describe the photograph, not how its pixels are stored: title, maker, model,
# software, date, artist, copyright.
_DESCRIBING = (270, 271, 272, 305, 306, 315, 33432)
_TURN = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)(\d+)")


class Metadata(NamedTuple):
    """EXIF as a TIFF structure and XMP as a UTF-8 packet; b"" if a file has none."""

    exif: bytes = b""
    xmp: bytes = b""


def orientation(xmp: bytes | str) -> int:
    """Returns the orientation that an XMP packet states, as EXIF numbers it; 1 if there is none."""
    found = _TURN.search(xmp.encode() if isinstance(xmp, str) else xmp)
    return int(found[2]) if found else 1


def of(image: Image.Image, parsed: ParsedFile) -> Metadata:
    """Returns the metadata of an opened file, with the orientation set to upright."""
    info = image.info | parsed.info
    xmp = info.get("xmp", b"")
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp).rstrip(b"\0")
    exif = _of_tiff(parsed) if image.format == "TIFF" else info.get("exif", b"")
    return Metadata(_upright(bytes(exif)), _TURN.sub(rb"\g<1>1", xmp))


def _upright(exif: bytes) -> bytes:
    """Sets the orientation to 1 in place, since maker notes depend on the offsets of all bytes."""
    exif = exif.removeprefix(_PREFIX)
    try:
        head = tags.header(io.BytesIO(exif))
        tags.directory(io.BytesIO(exif), head, head.first)
        (count,) = struct.unpack_from(f"{head.order}H", exif, head.first)
        entries = range(head.first + 2, head.first + 2 + 12 * count, 12)
        tag = struct.pack(f"{head.order}H", _ORIENTATION)
        place = next((at + 8 for at in entries if exif[at : at + 2] == tag), None)
    except (ValueError, struct.error):
        return b""
    if place is None:
        return exif
    return exif[:place] + struct.pack(f"{head.order}HH", 1, 0) + exif[place + 4 :]


def _of_tiff(parsed: ParsedFile) -> bytes:
    """Returns new EXIF with the tags that describe the photograph; b"" if there are none."""
    found, kept = Image.Exif(), Image.Exif()
    with contextlib.suppress(Exception):  # Pillow raises errors of many types on damaged tags.
        found.endian = tags.header(parsed.pixels).order
        parsed.pixels.seek(0)
        found.load_from_fp(parsed.pixels, parsed.directory or None)
        kept.update({tag: found[tag] for tag in _DESCRIBING if tag in found})
        for directory in _DIRECTORIES:
            if values := dict(found.get_ifd(directory)):
                kept[directory] = values
        return kept.tobytes().removeprefix(_PREFIX) if len(kept) else b""
    return b""
