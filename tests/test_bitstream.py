"""The container: round trip, its bytes as documented, and one clear refusal per kind of damage."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa_hific_jax.codec import bitstream
from fa_hific_jax.codec.bitstream import BitstreamError, Container

MODEL = bytes(range(8))
KODAK = Container(MODEL, "tfc", 768, 512, b"hyper", b"latents" * 1500, b"", 0x12345678)
PACKED = bitstream.pack(KODAK)
WITH_ALPHA = bitstream.pack(KODAK._replace(alpha_stream=b"alpha"))

containers = st.builds(
    Container,
    model_id=st.binary(min_size=8, max_size=8),
    coder=st.sampled_from(bitstream.CODERS),
    width=st.integers(1, 2**14),
    height=st.integers(1, 2**14),
    z_stream=st.binary(max_size=300),
    y_stream=st.binary(max_size=300),
    alpha_stream=st.binary(max_size=200),
    symbols_crc=st.integers(0, 2**32 - 1),
    quality=st.none() | st.integers(0, 255),
    gray=st.booleans(),
    metadata=st.binary(max_size=100),
)


def sealed(data: bytes) -> bytes:
    """The data with a checksum that matches."""
    crc = zlib.crc32(data[:5] + data[9:])
    return data[:5] + crc.to_bytes(4, "little") + data[9:]


SIZES = b"\x80\x06" + b"\x80\x04" + b"\x05" + b"\x84\x52"
CRC, STREAMS = b"\x78\x56\x34\x12", KODAK.z_stream + KODAK.y_stream


@pytest.mark.parametrize(
    ("fields", "rest"),
    [
        ({}, b"\x01" + CRC + SIZES + STREAMS),
        ({"alpha_stream": b"alpha"}, b"\x11" + CRC + SIZES + b"\x05" + STREAMS + b"alpha"),
        ({"quality": 200, "gray": True}, b"\x61" + CRC + b"\xc8\x01" + SIZES + STREAMS),
        (
            {"gray": True, "alpha_stream": b"alpha", "metadata": b"ME"},
            b"\x51" + CRC + b"\x03" + SIZES + b"\x05\x02" + STREAMS + b"alphaME",
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_the_bytes_are_those_of_the_specification(fields, rest):
    start, rest = b"FAHJ\x02", MODEL + rest
    packed = bitstream.pack(KODAK._replace(**fields))
    assert packed == start + zlib.crc32(start + rest).to_bytes(4, "little") + rest


@given(containers, st.integers(0), st.integers(1, 255))
def test_a_container_survives_packing_and_no_changed_byte_or_truncation(container, position, flip):
    packed = bitstream.pack(container)
    assert bitstream.unpack(packed) == container
    position %= len(packed)
    changed = bytearray(packed)
    changed[position] ^= flip
    for damaged in (bytes(changed), packed[:position]):
        with pytest.raises(BitstreamError):
            bitstream.unpack(damaged)


@given(st.binary(max_size=80))
def test_a_valid_checksum_over_arbitrary_bytes_leads_to_one_spelling_of_a_container(data):
    file = sealed(PACKED[:18] + data)
    try:
        container = bitstream.unpack(file)
    except BitstreamError:
        return
    assert bitstream.pack(container) == file


FURTHER = PACKED[:17] + b"\x41" + PACKED[18:22]  # Announces a second byte of flags.


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\x89PNG" + PACKED[4:], "not a fa-hific-jax file: choose one that `compress`"),
        (PACKED[:4] + b"\x07" + PACKED[5:], "bitstream version 7, this build reads version 2"),
        (PACKED[:4] + b"\x01" + PACKED[5:], "version 1, made by a pre-release"),
        (PACKED[:17] + b"\x02" + PACKED[18:], "coder 2 is unknown: install a newer"),
        (PACKED[:17] + b"\x91" + PACKED[18:], "flags 0x80 are unknown: install"),
        (FURTHER + b"\x04" + PACKED[22:], "flags 0x400 are unknown"),
        (FURTHER + b"\x00" + PACKED[22:], "header is impossible"),
        (PACKED[:22] + b"\xff" * 40, "over the limit"),
        (PACKED[:22] + b"\x80\x86\x00" + PACKED[24:], "header is impossible"),
        (PACKED[:24] + b"\x00" + PACKED[26:], "768 x 0 pixels is impossible"),
        (WITH_ALPHA[:29] + b"\x00" + WITH_ALPHA[30:-5], "header is impossible"),
        (FURTHER, "truncated within its header"),
        (PACKED[:21], "truncated within"),
        (PACKED[:25], "truncated within"),
        (PACKED[:200], "truncated to 200 of 10534"),
        (PACKED + b"abc", "damaged"),
    ],
)
def test_what_no_version_writes_is_named_even_under_a_valid_checksum(data, sentence):
    with pytest.raises(BitstreamError, match=sentence):
        bitstream.unpack(sealed(data))


def test_an_empty_image_and_one_over_the_limit_are_refused_by_both_sides():
    with pytest.raises(BitstreamError, match="0 x 512 pixels is impossible"):
        bitstream.pack(KODAK._replace(width=0))
    with pytest.raises(BitstreamError, match="768 x 512 pixels is over the limit of 393215"):
        bitstream.unpack(PACKED, max_pixels=768 * 512 - 1)
    assert bitstream.unpack(PACKED, max_pixels=768 * 512) == KODAK
    # One row of pixels is coded as 64 rows.
    with pytest.raises(BitstreamError, match="16777216 x 1 pixels is over the limit"):
        bitstream.pack(KODAK._replace(width=2**24, height=1))


def test_the_checksum_of_symbols_is_that_of_their_int32_bytes():
    y = np.random.default_rng(0).integers(-128, 128, (3, 5, 7), np.int32)
    for dtype in (np.int8, np.dtype(">i4")):
        assert bitstream.symbols_crc(np.zeros((0, 4), dtype), y.astype(dtype)) == zlib.crc32(y)
        assert bitstream.symbols_crc(y[:1], y[1:].astype(dtype)) == zlib.crc32(y)
