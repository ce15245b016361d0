"""The container: round trip, its bytes as documented, and one clear refusal per kind of damage."""

import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa_hific_jax.codec import bitstream
from fa_hific_jax.codec.bitstream import BitstreamError, Container
from fa_hific_jax.errors import UserError

MODEL = bytes(range(8))
KODAK = Container(
    model_id=MODEL,
    coder="tfc",
    width=768,
    height=512,
    z_stream=b"hyper",
    y_stream=b"latents" * 1500,
    alpha_stream=b"",
    symbols_crc=0x12345678,
)
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


@given(containers)
def test_a_container_survives_packing(container):
    assert bitstream.unpack(bitstream.pack(container)) == container


def test_the_bytes_are_those_of_the_specification():
    sizes = b"\x80\x06" + b"\x80\x04" + b"\x05" + b"\x84\x52"
    start, middle = b"FAHJ\x02", b"\x78\x56\x34\x12" + sizes
    rest = MODEL + b"\x01" + middle + KODAK.z_stream + KODAK.y_stream
    assert PACKED == start + zlib.crc32(start + rest).to_bytes(4, "little") + rest
    rest = MODEL + b"\x11" + middle + b"\x05" + KODAK.z_stream + KODAK.y_stream + b"alpha"
    assert WITH_ALPHA == start + zlib.crc32(start + rest).to_bytes(4, "little") + rest
    rest = MODEL + b"\x21" + b"\x78\x56\x34\x12" + b"\xc8" + sizes
    rest += KODAK.z_stream + KODAK.y_stream
    packed = bitstream.pack(KODAK._replace(quality=200))
    assert packed == start + zlib.crc32(start + rest).to_bytes(4, "little") + rest
    crc, streams = b"\x78\x56\x34\x12", KODAK.z_stream + KODAK.y_stream
    rest = MODEL + b"\x61" + crc + b"\xc8\x01" + sizes + streams
    packed = bitstream.pack(KODAK._replace(quality=200, gray=True))
    assert packed == start + zlib.crc32(start + rest).to_bytes(4, "little") + rest
    rest = MODEL + b"\x51" + crc + b"\x03" + sizes + b"\x05\x02" + streams + b"alphaME"
    packed = bitstream.pack(KODAK._replace(gray=True, alpha_stream=b"alpha", metadata=b"ME"))
    assert packed == start + zlib.crc32(start + rest).to_bytes(4, "little") + rest


@pytest.mark.parametrize(
    "side, z_length, y_length, header",
    [(512, 100, 9_000, 29), (4096, 50_000, 2_000_000, 32), (16_383, 2**21 - 1, 2**21 - 1, 32)],
)
def test_the_header_costs_at_most_32_bytes(side, z_length, y_length, header):
    container = KODAK._replace(
        width=side, height=side, z_stream=bytes(z_length), y_stream=bytes(y_length)
    )
    assert len(bitstream.pack(container)) == z_length + y_length + header


def test_reading_allocates_the_streams_and_nothing_that_a_header_claims():
    claims = PACKED[:22] + b"\xff\xff\xff\xff\x07" + b"\x01" + b"\xff\xff\xff\xff\x07" * 2
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError):
            bitstream.unpack(sealed(claims), max_pixels=2**62)
        refused = tracemalloc.get_traced_memory()[1]
        bitstream.unpack(PACKED)
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused < 20_000
    assert read < 3 * len(PACKED) + 20_000


@given(containers, st.data())
def test_any_changed_byte_is_refused(container, data):
    packed = bytearray(bitstream.pack(container))
    position = data.draw(st.integers(0, len(packed) - 1))
    packed[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BitstreamError):
        bitstream.unpack(bytes(packed))


@given(containers, st.data())
def test_any_truncation_is_refused(container, data):
    packed = bitstream.pack(container)
    with pytest.raises(BitstreamError):
        bitstream.unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])


@given(st.binary(max_size=80), st.booleans())
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(data, with_magic):
    with pytest.raises(BitstreamError):
        bitstream.unpack((b"FAHJ\x02" if with_magic else b"") + data)


@given(st.binary(max_size=80))
def test_a_valid_checksum_over_arbitrary_bytes_leads_to_one_spelling_of_a_container(data):
    file = sealed(PACKED[:18] + data)
    try:
        container = bitstream.unpack(file)
    except BitstreamError:
        return
    assert bitstream.pack(container) == file


def test_another_kind_of_file_is_named():
    with pytest.raises(UserError, match="not a fa-hific-jax file: choose one that `compress`"):
        bitstream.unpack(b"\x89PNG" + PACKED[4:])


def test_an_unknown_version_is_named():
    with pytest.raises(BitstreamError, match="bitstream version 7, this build reads version 2"):
        bitstream.unpack(sealed(PACKED[:4] + b"\x07" + PACKED[5:]))


def test_version_1_is_named_as_of_a_pre_release():
    with pytest.raises(BitstreamError, match="version 1, made by a pre-release that no release"):
        bitstream.unpack(sealed(PACKED[:4] + b"\x01" + PACKED[5:]))


@pytest.mark.parametrize(
    "flags, sentence",
    [
        (2, "coded by coder 2, this build knows 0 to 1: install a newer fa-hific-jax"),
        (15, "coded by coder 15, this build knows 0 to 1"),
        (0x80, "has flags 0x80, which this build does not know: install a newer fa-hific-jax"),
        (0x91, "has flags 0x90, which this build does not know"),
    ],
)
def test_unknown_coders_and_flags_are_named(flags, sentence):
    with pytest.raises(BitstreamError, match=sentence):
        bitstream.unpack(sealed(PACKED[:17] + bytes([flags]) + PACKED[18:]))


@pytest.mark.parametrize(
    "more, sentence",
    [
        (b"\x04", "has flags 0x04, which this build does not know"),
        (b"\x00", "announces flags but has none: fetch it again"),
        (b"", "the file is truncated, it ends within its header"),
    ],
)
def test_unknown_further_flags_are_named(more, sentence):
    rest = PACKED[18:22] + more + (PACKED[22:] if more else b"")
    with pytest.raises(BitstreamError, match=sentence):
        bitstream.unpack(sealed(PACKED[:17] + b"\x41" + rest))


@pytest.mark.parametrize(
    "end, detail",
    [(4, "within its header"), (21, "within its header"), (25, "header"), (200, "200 of 10534")],
)
def test_a_truncated_file_is_named(end, detail):
    with pytest.raises(BitstreamError, match=f"the file is truncated, .*{detail}"):
        bitstream.unpack(PACKED[:end])


def test_trailing_bytes_are_counted():
    with pytest.raises(BitstreamError, match="3 bytes follow the end of the compressed image"):
        bitstream.unpack(PACKED + b"abc")


def test_a_wrong_checksum_is_named():
    with pytest.raises(BitstreamError, match="checksum does not match, the file is damaged"):
        bitstream.unpack(PACKED[:-1] + b"!")


def test_an_endless_number_is_refused():
    with pytest.raises(BitstreamError, match="a number in the header is too long"):
        bitstream.unpack(sealed(PACKED[:22] + b"\xff" * 40))


def test_a_number_in_more_bytes_than_it_needs_is_refused():
    with pytest.raises(BitstreamError, match="a number in the header is too long"):
        bitstream.unpack(sealed(PACKED[:22] + b"\x81\x00" + PACKED[24:]))


def test_an_impossible_length_is_refused():
    with pytest.raises(BitstreamError, match="stream of 2147483648 bytes is impossible"):
        bitstream.unpack(sealed(PACKED[:26] + b"\x80\x80\x80\x80\x08" + PACKED[27:]))
    with pytest.raises(BitstreamError, match="transparency of 0 bytes, which is impossible"):
        bitstream.unpack(sealed(WITH_ALPHA[:29] + b"\x00" + WITH_ALPHA[30:-5]))


def test_an_empty_image_is_refused_by_both_sides():
    with pytest.raises(BitstreamError, match="0 x 512 pixels is impossible"):
        bitstream.pack(KODAK._replace(width=0))
    with pytest.raises(BitstreamError, match="768 x 0 pixels is impossible"):
        bitstream.unpack(sealed(PACKED[:24] + b"\x00" + PACKED[26:]))


def test_an_image_over_the_limit_is_refused_by_both_sides():
    with pytest.raises(BitstreamError, match="768 x 512 pixels is over the limit of 393215"):
        bitstream.unpack(PACKED, max_pixels=768 * 512 - 1)
    assert bitstream.unpack(PACKED, max_pixels=768 * 512) == KODAK
    with pytest.raises(BitstreamError, match="1048577 x 512 pixels is over the limit"):
        bitstream.pack(KODAK._replace(width=2**20 + 1))


def test_another_model_is_named():
    bitstream.check_model(KODAK, MODEL)
    with pytest.raises(
        BitstreamError, match="made with model 0001020304050607, .* ff00000000000000"
    ):
        bitstream.check_model(KODAK, b"\xff" + bytes(7))


@given(st.data())
def test_the_checksum_of_symbols_is_that_of_their_int32_bytes_whatever_the_type(data):
    values = data.draw(st.lists(st.integers(-128, 127), min_size=2, max_size=50))
    split = data.draw(st.integers(0, len(values)))
    expected = zlib.crc32(b"".join(v.to_bytes(4, "little", signed=True) for v in values))
    for dtype in (np.int8, np.int16, np.int32, np.dtype(">i4")):
        z, y = np.array(values[:split], dtype), np.array(values[split:], dtype)
        assert bitstream.symbols_crc(z, y) == expected


def test_the_checksum_of_symbols_does_not_depend_on_how_they_are_cut():
    y = np.random.default_rng(0).integers(-9, 9, (3, 1025, 1024), np.int32)
    crc = bitstream.symbols_crc(np.zeros((0, 4), np.int32), y)
    assert crc == zlib.crc32(y) == bitstream.symbols_crc(y[:1], y[1:])


def test_symbols_that_differ_are_named_instead_of_shown_as_noise():
    z, y = np.arange(8, dtype=np.int32), np.arange(99, dtype=np.int32)
    container = KODAK._replace(symbols_crc=bitstream.symbols_crc(z, y))
    bitstream.check_symbols(container, z, y)
    with pytest.raises(BitstreamError, match="this device computes the model differently: decode"):
        bitstream.check_symbols(container, z, y[::-1])
