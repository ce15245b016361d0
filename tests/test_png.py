"""PNG: transparent levels at every depth, stated color spaces, damage outside the pixels."""

import struct
import zlib

import numpy as np
import pytest
from image_files import check_read, chunk, png, saved
from PIL import Image
from test_pixels import profile

from fa_hific_jax.data.images import read_image
from fa_hific_jax.errors import UserError

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (6, 8, 3), np.uint8)
GRAYS = np.arange(256, dtype=np.uint8).reshape(16, 16)
FLAT = np.full((4, 4, 3), (200, 100, 50), np.uint8)
LINEAR = chunk(b"gAMA", struct.pack(">I", 100000))


def color_space(*code_points: int) -> bytes:
    return chunk(b"cICP", bytes(code_points))


def icc(data: bytes) -> bytes:
    return chunk(b"iCCP", b"p\0\0" + zlib.compress(data))


def srgb(light):
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_clear_level_of_gray_is_clear_at_every_depth(bits):
    levels = RNG.integers(0, 2**bits, (9, 11)).astype(np.uint16)
    key = int(levels[2, 3])
    levels[0, 0] = (key + (256 if bits == 16 else 1)) % 2**bits
    data = png(levels, chunk(b"tRNS", struct.pack(">H", key)), bits=bits)
    expected = np.rint(levels * (255 / (2**bits - 1)))
    check_read(data, expected, alpha=np.where(levels == key, 0, 255))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_clear_color_is_clear_by_all_its_bits(bits):
    key = np.array([0x1234, 0x5678, 0x9ABC]) >> (16 - bits)
    colors = np.broadcast_to(key, (4, 5, 3)).astype(np.uint16).copy()
    colors[1, :, 2] += 1
    data = png(colors, chunk(b"tRNS", struct.pack(">3H", *key)), bits=bits)
    alpha = [[0] * 5, [255] * 5, [0] * 5, [0] * 5]
    check_read(data, colors >> (bits - 8), alpha=alpha)


@pytest.mark.parametrize("exponent", [1.0, 1.8, 2.6])
def test_gamma_becomes_that_of_srgb(exponent):
    gamma = chunk(b"gAMA", struct.pack(">I", round(100000 / exponent)))
    colors = np.repeat(GRAYS[..., None], 3, axis=-1)
    for levels in (GRAYS, colors):
        check_read(png(levels, gamma), np.rint(srgb((colors / 255) ** exponent)), atol=1)
    deep = RNG.integers(0, 65536, (20, 20, 3))
    check_read(png(deep, gamma, bits=16), srgb((deep / 65535) ** exponent), atol=0.51)


def test_srgb_and_what_is_nearly_that_touch_nothing_and_the_first_in_precedence_counts():
    near = chunk(b"gAMA", struct.pack(">I", 45455))
    points = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    points = chunk(b"cHRM", struct.pack(">8I", *points))
    exact, coded = chunk(b"sRGB", b"\0"), color_space(1, 13, 0, 1)
    for chunks in ((near,), (near, points), (LINEAR, exact), (coded, LINEAR), (points,)):
        check_read(png(COLORS, *chunks), COLORS)
    swapping = icc(profile(swap=True))
    check_read(png(FLAT, LINEAR, swapping), FLAT[..., [1, 0, 2]], atol=2)
    light = np.rint(srgb(FLAT / 255))
    check_read(png(FLAT, LINEAR, swapping, color_space(1, 8, 0, 1)), light, atol=2)


def test_wider_primaries_are_converted():
    """P3's red, green and blue at half light, by the matrix of CSS Color 4."""
    levels = np.array([[[188, 0, 0], [0, 188, 0], [100, 100, 100], [180, 120, 90]]], np.uint8)
    matrix = [[1.22494, -0.22494, 0], [-0.04206, 1.04206, 0], [-0.01964, -0.07864, 1.09827]]
    v = levels / 255
    light = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    expected = srgb(light @ np.transpose(matrix))
    check_read(png(levels, color_space(12, 13, 0, 1)), expected, atol=1)


@pytest.mark.parametrize("curve, white", [(16, 0.58), (18, 0.75)], ids=["PQ", "HLG"])
def test_hdr_is_cut_at_diffuse_white_and_noted(curve, white):
    """The levels of 203 cd/m2 are those of BT.2408."""
    picture = read_image(png(GRAYS, color_space(9, curve, 0, 1)))
    levels = picture.rgb[..., 0].ravel().astype(int)
    assert levels[0] == 0 and np.all(np.diff(levels) >= 0)
    assert abs(int(np.argmax(levels == 255)) - 255 * white) <= 2
    assert picture.notes == ("its HDR light above 203 cd/m2 was clipped to white",)


def test_unknown_code_points_are_noted():
    for values in ([9, 99, 0, 1], [1, 13, 1, 1], [1, 13, 0, 0]):
        told = "/".join(map(str, values))
        note = f"its color space with code points {told} is unknown and was ignored"
        check_read(png(COLORS, color_space(*values)), COLORS, note)


SHORT = ["gAMA", "cHRM", "sRGB", "pHYs", "iCCP", "tRNS", "acTL", "cICP", "zTXt"]


def test_damage_in_a_chunk_that_pixels_do_not_need_is_noted():
    damaged = [chunk(name.encode(), b"") for name in SHORT]
    damaged += [chunk(name.encode(), b"12345678")[:-1] + b"\0" for name in SHORT]
    damaged += [chunk(b"cHRM", bytes(32)), chunk(b"gAMA", bytes(4))]  # impossible numbers
    for part in damaged:
        note = f"its {part[4:8].decode()} chunk is damaged and was ignored"
        check_read(png(COLORS, part), COLORS, note)
    note = "its gAMA and pHYs chunks are damaged and were ignored"
    parts = [chunk(b"gAMA", b""), chunk(b"pHYs", b"1"), chunk(b"gAMA", b"2")]
    check_read(png(COLORS, *parts), COLORS, note)


@pytest.mark.parametrize(
    "kind, text",
    [
        (b"tEXt", b"workflow\0" + b"x" * 2_000_000),
        (b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 80_000_000, 1)),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000)),
    ],
    ids=["tEXt", "zTXt", "iTXt"],
)
def test_more_text_than_pillow_takes_is_left_out_with_a_note(kind, text):
    check_read(png(COLORS, chunk(kind, text)), COLORS, "its text of more than 1 MiB was left out")


def test_large_profiles_and_an_orientation_behind_the_pixels_are_applied():
    large = icc(profile(swap=True) + bytes(2_000_000))
    check_read(png(FLAT, large), FLAT[..., [1, 0, 2]], atol=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    check_read(png(COLORS, after=chunk(b"eXIf", exif.tobytes()[6:])), np.rot90(COLORS, -1))


def flipped(data: bytes, position: int) -> bytes:
    """The data with the lowest bit of a byte changed."""
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def test_damage_around_whole_pixels_is_noted():
    data = png(COLORS)
    check_read(data[:-12], COLORS, "its end is missing, but all its pixels are there")
    note = "the checksum of a pixel chunk is wrong, but that of the pixels is right"
    check_read(flipped(data, len(data) - 13), COLORS, note)


def test_damaged_pixels_palettes_and_headers_and_unknown_chunks_are_refused():
    data, noise = png(COLORS), png(RNG.integers(0, 256, (40, 40, 3), np.uint8))
    image = Image.frombytes("P", (2, 1), b"\0\1")
    image.putpalette([1, 2, 3, 4, 5, 6])
    indexed = saved(image)
    palette = indexed.index(b"PLTE")
    for damaged, sentence in (
        (data[:-20], "truncated within its pixels"),
        (data[:-40], "truncated within its pixels"),
        (flipped(noise, noise.index(b"IDAT") + 500), "cannot be read as an image"),
        (flipped(indexed, palette + 5), "its palette is damaged"),
        (indexed[: palette - 4] + indexed[palette + 14 :], "its palette is missing"),
        (flipped(data, 19), "its header is damaged"),
        (png(COLORS, chunk(b"CgBI", b"\x50\0\x20\x02")), "a reader that knows its CgBI chunk"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_image(damaged)
