"""Extracts EXIF and XMP from image files and adapts them to the upright decoded picture."""

import contextlib
import io
import re
import struct
from typing import NamedTuple

from PIL import Image

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


def of(image: Image.Image, parsed: ParsedFile, data: bytes) -> Metadata:
    """Returns the metadata of an opened file of bytes `data`, with an upright orientation."""
    info = image.info | parsed.info
    xmp = info.get("xmp", b"")
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp).rstrip(b"\0")
    exif = _of_tiff(data) if image.format == "TIFF" else info.get("exif", b"")
    return Metadata(_upright(bytes(exif)), _TURN.sub(rb"\g<1>1", xmp))


def _upright(exif: bytes) -> bytes:
    """Sets the orientation to 1 in place, since maker notes depend on the offsets of all bytes."""
    exif = exif.removeprefix(_PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, first)
    except struct.error:  # `order` may be None.
        return b""
    end = first + 2 + 12 * count
    if len(exif) < end + 4:  # the offset of the next directory
        return b""
    tag = struct.pack(f"{order}H", _ORIENTATION)
    for at in range(first + 2, end, 12):
        if exif[at : at + 2] == tag:
            return exif[: at + 8] + struct.pack(f"{order}HH", 1, 0) + exif[at + 12 :]
    return exif


def _of_tiff(data: bytes) -> bytes:
    """Returns new EXIF with the tags that describe the photograph; b"" if there are none."""
    found, kept = Image.Exif(), Image.Exif()
    with contextlib.suppress(Exception):  # Pillow raises errors of many types on damaged tags.
        found.load_from_fp(io.BytesIO(data))
        kept.update({tag: found[tag] for tag in _DESCRIBING if tag in found})
        for directory in _DIRECTORIES:
            if values := dict(found.get_ifd(directory)):
                kept[directory] = values
        return kept.tobytes().removeprefix(_PREFIX) if len(kept) else b""
    return b""
