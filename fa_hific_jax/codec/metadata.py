"""Stores EXIF and XMP with a compressed image, as the metadata part of docs/bitstream.md."""

import io
import struct
import zlib
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fa_hific_jax.codec import bitstream
from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.data.metadata import Metadata
from fa_hific_jax.errors import UserError

MOST = 2**24  # limit in bytes before compression
_ITEM = struct.Struct("<BI")
_KINDS = {0: "exif", 1: "xmp"}
_DAMAGED = "the metadata in the file is damaged: fetch it again"
_XMP_NAME = "XML:com.adobe.xmp"
_JPEG_EXIF, _JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_SEGMENT = 65533


def pack(metadata: Metadata) -> bytes:
    """Returns the bytes of the part, or b"" if there is no metadata.

    Raises:
      UserError: the metadata takes more than MOST bytes.
    """
    items = b""
    for kind, name in _KINDS.items():
        if data := getattr(metadata, name):
            items += _ITEM.pack(kind, len(data)) + data
    if len(items) > MOST:
        raise UserError(
            f"its metadata takes {len(items)} bytes, but at most {MOST} can be kept: "
            "omit --keep-metadata"
        )
    return zlib.compress(items, 9) if items else b""


def unpack(part: bytes) -> Metadata:
    """Returns the metadata that `pack` was given, without kinds that only later versions know.

    Allocates at most MOST bytes.

    Raises:
      BitstreamError: the part is damaged.
    """
    if not part:
        return Metadata()
    stream = zlib.decompressobj()
    try:
        items = stream.decompress(part, MOST)
        found, at = {}, 0
        while at < len(items):
            kind, size = _ITEM.unpack_from(items, at)
            at += _ITEM.size + size
            found[_KINDS.get(kind, "")] = items[at - size : at]
    except (zlib.error, struct.error) as error:
        raise BitstreamError(_DAMAGED) from error
    if not stream.eof or stream.unused_data or at != len(items):
        raise BitstreamError(_DAMAGED)
    found.pop("", None)
    return Metadata(**found)


def attach(data: bytes, part: bytes) -> bytes:
    """Returns the compressed image with this metadata part instead of its own."""
    return bitstream.pack(bitstream.unpack(data)._replace(metadata=part))


def room(part: bytes) -> int:
    """Returns the largest number of bytes by which `attach` makes a file larger."""
    return len(part) + 6 if part else 0


def of(data: bytes) -> Metadata:
    """Returns the metadata of a compressed image; raises a BitstreamError if it is damaged."""
    return unpack(bitstream.unpack(data).metadata)


def with_metadata(options: dict[str, Any], metadata: Metadata, kind: str) -> dict[str, Any]:
    """Returns options of Pillow's `save` that also write the metadata.

    `kind` is Pillow's name of the format: PNG, JPEG, WEBP or TIFF.

    Raises:
      UserError: the metadata is too large for a JPEG.
    """
    exif, xmp = metadata
    added: dict[str, Any] = {"exif": _JPEG_EXIF + exif} if exif else {}
    if kind == "PNG" and xmp:
        added["pnginfo"] = options.get("pnginfo") or PngInfo()
        added["pnginfo"].add_itxt(_XMP_NAME, xmp.decode("utf8", "replace"))
    elif kind == "JPEG":
        xmp = _JPEG_XMP + xmp if xmp else b""
        if max(len(xmp), len(exif) + len(_JPEG_EXIF)) > _JPEG_SEGMENT:
            raise UserError("JPEG cannot hold so much EXIF or XMP: write PNG, WebP or TIFF")
        if xmp:
            added["extra"] = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    elif kind == "WEBP" and xmp:
        added["xmp"] = xmp
    elif kind == "TIFF" and (exif or xmp):
        # Pillow does not pass EXIF on to the library that compresses TIFF.
        added = {"exif": _for_tiff(exif, xmp), "compression": "raw"}
    return options | added


def _for_tiff(exif: bytes, xmp: bytes) -> Image.Exif:
    found = Image.Exif()
    if exif:
        found.load_from_fp(io.BytesIO(exif))
    if xmp:
        found[700] = xmp
    return found
