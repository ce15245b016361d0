"""Packs and unpacks the container of a compressed image, as docs/bitstream.md specifies it.

The container holds the model id, the coder, the image size, the streams and checksums. Whatever
the header claims, unpacking allocates no more memory than copies of the streams. It refuses every
file that `pack` would not have written.
"""

import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer

from fa_hific_jax.errors import UserError

MAGIC = b"FAHJ"
VERSION = 2  # raised whenever a file would decode differently
MAX_PIXELS = 512 * 2**20
QUALITIES = 256  # levels, stored in one byte
CODERS = ("constriction", "tfc")  # The position is the id in files: only append, never move.

_CRC = slice(5, 9)
_MODEL_ID = slice(9, 17)
_FLAGS = 17  # bits 0 to 3: the coder; the other bits as below
_SYMBOLS_CRC = slice(18, 22)
_ALPHA_FLAG = 1 << 4
_QUALITY_FLAG = 1 << 5
_MORE_FLAG = 1 << 6  # a second byte of flags follows, which is never 0
_GRAY_FLAG, _METADATA_FLAG = 1, 2  # in the second byte
_VARINT_BYTES = 5
_MAX_STREAM = 2**31 - 1  # bytes
_CRC_BLOCK = 2**20  # symbols


class BitstreamError(UserError):
    """The file is damaged, of another kind or version, or made with another model."""


class Container(NamedTuple):
    """The content of a file.

    Attributes:
      model_id: id of the model that decodes the file, 8 bytes.
      coder: name of the entropy coder, one of CODERS.
      width: width of the image in pixels.
      height: height of the image in pixels.
      z_stream: coded hyper-latents.
      y_stream: coded latents.
      alpha_stream: coded transparency, empty for an opaque image.
      symbols_crc: `symbols_crc(z, y)` of the coded symbols.
      quality: quality level, 0 to QUALITIES - 1; None if the model has a single rate.
      gray: True if the decoder must make red, green and blue equal.
      metadata: EXIF and XMP as `codec.metadata` packs them, empty without.
    """

    model_id: bytes
    coder: str
    width: int
    height: int
    z_stream: bytes
    y_stream: bytes
    alpha_stream: bytes
    symbols_crc: int
    quality: int | None = None
    gray: bool = False
    metadata: bytes = b""


def pack(container: Container) -> bytes:
    """Returns the bytes of the file: 26 to 54 more than the streams, 32 at 4096 x 4096 pixels.

    Raises:
      BitstreamError: the image is empty or larger than any decoder accepts.
    """
    if len(container.model_id) != 8:
        raise ValueError(f"a model id has 8 bytes, got {len(container.model_id)}")
    _check_size(container.width, container.height, MAX_PIXELS)
    alpha = [container.alpha_stream] if container.alpha_stream else []
    metadata = [container.metadata] if container.metadata else []
    streams = [container.z_stream, container.y_stream, *alpha, *metadata]
    lengths = [_check_length(len(stream)) for stream in streams]
    quality = b"" if container.quality is None else bytes([container.quality])
    more = (_GRAY_FLAG if container.gray else 0) | (_METADATA_FLAG if metadata else 0)
    flags = CODERS.index(container.coder) | (_MORE_FLAG if more else 0)
    flags |= (_ALPHA_FLAG if alpha else 0) | (_QUALITY_FLAG if quality else 0)
    start = MAGIC + bytes([VERSION])
    rest = b"".join(
        (
            container.model_id,
            bytes([flags]),
            container.symbols_crc.to_bytes(4, "little"),
            quality,
            bytes([more] if more else []),
            *map(_varint, (container.width, container.height, *lengths)),
            *streams,
        )
    )
    return start + _checksum(start, rest) + rest


def unpack(data: bytes, max_pixels: int = MAX_PIXELS) -> Container:
    """Returns the container in the bytes of a file, verified against its checksum.

    Raises:
      BitstreamError: the file has another magic, an unknown version, coder or flag, an impossible
        size or length, too few or too many bytes, or a checksum that does not match.
    """
    _check_kind(data)
    coder, flags = _read_flags(data)
    position = _SYMBOLS_CRC.stop
    quality = data[position] if flags & _QUALITY_FLAG else None
    position += quality is not None
    more = _read_more_flags(data, position) if flags & _MORE_FLAG else 0
    position += more > 0
    width, position = _read_varint(data, position)
    height, position = _read_varint(data, position)
    _check_size(width, height, max_pixels)
    optional = {"transparency": flags & _ALPHA_FLAG, "metadata": more & _METADATA_FLAG}
    names = ["z", "y", *(name for name, there in optional.items() if there)]
    lengths = []
    for name in names:
        length, position = _read_varint(data, position)
        lengths.append(_check_length(length))
        if name in optional and length == 0:
            raise BitstreamError(
                f"the file announces {name} of 0 bytes, which is impossible: fetch it again"
            )
    _check_end(len(data), position + sum(lengths))
    if data[_CRC] != _checksum(data[: _CRC.start], data[_CRC.stop :]):
        raise BitstreamError("the checksum does not match, the file is damaged: fetch it again")
    streams = {}
    for name, length in zip(names, lengths, strict=True):
        streams[name] = data[position : position + length]
        position += length
    return Container(
        model_id=data[_MODEL_ID],
        coder=coder,
        width=width,
        height=height,
        z_stream=streams["z"],
        y_stream=streams["y"],
        alpha_stream=streams.get("transparency", b""),
        symbols_crc=int.from_bytes(data[_SYMBOLS_CRC], "little"),
        quality=quality,
        gray=bool(more & _GRAY_FLAG),
        metadata=streams.get("metadata", b""),
    )


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


def check_symbols(
    container: Container, z: Integer[np.ndarray, "*z"], y: Integer[np.ndarray, "*y"]
) -> None:
    """Raises BitstreamError unless these are the symbols that were coded.

    They differ if this device computes other table rows from z than the encoder's device. Without
    this check, the image would be noise.
    """
    if container.symbols_crc != symbols_crc(z, y):
        raise BitstreamError(
            "the symbols decoded here are not those that were coded, because this device computes "
            "the model differently: decode on the kind of device that compressed the image"
        )


def _checksum(start: bytes, rest: bytes) -> bytes:
    return zlib.crc32(rest, zlib.crc32(start)).to_bytes(4, "little")


def _check_kind(data: bytes) -> None:
    if data[:4] != MAGIC:
        raise BitstreamError("not a fa-hific-jax file: choose one that `compress` has written")
    version = data[4] if len(data) > 4 else VERSION
    if version == 1:
        raise BitstreamError(
            "the file has bitstream version 1, made by a pre-release that no release reads: "
            "compress the image again"
        )
    if version != VERSION:
        raise BitstreamError(
            f"the file has bitstream version {version}, this build reads version {VERSION}: "
            "install the release of fa-hific-jax that wrote it"
        )


def _read_flags(data: bytes) -> tuple[str, int]:
    """Returns the name of the coder, and the flags."""
    if len(data) <= _SYMBOLS_CRC.stop:
        raise _truncated("it ends within its header")
    coder, flags = data[_FLAGS] & 15, data[_FLAGS] & ~15
    if coder >= len(CODERS):
        raise BitstreamError(
            f"the file was coded by coder {coder}, this build knows 0 to {len(CODERS) - 1}: "
            "install a newer fa-hific-jax"
        )
    _check_flags(flags, _ALPHA_FLAG | _QUALITY_FLAG | _MORE_FLAG)
    return CODERS[coder], flags


def _read_more_flags(data: bytes, position: int) -> int:
    if position >= len(data):
        raise _truncated("it ends within its header")
    if data[position] == 0:
        raise BitstreamError("the file announces flags but has none: fetch it again")
    _check_flags(data[position], _GRAY_FLAG | _METADATA_FLAG)
    return data[position]


def _check_flags(flags: int, known: int) -> None:
    if flags & ~known:
        raise BitstreamError(
            f"the file has flags {flags:#04x}, which this build does not know: "
            "install a newer fa-hific-jax"
        )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise BitstreamError(
            f"an image of {width} x {height} pixels is impossible: both sides must be at least 1"
        )
    if width * height > max_pixels:
        raise BitstreamError(
            f"an image of {width} x {height} pixels is over the limit of {max_pixels} pixels: "
            "cut it into parts"
        )


def _check_length(length: int) -> int:
    if length > _MAX_STREAM:
        raise BitstreamError(
            f"a stream of {length} bytes is impossible, the limit of the format is {_MAX_STREAM}: "
            "fetch the file again"
        )
    return length


def _check_end(size: int, end: int) -> None:
    if size < end:
        raise _truncated(f"it has {size} of {end} bytes")
    if size > end:
        raise BitstreamError(
            f"{size - end} bytes follow the end of the compressed image: fetch the file again"
        )


def _truncated(detail: str) -> BitstreamError:
    return BitstreamError(f"the file is truncated, {detail}: fetch it again")


def _varint(value: int) -> bytes:
    """Returns unsigned LEB128: 7 bits per byte, lowest first, top bit set in all but the last."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns the number that starts at `position`, and the position after it."""
    value = 0
    for i in range(_VARINT_BYTES):
        if position + i >= len(data):
            raise _truncated("it ends within its header")
        byte = data[position + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            if byte == 0 and i > 0:  # Only the shortest form is valid: one file, one spelling.
                break
            return value, position + i + 1
    raise BitstreamError("a number in the header is too long, the file is damaged: fetch it again")
