"""EXIF, XMP and the date survive on request, true of the upright picture, in every format."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import saved, segment
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_tiff import of

from fa_hific_jax.codec import bitstream, metadata
from fa_hific_jax.codec.bitstream import BitstreamError, Container
from fa_hific_jax.codec.pixels import write_image
from fa_hific_jax.data.images import read_image
from fa_hific_jax.data.metadata import Metadata
from fa_hific_jax.errors import UserError

COLORS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><r tiff:Orientation=\"6\"/><c>\xc2\xa9</c></x:xmpmeta>"
DATE, TAKEN = "2020:01:02 03:04:05", "2019:05:06 07:08:09"
FILE = bitstream.pack(Container(bytes(8), "tfc", 7, 5, b"z", b"y", b"", 0))


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x010F], made[0x0132], made[0x0112] = "Maker", DATE, 6
    made[0x8769] = {0x9003: TAKEN, 0x829A: 0.01, 0x927C: b"notes of the maker"}
    made[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return made


def kept(data: bytes) -> Metadata:
    return read_image(data, keep_metadata=True).metadata


def check(found: Metadata) -> None:
    told = Image.Exif()
    told.load(found.exif)
    assert (told[0x010F], told[0x0132], told.get(0x0112, 1)) == ("Maker", DATE, 1)
    assert told.get_ifd(0x8769)[0x9003] == TAKEN
    assert told.get_ifd(0x8825)[2] == (1.0, 2.0, 3.0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_metadata_survive_from_any_format_to_any_other(kind, suffix, tmp_path):
    options = {"exif": exif().tobytes()} | ({"xmp": XMP} if kind == "WEBP" else {})
    if kind == "JPEG":
        options["extra"] = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    try:
        picture = read_image(saved(COLORS, kind, **options), keep_metadata=True)
    except (KeyError, OSError):
        pytest.skip("this Pillow writes no AVIF")
    check(picture.metadata)
    data = metadata.attach(FILE, metadata.pack(picture.metadata))
    assert bitstream.unpack(data)._replace(metadata=b"") == bitstream.unpack(FILE)
    assert metadata.of(data) == picture.metadata
    write_image(tmp_path / f"a.{suffix}", picture.rgb, None, picture.metadata)
    again = read_image(tmp_path / f"a.{suffix}", keep_metadata=True)
    check(again.metadata)
    assert again.rgb.shape == picture.rgb.shape == (7, 5, 3)
    if kind in ("WEBP", "JPEG"):
        expected = XMP.replace(b'tiff:Orientation="6"', b'tiff:Orientation="1"')
        assert again.metadata.xmp == expected


def test_a_makers_notes_stay_where_their_offsets_say():
    data = exif().tobytes()
    found = kept(saved(COLORS, "JPEG", exif=data)).exif
    changes = [pair for pair in zip(data[6:], found, strict=True) if pair[0] != pair[1]]
    assert changes == [(6, 1)]  # the orientation


def test_a_tiff_of_odd_samples_keeps_its_date():
    samples = np.zeros((4, 5), np.float32)
    assert kept(of(samples)) == Metadata()
    check(kept(saved(samples, "TIFF", exif=exif().tobytes())))


def test_damaged_exif_is_not_kept_and_none_without_request():
    for junk in (b"Exif\0\0", b"Exif\0\0junk", b"Exif\0\0MM\0*\xff\xff\xff\xff"):
        assert kept(saved(COLORS, "WEBP", exif=junk)) == Metadata()
    assert read_image(saved(COLORS, "JPEG", exif=exif().tobytes())).metadata == Metadata()


@pytest.mark.parametrize("zipped", [False, True])
def test_xmp_of_a_png_is_kept_whatever_its_size(zipped):
    packet = XMP.replace(b"</c>", b"x" * 2_000_000 + b"</c>")
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", packet.decode(), zip=zipped)
    found = read_image(saved(COLORS, pnginfo=info), keep_metadata=True)
    assert found.metadata.xmp == packet.replace(b'Orientation="6"', b'Orientation="1"')
    assert found.notes == () and found.rgb.shape == (7, 5, 3)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_the_part_is_as_specified_and_takes_the_room_that_is_foreseen(one, two):
    part = metadata.pack(Metadata(one, two))
    assert metadata.unpack(part) == Metadata(one, two)
    assert len(metadata.attach(FILE, part)) <= len(FILE) + metadata.room(part)
    unknown = b"\x07\x02\0\0\0??"
    items = unknown + (zlib.decompress(part) if part else b"")
    assert metadata.unpack(zlib.compress(items)) == Metadata(one, two)


def test_a_damaged_part_is_named():
    part = metadata.pack(Metadata(b"exif" * 9, XMP))
    for at in range(len(part)):
        try:
            damaged = part[:at] + bytes([part[at] ^ 1 << at % 8]) + part[at + 1 :]
            assert isinstance(metadata.unpack(damaged), Metadata)
        except BitstreamError as error:
            assert str(error) == "the metadata in the file is damaged: fetch it again"
    for damaged in (part[:-1], zlib.compress(bytes(2**25))):
        with pytest.raises(BitstreamError, match="metadata in the file is damaged"):
            metadata.unpack(damaged)


def test_more_than_a_jpeg_or_a_file_holds_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match="JPEG cannot hold so much EXIF or XMP: write PNG, WebP"):
        write_image(tmp_path / "a.jpg", COLORS, None, Metadata(b"", bytes(70_000)))
    with pytest.raises(UserError, match="its metadata takes .* at most 16777216 can be kept"):
        metadata.pack(Metadata(bytes(2**24)))
