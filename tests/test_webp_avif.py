"""WebP, AVIF, JPEG 2000: damage beside the pixels, color spaces, gain maps; JPEG XL, HEIC."""

import struct
import sys
from io import BytesIO

import numpy as np
import pytest
from image_files import check_read, saved
from PIL import Image, features
from test_pixels import profile

from fa_hific_jax.data import containers
from fa_hific_jax.data.images import image_size, read_image
from fa_hific_jax.errors import UserError

COLORS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
BLOCKS = np.kron(COLORS[:2, :3], np.ones((16, 16, 1), np.uint8))
EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"


def test_metadata_that_are_cut_off_or_claim_too_much_are_noted():
    data = saved(COLORS, "WEBP", lossless=True, exif=EXIF, xmp=b"x" * 101)
    check_read(data, COLORS[::-1, ::-1])
    check_read(data[:-50], COLORS[::-1, ::-1], "its XMP chunk is damaged and was ignored")
    at = data.index(b"EXIF") + 4
    claims = data[:at] + struct.pack("<I", 10**6) + data[at + 4 :]
    only = saved(COLORS, "WEBP", lossless=True, exif=EXIF + bytes(100))[:-50]
    for damaged in (claims, only):
        check_read(damaged, COLORS, "its EXIF chunk is damaged and was ignored")


def test_transparency_beside_damaged_metadata_is_kept():
    rgba = np.dstack([COLORS, COLORS[..., 0]])
    data = saved(rgba, "WEBP", lossless=True, exact=True, xmp=b"x" * 101)
    note = "its XMP chunk is damaged and was ignored"
    check_read(data[:-9], COLORS, note, alpha=COLORS[..., 0])


@pytest.mark.parametrize("lost", [3, 400])
def test_pixels_that_are_cut_off_are_refused(lost):
    with pytest.raises(UserError, match="truncated within its pixels"):
        read_image(saved(COLORS, "WEBP", lossless=True)[:-lost])


def needs(feature: str) -> None:
    if not features.check(feature):
        pytest.skip(f"this Pillow lacks {feature}")


def jp2(color: bytes) -> bytes:
    """A JPEG 2000 of one color whose box on color spaces holds that."""
    needs("jpg_2000")
    data = saved(np.full((16, 16, 3), (200, 100, 50), np.uint8), "JPEG2000")
    header, old = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    (size,) = struct.unpack_from(">I", data, header)
    grown = struct.pack(">I", size - 15 + 8 + len(color))
    box = struct.pack(">I", 8 + len(color)) + b"colr" + color
    return data[:header] + grown + data[header + 4 : old] + box + data[old + 15 :]


def test_the_profile_of_jpeg_2000_is_applied():
    check_read(jp2(b"\2\0\0" + profile(swap=True)), (100, 200, 50), atol=2)


@pytest.mark.parametrize("number, notes", [(16, 0), (20, 1)])
def test_a_color_space_of_jpeg_2000_that_is_not_known_is_noted(number, notes):
    told = ["its color space number 20 is unknown and was ignored"] * notes
    check_read(jp2(b"\1\0\0" + struct.pack(">I", number)), (200, 100, 50), *told)


def avif(primaries: int, transfer: int) -> bytes:
    """A ramp of gray from left to right with these code points."""
    needs("avif")
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(32, axis=0)
    data = saved(ramp, "AVIF", quality=100, subsampling="4:4:4")
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_avif_is_applied_once_and_foreseen(orientation):
    needs("avif")
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(BLOCKS, "AVIF", exif=exif.tobytes(), quality=100, subsampling="4:4:4")
    expected = read_image(saved(BLOCKS, exif=exif)).rgb
    check_read(data, expected, atol=6)


@pytest.mark.parametrize("transfer", [1, 2, 13])
def test_spaces_that_are_shown_as_srgb_touch_nothing(transfer):
    data = avif(1, transfer)
    check_read(data, np.asarray(Image.open(BytesIO(data)).convert("RGB")))


def test_hdr_and_linear_light_become_srgb():
    hdr = read_image(avif(9, 16))
    assert hdr.notes == ("its HDR light above 203 cd/m2 was clipped to white",)
    assert hdr.rgb[5, 100, 0] > 105 and np.all(hdr.rgb[:, 155:] == 255)
    linear = read_image(avif(1, 8))
    assert abs(int(linear.rgb[5, 55, 0]) - 128) <= 2 and linear.notes == ()


def test_unknown_code_points_and_gain_maps_are_noted():
    note = "its color space with code points 99/13 is unknown and was ignored"
    assert read_image(avif(99, 13)).notes == (note,)
    brands = b"\0\0\0\x20ftypavif\0\0\0\0avifmif1miaftmap"
    assert containers.parse_heif(brands).notes == ("its HDR gain map is left out",)


@pytest.mark.parametrize(
    ("plug_in", "data", "sentence"),
    [
        ("heif", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"\(HEIC; install pillow-heif, or sav"),
        ("jxl", b"\xff\x0a", r"JPEG XL; run pip install 'fa-hific-jax\[jpegxl\]"),
    ],
)
def test_kinds_that_need_more_than_pillow_are_named(monkeypatch, plug_in, data, sentence):
    monkeypatch.setitem(sys.modules, f"pillow_{plug_in}", None)
    for read in (read_image, image_size):
        with pytest.raises(UserError, match=sentence):
            read(data + bytes(64))


def test_heic_is_read_where_its_plug_in_is_installed():
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = saved(BLOCKS, "HEIF", quality=100, exif=EXIF)
    picture = read_image(data)
    np.testing.assert_allclose(picture.rgb.astype(int).mean(), BLOCKS.mean(), atol=2)
    np.testing.assert_allclose(picture.rgb[8::16, 8::16].astype(int), COLORS[1::-1, 2::-1], atol=9)
    assert picture.notes == () and image_size(data) == (32, 48)


def test_jpeg_xl_is_read_where_its_plug_in_is_installed():
    pytest.importorskip("pillow_jxl")
    data = saved(COLORS, "JXL", lossless=True)
    check_read(data, COLORS)
    for cut in (20, len(data) // 2):
        with pytest.raises(UserError, match=r"\(it is damaged or incomplete\): give an intact"):
            read_image(data[:cut])
