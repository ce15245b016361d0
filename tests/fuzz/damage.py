"""Damage to compressed files: each kind a function of a random generator and sound files.

Most kinds give the file a checksum that matches again, so that the damage reaches what lies behind.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from fa_hific_jax.codec import bitstream
from fa_hific_jax.codec.bitstream import Container

# Sides of images and lengths of streams at which something changes, or should be refused.
NUMBERS = (0, 1, 2, 63, 64, 65, 127, 128, 192, 1000, 1024, 4096, 2**14, 2**15, 2**20, 2**26)
NUMBERS += (2**29, 2**31 - 1, 2**31, 2**32, 2**35 - 1, 2**35, 2**63, 2**64)
STREAMS = ("z_stream", "y_stream", "alpha_stream")


def sealed(data: bytes) -> bytes:
    """The data with a checksum that matches."""
    crc = zlib.crc32(data[9:], zlib.crc32(data[:5]))
    return data if len(data) < 9 else data[:5] + crc.to_bytes(4, "little") + data[9:]


def assembled(held: Container, flags: int | None = None, lengths: Sequence[int] = ()) -> bytes:
    """The file of a container under a checksum that matches, however impossible it is.

    `flags` and `lengths` are what the header says of them instead of the truth.
    """
    streams = [held.z_stream, held.y_stream] + [held.alpha_stream] * bool(held.alpha_stream)
    if flags is None:
        flags = bitstream.CODERS.index(held.coder) | bool(held.alpha_stream) << 4
    start = bitstream.MAGIC + bytes([bitstream.VERSION, 0, 0, 0, 0]) + held.model_id
    start += bytes([flags]) + held.symbols_crc.to_bytes(4, "little")
    numbers = map(bitstream._varint, [held.width, held.height, *(lengths or map(len, streams))])
    return sealed(b"".join((start, *numbers, *streams)))


def _one(rng, files: Sequence[bytes]) -> bytes:
    return files[rng.integers(len(files))]


def _held(rng, files) -> Container:
    return bitstream.unpack(_one(rng, files))


def _changed(rng, data: bytes) -> bytes:
    """Some bytes or bits of the data changed, at random or where they follow each other."""
    changed = bytearray(data or b"\0")
    for position in rng.integers(len(changed), size=rng.integers(1, 9)):
        if rng.random() < 0.5:
            changed[position] ^= 1 << int(rng.integers(8))
        else:
            end = position + rng.integers(1, 5)
            changed[position:end] = rng.bytes(len(changed[position:end]))
    return bytes(changed)


def bytes_changed(rng, files) -> bytes:
    return _changed(rng, _one(rng, files))


def bytes_changed_under_a_valid_checksum(rng, files) -> bytes:
    """Half of the time behind magic, version and model, and before the streams."""
    data = _one(rng, files)
    start, stop = (17, 34) if rng.random() < 0.5 else (0, len(data))
    return sealed(data[:start] + _changed(rng, data[start:stop]) + data[stop:])


def truncated(rng, files) -> bytes:
    data = _one(rng, files)
    cut = data[: rng.integers(len(data))]
    return sealed(cut) if rng.random() < 0.5 else cut


def extended(rng, files) -> bytes:
    more = (rng.bytes(rng.integers(1, 40)), bytes(rng.integers(1, 40)), _one(rng, files))
    longer = _one(rng, files) + more[rng.integers(3)]
    return sealed(longer) if rng.random() < 0.5 else longer


def numbers_changed(rng, files) -> bytes:
    """Sizes, or lengths of streams, that are not those of the content."""
    held = _held(rng, files)
    numbers = [held.width, held.height]
    numbers += [len(getattr(held, name)) for name in STREAMS if getattr(held, name)]
    position, choice = rng.integers(len(numbers)), rng.random()
    if choice < 0.3:  # a size that the container may have
        numbers[:2] = rng.integers(1, 400, 2).tolist()
    elif choice < 0.5:
        numbers[position] = max(0, numbers[position] + int(rng.integers(-2, 3)))
    else:
        numbers[position] = NUMBERS[rng.integers(len(NUMBERS))]
    return assembled(held._replace(width=numbers[0], height=numbers[1]), None, numbers[2:])


def identity_changed(rng, files) -> bytes:
    """Another coder, flags, model or checksum of the symbols."""
    held, flags = _held(rng, files), int(rng.integers(256))
    crc, model_id = int(rng.integers(2**32)), rng.bytes(8)
    others = ({"coder": "tfc"}, {"model_id": model_id}, {"symbols_crc": crc}, {})
    changed = others[rng.integers(4)]
    return assembled(held._replace(**changed), None if changed else flags)


def streams_swapped(rng, files) -> bytes:
    """Streams in each other's place, or those of another file."""
    held, other = _held(rng, files), _held(rng, files)
    streams = [*(getattr(one, name) for one in (held, other) for name in STREAMS), b""]
    chosen = {name: streams[rng.integers(len(streams))] for name in STREAMS}
    kept = STREAMS[rng.integers(3)]
    return assembled(held._replace(**chosen | {kept: getattr(held, kept)}))


def stream_changed(rng, files) -> bytes:
    """One stream changed, cut, continued or replaced by noise, the rest as it was."""
    held, name = _held(rng, files), STREAMS[rng.integers(3)]
    stream = getattr(held, name)
    changed = (
        _changed(rng, stream),
        stream[: rng.integers(len(stream) + 1)],
        stream + bytes(int(rng.integers(1, 9))),
        stream * 3,
        rng.bytes(rng.integers(0, 600)),
        bytes([int(rng.choice([0, 1, 2, 255]))]) * int(rng.integers(0, 600)),
        bytes(rng.integers(0, 4, 1, np.uint8)) + _changed(rng, stream[1:]),
    )[rng.integers(7)]
    return assembled(held._replace(**{name: changed}))


KINDS = (bytes_changed, bytes_changed_under_a_valid_checksum, truncated, extended)
KINDS += (numbers_changed, identity_changed, streams_swapped, stream_changed)
