"""Any image becomes upright sRGB in 8 bits; transparency comes back exactly; writing is whole."""

import io
import lzma
import struct
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from image_files import check_read, saved
from PIL import Image, ImageCms

from fa_hific_jax.codec.bitstream import BitstreamError
from fa_hific_jax.codec.pixels import pack_alpha, unpack_alpha, write_image
from fa_hific_jax.data.images import Picture, image_size, on_white, read_image
from fa_hific_jax.errors import UserError

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (5, 7, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7), np.uint8)
RGBA = np.dstack([COLORS, ALPHA])
NOISE = RNG.integers(0, 256, (200, 200, 3), np.uint8)
FLAT = np.full((16, 16, 3), (200, 100, 50), np.uint8)
SIZES = st.integers(1, 40)
# Shown to a viewer, an image stored as `stored(x)` with this EXIF orientation looks like x.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: np.rot90(x[::-1], 1),
    8: lambda x: np.rot90(x, -1),
}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@given(SIZES, SIZES, st.sampled_from(["1", "L", "P", "LA", "RGB", "RGBA", "I;16"]), st.randoms())
@settings(max_examples=40, deadline=None)
def test_every_size_and_mode_is_read_as_pillow_reads_it(width, height, mode, random):
    row = {"1": (width + 7) // 8, "I;16": 2 * width}.get(mode, width * len(mode))
    image = Image.frombytes(mode, (width, height), random.randbytes(height * row))
    if mode == "P":
        image.putpalette(random.randbytes(768))
    data = saved(image)
    if mode == "I;16":
        check_read(data, np.rint(np.asarray(image) / 257))
    else:
        rgba = np.asarray(image.convert("RGBA"))
        opaque = rgba[..., 3].min() == 255
        check_read(io.BytesIO(data), rgba[..., :3], alpha=None if opaque else rgba[..., 3])


def test_palettes_with_transparency_by_index_by_table_and_by_a_band():
    image, band = Image.frombytes("P", (3, 1), b"\0\1\2"), Image.frombytes("PA", (1, 1), b"\0\x05")
    for each in (image, band):
        each.putpalette(COLORS[0, :3].tobytes())
    check_read(saved(image, transparency=1), COLORS[:1, :3], alpha=[[255, 0, 255]])
    table = saved(image, transparency=b"\x07\xff\x80")
    check_read(table, COLORS[:1, :3], alpha=[[7, 255, 128]])
    check_read(saved(band, "TIFF"), COLORS[:1, :1], alpha=[[5]])


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_of_gray_are_scaled_in_either_byte_order(order):
    every = np.arange(65536, dtype=f"{order}u2").reshape(256, 256)
    mode = "I;16" if order == "<" else "I;16B"
    image = Image.frombytes(mode, (256, 256), every.tobytes())
    check_read(saved(image, "TIFF"), np.rint(every / 257))


NUMBERS = [
    (np.float32([0.0, 0.5, 1.0]), [0, 128, 255], (0, 1)),
    (np.float32([0.0, 1.5, 255.0]), [0, 2, 255], (0, 255)),
    (np.float32([257.0, 0.0, 65535.0]), [1, 0, 255], (0, 65535)),
    (np.float32([np.nan, 1.0, np.inf]), [0, 255, 255], (0, 1)),
    (np.float32([np.nan, np.nan, np.nan]), [0, 0, 0], (0, 1)),
    (np.float32([3e38, 0.0, -3e38]), [255, 128, 0], (-3e38, 3e38)),
    (np.int32([-100, 0, 155]), [0, 100, 255], (-100, 155)),
    (np.int32([0, 257, 65535]), [0, 1, 255], None),
]


@pytest.mark.parametrize("values, levels, span", NUMBERS)
def test_floating_point_and_wide_integers_are_scaled_and_noted(values, levels, span):
    data = saved(values[None], "TIFF")
    notes = [f"its gray level {span[0]:g} became black and {span[1]:g} white"] if span else []
    check_read(data, [levels], *notes)


def test_cmyk_jpegs_with_and_without_adobes_inversion():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red
    data = saved(cmyk, "JPEG", quality=100)
    start = data.index(b"\xff\xee")
    length = 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    # With the marker the levels are the complement of ink; without it, what is stored has K full.
    check_read(data, (255, 0, 0), atol=4)
    check_read(data[:start] + data[start + length :], 0, atol=4)
    check_read(saved(cmyk, "TIFF"), (255, 0, 0))


def test_ycbcr_and_lab_are_converted():
    red = Image.new("YCbCr", (16, 16), (76, 85, 255))
    check_read(saved(red, "TIFF", compression="jpeg"), (255, 0, 0), atol=2)
    lab = Image.new("LAB", (2, 2), (128, 128, 128))  # L* = 50.2
    check_read(saved(lab, "TIFF"), 120, atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_orientation_is_applied_and_foreseen(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    stored = np.ascontiguousarray(STORED[orientation](RGBA))
    check_read(saved(stored, kind, exif=exif, **options), COLORS, alpha=ALPHA)


@pytest.mark.parametrize("damage", [b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"junk"])
def test_damaged_exif_does_not_keep_an_image_from_being_read(damage):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own
        assert read_image(saved(COLORS, "JPEG", exif=damage)).rgb.shape == COLORS.shape
        assert image_size(saved(COLORS, exif=damage)) == (5, 7)


def profile(image: str = "sRGB", swap: bool = False) -> bytes:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile(image)).tobytes())
    if swap:  # red's and green's primaries change places in the table of tags
        red, green = data.index(b"rXYZ", 128), data.index(b"gXYZ", 128)
        data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_a_profile_that_swaps_red_and_green_is_applied(kind):
    data = saved(FLAT, kind, icc_profile=profile(swap=True), quality=100)
    check_read(data, (100, 200, 50), atol=4)


def test_profiles_apply_beneath_transparency_and_palettes_but_not_to_gray_nor_where_srgb():
    swapping = profile(swap=True)
    check_read(saved(RGBA, icc_profile=swapping), COLORS[..., [1, 0, 2]], alpha=ALPHA, atol=2)
    image = Image.fromarray(FLAT).quantize(1)
    check_read(saved(image, icc_profile=swapping), (100, 200, 50), atol=2)
    check_read(saved(COLORS, icc_profile=profile()), COLORS)
    check_read(saved(ALPHA, icc_profile=swapping), ALPHA)


@pytest.mark.parametrize("broken", [b"junk", profile()[:200], profile("LAB")])
def test_a_profile_that_does_not_fit_is_ignored_and_noted(broken):
    note = "its color profile is damaged or does not fit the image and was ignored"
    check_read(saved(COLORS, icc_profile=broken), COLORS, note)
    cmyk = saved(Image.new("CMYK", (2, 2)), "TIFF", icc_profile=profile())
    check_read(cmyk, 255, note)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_an_animation_the_first_frame_is_kept(kind):
    first, second = (Image.new("RGB", (4, 3), color) for color in ((255, 0, 0), (0, 0, 255)))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = saved(first, kind, save_all=True, append_images=[second], **lossless)
    check_read(data, (255, 0, 0), "only the first of its frames or pages is kept")


def test_of_an_icon_in_several_sizes_the_largest_is_kept():
    squares = np.kron(COLORS[:4, :4], np.ones((8, 8, 1), np.uint8))
    check_read(saved(squares, "ICO", sizes=[(32, 32)]), squares)
    several = saved(squares, "ICO", sizes=[(16, 16), (32, 32)])
    check_read(several, squares, "only the largest of its sizes is kept")


@pytest.mark.parametrize("kind", ["TGA", "BMP"])
@pytest.mark.parametrize("alpha", [0 * ALPHA, ALPHA])
def test_a_fourth_byte_of_nothing_but_zero_is_no_transparency(kind, alpha):
    rgba = np.dstack([COLORS, alpha])
    if kind == "TGA":
        data = saved(rgba, "TGA")
    else:
        rows = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
        head = struct.pack("<IiiHHIIiiII", 108, 7, 5, 1, 32, 3, len(rows), 0, 0, 0, 0)
        masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000).ljust(68, b"\0")
        data = b"BM" + struct.pack("<IHHI", 122 + len(rows), 0, 0, 122) + head + masks + rows
    if alpha.any():
        check_read(data, COLORS, alpha=alpha)
    else:
        check_read(data, COLORS, "its transparency is zero throughout and was ignored")


@given(st.data(), st.binary(max_size=200), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_damage_anywhere_gives_a_picture_or_a_sentence(choice, junk, share):
    kind = choice.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
    data = bytearray(saved(NOISE[:40, :40], kind))
    at = int(share * len(data))
    data[at : at + len(junk)] = junk
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own on its way to an error
        try:
            assert read_image(bytes(data), max_pixels=2**20).rgb.dtype == np.uint8
        except UserError as error:
            assert "\n" not in str(error)
    if share < 0.9 and kind != "TIFF":
        with pytest.raises(UserError, match=r"^the image: cannot be read as an image \(.+\): give"):
            read_image(bytes(data[:at]))


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    eps = tmp_path / "c.eps"
    eps.write_bytes(saved(COLORS, "EPS"))
    for source, reason in (
        (tmp_path / "a.png", "not of a kind that Pillow knows"),
        (tmp_path / "b.png", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (eps, "vector graphics; render it as PNG first"),
    ):
        for read in (read_image, image_size):
            with pytest.raises(UserError, match=rf"^{source}: .* \({reason}\)"):
                read(source)
    with pytest.raises(UserError, match="it is empty"):
        read_image(b"")


def test_only_the_given_limit_counts_and_pillows_own_stays_as_it_was_in_threads_too(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in ("PNG", "TIFF", "WEBP", "GIF"):
        data = saved(COLORS, kind)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda data: read_image(data, max_pixels=35), [data] * 30))
        with pytest.raises(UserError, match="the image: 7 x 5 pixels are over the limit of 34 pix"):
            read_image(data, max_pixels=34)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_on_white_is_pillows_composition():
    rgba = Image.fromarray(RGBA)
    white = Image.new("RGBA", rgba.size, "white")
    expected = np.asarray(Image.alpha_composite(white, rgba))[..., :3].astype(int)
    np.testing.assert_allclose(on_white(Picture(COLORS, ALPHA)).astype(int), expected, atol=1)


SHAPES = st.tuples(SIZES, SIZES)
MASKS = st.one_of(
    arrays.arrays(np.uint8, SHAPES),
    arrays.arrays(np.uint8, SHAPES, elements=st.sampled_from([0, 255])),
    SHAPES.map(lambda s: np.add.outer(np.arange(s[0]), np.arange(s[1])).astype(np.uint8)),
    SHAPES.map(lambda s: np.full(s, 255, np.uint8)),
)


@given(MASKS)
@settings(max_examples=60, deadline=None)
def test_transparency_comes_back_exactly_and_takes_no_bytes_where_there_is_none(alpha):
    packed = pack_alpha(alpha)
    assert len(packed) <= (alpha.size + 16) * (alpha.min() < 255)
    np.testing.assert_array_equal(unpack_alpha(packed, *alpha.shape), alpha)


def test_the_alpha_stream_is_as_specified():
    """A decoder written from docs/bitstream.md."""
    ramp = np.add.outer(np.arange(60), 3 * np.arange(80)).astype(np.uint8)
    seen = set()
    walk = np.cumsum(RNG.integers(-1, 2, (60, 80)), axis=1).astype(np.uint8)
    for alpha in (ramp, walk, np.tile(ALPHA[:1], (40, 9))):
        packed = pack_alpha(alpha)
        lzma2 = {"id": lzma.FILTER_LZMA2, "dict_size": 2**20, "lc": 3, "lp": 0, "pb": 0}
        pixels = list(lzma.decompress(packed[1:], lzma.FORMAT_RAW, filters=[lzma2]))
        rows, columns = alpha.shape
        if packed[0] == 3:
            for i in range(columns, rows * columns):
                pixels[i] = (pixels[i] + pixels[i - columns]) % 256
        if packed[0] >= 1:
            for i in range(rows * columns):
                pixels[i] = (pixels[i] + (pixels[i - 1] if i % columns else 0)) % 256
        assert pixels == alpha.ravel().tolist()
        seen.add(packed[0])
    assert seen == {0, 1, 3}


def test_damaged_transparency_is_refused_or_has_its_size():
    packed = pack_alpha(ALPHA)
    for at in range(len(packed)):
        damaged = bytearray(packed)
        damaged[at] ^= RNG.integers(1, 256)
        try:
            assert unpack_alpha(bytes(damaged), 5, 7).shape == (5, 7)
        except BitstreamError as error:
            assert "the transparency in the file is damaged" in str(error)
    wrong = [packed[:-1], packed + b"\0", bytes([9]) + packed[1:], packed[:1], b"\0"]
    for case in [(data, 5, 7) for data in wrong] + [(packed, 5, 6), (packed, 6, 7)]:
        with pytest.raises(BitstreamError, match="transparency in the file is damaged: fetch it"):
            unpack_alpha(*case)


def test_a_bomb_takes_no_more_memory_than_the_image():
    bomb = pack_alpha(np.zeros((8000, 8000), np.uint8))
    tracemalloc.start()
    try:
        with pytest.raises(BitstreamError):
            unpack_alpha(bomb, 10, 10)
        assert tracemalloc.get_traced_memory()[1] < 2e6  # half of it is the decoder's window
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".PNG"])
@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_lossless_formats_come_back_exactly_by_names_of_any_length(tmp_path, suffix, alpha):
    path = tmp_path / "new" / ("a" * (255 - len(suffix)) + suffix)
    write_image(path, COLORS, alpha)
    check_read(path, COLORS, alpha=alpha)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_jpeg_comes_back_nearly_and_without_transparency(tmp_path):
    write_image(tmp_path / "a.jpg", FLAT)
    check_read(tmp_path / "a.jpg", FLAT, atol=3)
    with pytest.raises(UserError, match=r"b\.jpg: JPEG cannot hold transparency: write PNG"):
        write_image(tmp_path / "b.jpg", COLORS, ALPHA)
    with pytest.raises(UserError, match=r"b\.gif: images are written as \.png .*: choose a name"):
        write_image(tmp_path / "b.gif", COLORS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.jpg"]


@pytest.mark.parametrize("suffix, side", [("jpg", 65536), ("webp", 16384)])
def test_sizes_that_a_format_cannot_hold_leave_nothing(tmp_path, suffix, side):
    for shape in ((1, side, 3), (side, 1, 3)):
        with pytest.raises(UserError, match=rf"a\.{suffix}: \w+ cannot hold .* pixels .*write PNG"):
            write_image(tmp_path / f"a.{suffix}", np.zeros(shape, np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_a_disk_that_is_full_is_not_called_a_picture_that_does_not_fit(tmp_path, suffix):
    resource = pytest.importorskip("resource")
    path = tmp_path / f"a{suffix}"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            write_image(path, NOISE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.filename == str(path) and not list(tmp_path.iterdir())
