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
_XMP_NAME = "XML:com.adobe.xmp"
_JPEG_EXIF, _JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_SEGMENT = 65533


def pack(metadata: Metadata) -> bytes:
    """Returns the bytes of the part, b"" for none; raises a UserError for more than MOST bytes."""
    parts = {kind: getattr(metadata, name) for kind, name in _KINDS.items()}
    items = b"".join(_ITEM.pack(k, len(data)) + data for k, data in parts.items() if data)
    if len(items) > MOST:
        why = f"its metadata takes {len(items)} bytes, but at most {MOST} can be kept"
        raise UserError(f"{why}: omit --keep-metadata")
    return zlib.compress(items, 9) if items else b""


def unpack(part: bytes) -> Metadata:
    """Inverts `pack`, within MOST bytes of memory; raises a BitstreamError if it is damaged."""
    if not part:
        return Metadata()
    stream = zlib.decompressobj()
    found, at = {}, 0
    try:
        items = stream.decompress(part, MOST)
        while at < len(items):
            kind, size = _ITEM.unpack_from(items, at)
            at += _ITEM.size + size
            found[kind] = items[at - size : at]
        if not stream.eof or stream.unused_data or at != len(items):
            raise ValueError("bytes are missing, or follow the end")
    except (zlib.error, struct.error, ValueError) as error:
        raise BitstreamError("the metadata in the file is damaged: fetch it again") from error
    return Metadata(**{_KINDS[kind]: data for kind, data in found.items() if kind in _KINDS})


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
    """Returns options of Pillow's `save` for the format `kind` that also write the metadata.

    Raises a UserError if the metadata is too large for a JPEG.
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
        tags = Image.Exif()
        if exif:
            tags.load_from_fp(io.BytesIO(exif))
        if xmp:
            tags[700] = xmp
        # Pillow does not pass EXIF on to the library that compresses TIFF.
        added = {"exif": tags, "compression": "raw"}
    return options | added
