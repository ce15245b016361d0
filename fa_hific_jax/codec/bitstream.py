"""Packs and unpacks the container of a compressed image, as docs/bitstream.md specifies it.

Whatever the header claims, unpacking allocates no more memory than copies of the streams. It
refuses every file that `pack` would not have written.
"""

import io
import math
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from fa_hific_jax.errors import UserError
from fa_hific_jax.models import padded_shape

MAGIC = b"FAHJ"
VERSION = 2  # raised whenever a file would decode differently
MAX_PIXELS = 512 * 2**20
QUALITIES = 256  # levels, stored in one byte
CODERS = ("constriction", "tfc")  # The position is the id in files: only append, never move.

_START = MAGIC + bytes([VERSION])
_CRC = slice(len(_START), len(_START) + 4)  # the checksum of all other bytes
# Bits 0 to 3 of the flags are the coder. Bits 8 to 15 are a second byte, which is never 0.
_ALPHA, _QUALITY, _MORE, _GRAY, _METADATA = 1 << 4, 1 << 5, 1 << 6, 1 << 8, 1 << 9
_LARGEST = 2**31 - 1  # number in the header


class BitstreamError(UserError):
    """The file is damaged, of another kind or version, or made with another model."""


class Container(NamedTuple):
    """The content of a file."""

    model_id: bytes  # 8 bytes: the model that decodes the file
    coder: str  # one of CODERS
    width: int  # pixels
    height: int  # pixels
    z_stream: bytes = b""  # coded hyper-latents
    y_stream: bytes = b""  # coded latents
    alpha_stream: bytes = b""  # coded transparency, empty for an opaque image
    symbols_crc: int = 0  # `symbols_crc(z, y)` of the coded symbols
    quality: int | None = None  # level below QUALITIES; None if the model has a single rate
    gray: bool = False  # True if the decoder must make red, green and blue equal
    metadata: bytes = b""  # EXIF and XMP as `codec.metadata` packs them


def pack(container: Container) -> bytes:
    """Returns the bytes of the file; raises a BitstreamError for an image of an impossible size."""
    held = container
    if len(held.model_id) != 8:
        raise ValueError(f"a model id has 8 bytes, got {len(held.model_id)}")
    _check_size(held.width, held.height, MAX_PIXELS)
    optional = {_ALPHA: held.alpha_stream, _METADATA: held.metadata}
    streams = [held.z_stream, held.y_stream, *filter(None, optional.values())]
    if max(map(len, streams)) > _LARGEST:
        raise BitstreamError("a stream is too long for the format: cut the image into parts")
    quality = b"" if held.quality is None else bytes([held.quality])
    present = {_QUALITY: quality, _GRAY: held.gray, **optional}
    flags = CODERS.index(held.coder) | sum(flag for flag, part in present.items() if part)
    more = bytes([flags >> 8]) if flags >> 8 else b""
    first = bytes([flags & 255 | (_MORE if more else 0)])
    crc = held.symbols_crc.to_bytes(4, "little")
    numbers = map(_varint, (held.width, held.height, *map(len, streams)))
    rest = b"".join((held.model_id, first, crc, quality, more, *numbers, *streams))
    return _START + _checksum(rest) + rest


def unpack(data: bytes, max_pixels: int = MAX_PIXELS) -> Container:
    """Returns the container; raises a BitstreamError for anything that `pack` does not write.

    `max_pixels` limits the image size after padding: one row of pixels is coded as 64 rows.
    """
    if data[:4] != MAGIC:
        raise BitstreamError("not a fa-hific-jax file: choose one that `compress` has written")
    if data[4:5] not in (b"", _START[4:]):
        old = ", made by a pre-release that no release reads" if data[4] == 1 else ""
        raise BitstreamError(
            f"the file has bitstream version {data[4]}{old}, this build reads version {VERSION}: "
            "install the release of fa-hific-jax that wrote it, or compress the image again"
        )
    file = io.BytesIO(data)
    file.seek(_CRC.stop)
    model_id, flags = _take(file, 8), _take(file, 1)[0]
    if flags & 15 >= len(CODERS):
        raise BitstreamError(f"coder {flags & 15} is unknown: install a newer fa-hific-jax")
    crc = int.from_bytes(_take(file, 4), "little")
    quality = _take(file, 1)[0] if flags & _QUALITY else None
    flags |= _take(file, 1)[0] << 8 if flags & _MORE else 0
    if unknown := flags & ~(15 | _ALPHA | _QUALITY | _MORE | _GRAY | _METADATA):
        raise BitstreamError(f"the flags {unknown:#x} are unknown: install a newer fa-hific-jax")
    width, height = _read_varint(file), _read_varint(file)
    _check_size(width, height, max_pixels)
    present = (True, True, flags & _ALPHA, flags & _METADATA)
    lengths = [_read_varint(file) if each else 0 for each in present]
    end = file.tell() + sum(lengths)
    if len(data) < end:
        raise BitstreamError(f"the file is truncated to {len(data)} of {end} bytes: fetch it again")
    z, y, alpha, metadata = (file.read(length) for length in lengths)
    coder, gray = CODERS[flags & 15], bool(flags & _GRAY)
    held = Container(model_id, coder, width, height, z, y, alpha, crc, quality, gray, metadata)
    if pack(held) != data:
        why = "the checksum does not match, or the header is impossible"
        raise BitstreamError(f"{why}, so the file is damaged: fetch it again")
    return held


def check_model(container: Container, model_id: bytes) -> None:
    """Raises BitstreamError unless the container was made with the model of that id."""
    if container.model_id != model_id:
        raise BitstreamError(
            f"the file was made with model {container.model_id.hex()}, the model given is "
            f"{model_id.hex()}: give the model that compressed it"
        )


def symbols_crc(z: Integer[np.ndarray, "*z"], y: Integer[np.ndarray, "*y"]) -> int:
    """Returns the CRC-32 of all symbols as little-endian int32: z, then y, each in C order."""
    crc = zlib.crc32(np.ascontiguousarray(z, "<i4").data)
    return zlib.crc32(np.ascontiguousarray(y, "<i4").data, crc)


def _checksum(rest: bytes) -> bytes:
    return zlib.crc32(rest, zlib.crc32(_START)).to_bytes(4, "little")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BitstreamError(f"{width} x {height} pixels is impossible: both sides are at least 1")
    if math.prod(padded_shape(height, width)) > max_pixels:
        raise BitstreamError(
            f"an image of {width} x {height} pixels is over the limit of {max_pixels} pixels, "
            "counted in blocks of 64 x 64: cut it into parts, or raise the limit"
        )


def _take(file: io.BytesIO, count: int) -> bytes:
    """Returns the next bytes of the header."""
    found = file.read(count)
    if len(found) < count:
        raise BitstreamError("the file is truncated within its header: fetch it again")
    return found


def _varint(value: int) -> bytes:
    """Returns unsigned LEB128: 7 bits per byte, lowest first, top bit set in all but the last."""
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _varint(value >> 7)


def _read_varint(file: io.BytesIO) -> int:
    value = 0
    for i in range(5):
        byte = _take(file, 1)[0]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            break
    return value
