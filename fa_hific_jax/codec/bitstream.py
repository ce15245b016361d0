"""Packs and unpacks the container of a compressed image, as docs/bitstream.md specifies it.

The container holds the model id, the coder, the image size, the streams and checksums. Whatever
the header claims, unpacking allocates no more memory than copies of the streams. It refuses every
file that `pack` would not have written.
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
_VARINT_BYTES = 5
_LARGEST = 2**31 - 1  # number in the header
_CRC_BLOCK = 2**20  # symbols


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
    """Returns the bytes of the file: 26 to 54 more than the streams, 32 at 4096 x 4096 pixels.

    Raises a BitstreamError if the image is empty or larger than any decoder accepts.
    """
    if len(container.model_id) != 8:
        raise ValueError(f"a model id has 8 bytes, got {len(container.model_id)}")
    _check_size(container.width, container.height, MAX_PIXELS)
    optional = [part for part in (container.alpha_stream, container.metadata) if part]
    streams = [container.z_stream, container.y_stream, *optional]
    lengths = [len(stream) for stream in streams]
    if max(lengths) > _LARGEST:
        raise BitstreamError("a stream is too long for the format: cut the image into parts")
    quality = b"" if container.quality is None else bytes([container.quality])
    flags = CODERS.index(container.coder) | (_QUALITY if quality else 0)
    flags |= (_ALPHA if container.alpha_stream else 0) | (_GRAY if container.gray else 0)
    flags |= _METADATA if container.metadata else 0
    more = bytes([flags >> 8]) if flags >> 8 else b""
    flags = bytes([flags & 255 | (_MORE if more else 0)])
    crc = container.symbols_crc.to_bytes(4, "little")
    numbers = map(_varint, (container.width, container.height, *lengths))
    rest = b"".join((container.model_id, flags, crc, quality, more, *numbers, *streams))
    return _START + _checksum(rest) + rest


def unpack(data: bytes, max_pixels: int = MAX_PIXELS) -> Container:
    """Returns the container in the bytes of a file, verified against its checksum.

    `max_pixels` limits the image size after padding: one row of pixels is coded as 64 rows. Raises
    a BitstreamError for anything that `pack` does not write.
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
    _check_flags(flags & ~15, _ALPHA | _QUALITY | _MORE)
    crc = int.from_bytes(_take(file, 4), "little")
    quality = _take(file, 1)[0] if flags & _QUALITY else None
    if flags & _MORE:
        more = _take(file, 1)[0]
        if more == 0:
            raise BitstreamError("the file announces flags but has none: fetch it again")
        _check_flags(more, (_GRAY | _METADATA) >> 8)
        flags |= more << 8
    width, height = _read_varint(file), _read_varint(file)
    _check_size(width, height, max_pixels)
    lengths = [_read_varint(file), _read_varint(file)]
    for name, flag in (("transparency", _ALPHA), ("metadata", _METADATA)):
        lengths.append(_read_varint(file) if flags & flag else 0)
        if flags & flag and lengths[-1] == 0:
            raise BitstreamError(f"{name} of 0 bytes is impossible: fetch the file again")
    end = file.tell() + sum(lengths)
    if len(data) < end:
        raise _truncated(f"it has {len(data)} of {end} bytes")
    if len(data) > end:
        raise BitstreamError(f"{len(data) - end} bytes follow the end: fetch the file again")
    if data[_CRC] != _checksum(data[_CRC.stop :]):
        raise BitstreamError("the checksum does not match, the file is damaged: fetch it again")
    z, y, alpha, metadata = (file.read(length) for length in lengths)
    coder, gray = CODERS[flags & 15], bool(flags & _GRAY)
    return Container(model_id, coder, width, height, z, y, alpha, crc, quality, gray, metadata)


def check_model(container: Container, model_id: bytes) -> None:
    """Raises BitstreamError unless the container was made with the model of that id."""
    if container.model_id != model_id:
        raise BitstreamError(
            f"the file was made with model {container.model_id.hex()}, the model given is "
            f"{model_id.hex()}: give the model that compressed it"
        )


def symbols_crc(z: Integer[np.ndarray, "*z"], y: Integer[np.ndarray, "*y"]) -> int:
    """Returns the CRC-32 of all symbols as little-endian int32: z, then y, each in C order."""
    crc = 0
    for symbols in (z.ravel(), y.ravel()):
        for start in range(0, symbols.size, _CRC_BLOCK):
            crc = zlib.crc32(symbols[start : start + _CRC_BLOCK].astype("<i4").tobytes(), crc)
    return crc


def _checksum(rest: bytes) -> bytes:
    return zlib.crc32(rest, zlib.crc32(_START)).to_bytes(4, "little")


def _check_flags(flags: int, known: int) -> None:
    if flags & ~known:
        raise BitstreamError(f"the flags {flags:#04x} are unknown: install a newer fa-hific-jax")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BitstreamError(f"{width} x {height} pixels is impossible: both sides are at least 1")
    if math.prod(padded_shape(height, width)) > max_pixels:
        raise BitstreamError(
            f"an image of {width} x {height} pixels is over the limit of {max_pixels} pixels, "
            "counted in blocks of 64 x 64: cut it into parts, or raise the limit"
        )


def _truncated(detail: str) -> BitstreamError:
    return BitstreamError(f"the file is truncated, {detail}: fetch it again")


def _take(file: io.BytesIO, count: int) -> bytes:
    """Returns the next bytes of the header."""
    found = file.read(count)
    if len(found) < count:
        raise _truncated("it ends within its header")
    return found


def _varint(value: int) -> bytes:
    """Returns unsigned LEB128: 7 bits per byte, lowest first, top bit set in all but the last."""
    if value < 128:
        return bytes([value])
    return bytes([value & 127 | 128]) + _varint(value >> 7)


def _read_varint(file: io.BytesIO) -> int:
    value = 0
    for i in range(_VARINT_BYTES):
        byte = _take(file, 1)[0]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            if (byte == 0 and i > 0) or value > _LARGEST:
                break  # Only the shortest form is valid: one file, one spelling.
            return value
    raise BitstreamError("a number in the header is impossible, the file is damaged: fetch it")
