"""The container: round trip, its bytes as documented, and one clear refusal per kind of damage."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa_hific_jax.codec import bitstream
from fa_hific_jax.codec.bitstream import BitstreamError, Container
from fa_hific_jax.errors import UserError

MODEL = bytes(range(8))
KODAK = Container(MODEL, width=768, height=512, z_stream=b"hyper", y_stream=b"latents" * 1500)
PACKED = bitstream.pack(KODAK)

containers = st.builds(
    Container,
    model_id=st.binary(min_size=8, max_size=8),
    width=st.integers(1, 2**14),
    height=st.integers(1, 2**14),
    z_stream=st.binary(max_size=300),
    y_stream=st.binary(max_size=300),
)


def sealed(data: bytes) -> bytes:
    """The data with a checksum that matches."""
    crc = zlib.crc32(data[:5] + data[9:])
    return data[:5] + crc.to_bytes(4, "little") + data[9:]


@given(containers)
def test_a_container_survives_packing(container):
    assert bitstream.unpack(bitstream.pack(container)) == container


def test_the_bytes_are_those_of_the_specification():
    varints = b"\x80\x06" + b"\x80\x04" + b"\x05" + b"\x84\x52"
    start, rest = b"FAHJ\x01", MODEL + varints + KODAK.z_stream + KODAK.y_stream
    assert PACKED == start + zlib.crc32(start + rest).to_bytes(4, "little") + rest


@pytest.mark.parametrize(
    "side, z_length, y_length, header", [(512, 100, 9_000, 24), (16_383, 50_000, 3_000_000, 28)]
)
def test_the_header_costs_less_than_32_bytes(side, z_length, y_length, header):
    data = bitstream.pack(Container(MODEL, side, side, bytes(z_length), bytes(y_length)))
    assert len(data) == z_length + y_length + header < z_length + y_length + 32


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
        bitstream.unpack((b"FAHJ\x01" if with_magic else b"") + data)


def test_another_kind_of_file_is_named():
    with pytest.raises(UserError, match="not a fa-hific-jax file: choose one that `compress`"):
        bitstream.unpack(b"\x89PNG" + PACKED[4:])


def test_an_unknown_version_is_named():
    with pytest.raises(BitstreamError, match="bitstream version 7, this build reads version 1"):
        bitstream.unpack(sealed(PACKED[:4] + b"\x07" + PACKED[5:]))


@pytest.mark.parametrize("end, detail", [(20, "within its header"), (200, "it has 200 of 10529")])
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
        bitstream.unpack(sealed(PACKED[:17] + b"\xff" * 40))


def test_an_empty_image_is_refused_by_both_sides():
    with pytest.raises(BitstreamError, match="0 x 512 pixels is impossible"):
        bitstream.pack(KODAK._replace(width=0))
    with pytest.raises(BitstreamError, match="768 x 0 pixels is impossible"):
        bitstream.unpack(sealed(PACKED[:19] + b"\x00" + PACKED[21:]))


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
