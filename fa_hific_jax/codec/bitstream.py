"""The container of a compressed image: sizes, model, two streams, checksum (docs/bitstream.md)."""

import zlib
from typing import NamedTuple

from fa_hific_jax.errors import UserError

MAGIC = b"FAHJ"
VERSION = 1  # raised whenever a file would decode differently
MAX_PIXELS = 512 * 2**20

_CRC = slice(5, 9)
_MODEL_ID = slice(9, 17)
_VARINT_BYTES = 5


class BitstreamError(UserError):
    """The file is damaged, of another kind or version, or made with another model."""


class Container(NamedTuple):
    """What a file holds: the 8-byte model id, the image size in pixels, the two coded streams."""

    model_id: bytes
    width: int
    height: int
    z_stream: bytes
    y_stream: bytes


def pack(container: Container) -> bytes:
    """The bytes of the file: some 25 more than the two streams, at most 37.

    Raises:
        BitstreamError: the image is empty or larger than any decoder accepts.
    """
    if len(container.model_id) != 8:
        raise ValueError(f"a model id has 8 bytes, got {len(container.model_id)}")
    _check_size(container.width, container.height, MAX_PIXELS)
    sizes = (
        container.width,
        container.height,
        len(container.z_stream),
        len(container.y_stream),
    )
    start = MAGIC + bytes([VERSION])
    rest = b"".join(
        (container.model_id, *map(_varint, sizes), container.z_stream, container.y_stream)
    )
    return start + _checksum(start, rest) + rest


def unpack(data: bytes, max_pixels: int = MAX_PIXELS) -> Container:
    """The container in the bytes of a file, verified against its checksum.

    Nothing is allocated beyond copies of the two streams, whatever the header claims.

    Raises:
        BitstreamError: wrong magic, unknown version, impossible size, truncated, trailing bytes,
            or a checksum that does not match.
    """
    if data[:4] != MAGIC:
        raise BitstreamError("not a fa-hific-jax file: choose one that `compress` has written")
    if len(data) > 4 and data[4] != VERSION:
        raise BitstreamError(
            f"the file has bitstream version {data[4]}, this build reads version {VERSION}: "
            "install the release of fa-hific-jax that wrote it"
        )
    position = _MODEL_ID.stop
    width, position = _read_varint(data, position)
    height, position = _read_varint(data, position)
    z_length, position = _read_varint(data, position)
    y_length, position = _read_varint(data, position)
    _check_size(width, height, max_pixels)
    y_start = position + z_length
    end = y_start + y_length
    if len(data) < end:
        raise _truncated(f"it has {len(data)} of {end} bytes")
    if len(data) > end:
        raise BitstreamError(
            f"{len(data) - end} bytes follow the end of the compressed image: fetch the file again"
        )
    if data[_CRC] != _checksum(data[: _CRC.start], data[_CRC.stop :]):
        raise BitstreamError("the checksum does not match, the file is damaged: fetch it again")
    return Container(data[_MODEL_ID], width, height, data[position:y_start], data[y_start:end])


def check_model(container: Container, model_id: bytes) -> None:
    """Raises BitstreamError unless the container was made with the model of that id."""
    if container.model_id != model_id:
        raise BitstreamError(
            f"the file was made with model {container.model_id.hex()}, the model given is "
            f"{model_id.hex()}: give the model that compressed it"
        )


def _checksum(start: bytes, rest: bytes) -> bytes:
    return zlib.crc32(rest, zlib.crc32(start)).to_bytes(4, "little")


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


def _truncated(detail: str) -> BitstreamError:
    return BitstreamError(f"the file is truncated, {detail}: fetch it again")


def _varint(value: int) -> bytes:
    """Unsigned LEB128: 7 bits a byte, lowest first, the top bit set on all but the last."""
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The number that starts at `position`, and the position after it."""
    value = 0
    for i in range(_VARINT_BYTES):
        if position + i >= len(data):
            raise _truncated("it ends within its header")
        byte = data[position + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, position + i + 1
    raise BitstreamError("a number in the header is too long, the file is damaged: fetch it again")
