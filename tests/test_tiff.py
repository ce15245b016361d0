"""TIFF: every depth, kind and order of samples has its value; raw files are refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from image_files import check_read, saved, tiff
from PIL import Image

from fa_hific_jax.data.images import image_size, read_image
from fa_hific_jax.errors import UserError

RNG = np.random.default_rng(0)
FORMATS = {"u": 1, "i": 2, "f": 3}


SAMPLES_LEFT_OUT = "its samples beyond the colors were left out"
STRIPS, PREDICTED = {"rowsperstrip": 7}, {"compression": "zlib", "predictor": 2}
both_orders = pytest.mark.parametrize("order", "<>")


def stretched(low, high, kind: str = "level") -> str:
    """The note on values that have no black and white of their own."""
    return f"its {kind} {low} became black and {high} white"


def written(*samples, **options) -> bytes:
    """A TIFF by the package tifffile."""
    file = io.BytesIO()
    pytest.importorskip("tifffile").imwrite(file, *samples, **options)
    return file.getvalue()


def packed(levels: np.ndarray, bits: int) -> bytes:
    """Levels bit by bit, highest first, each row from a byte on."""
    spread = (levels.reshape(len(levels), -1, 1) >> np.arange(bits)[::-1]) & 1
    return np.packbits(spread.reshape(len(levels), -1).astype(np.uint8), axis=1).tobytes()


def of(samples: np.ndarray, order: str = "<", bits: int | None = None, **tags) -> bytes:
    """A TIFF of samples (height, width) or (height, width, n) of their own type."""
    height, width, *count = samples.shape
    count = count[0] if count else 1
    depth = bits or 8 * samples.dtype.itemsize
    rows = packed(samples, bits) if bits else samples.astype(samples.dtype.newbyteorder(order))
    known = {256: width, 257: height, 277: count, 262: 2 if count > 2 else 1}
    known |= {258: (depth,) * count, 339: (FORMATS[samples.dtype.kind],) * count}
    extra = {int(name[1:]): value for name, value in tags.items()}
    return tiff(rows if bits else rows.tobytes(), known | extra, order)


@both_orders
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("shape", [(7, 13), (6, 5, 3)])
def test_depths_between_bytes_span_their_own_range(order, bits, shape):
    levels = RNG.integers(0, 2**bits, shape).astype(np.uint16)
    check_read(of(levels, order, bits), np.rint(levels * (255 / (2**bits - 1))))


@both_orders
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_white_that_is_zero_comes_out_white(order, kind):
    top = 1 if kind is np.float32 else np.iinfo(kind).max
    samples = (np.linspace(0, 1, 48).reshape(4, 12) * top).astype(kind)
    notes = (stretched(1, 0, "gray level"),) if top == 1 else ()
    check_read(of(samples, order, t262=0), 255 - np.rint(255 * (samples / top)), *notes)


SPANS = [(np.int8, 0, 127), (np.int8, -5, 127), (np.int16, 0, 32767), (np.int16, -5, 32767)]
SPANS += [(np.uint32, 0, 2**32 - 1), (np.float16, 0, 1), (np.float32, 0, 1), (np.float64, 0, 1)]


@both_orders
@pytest.mark.parametrize("kind, low, high", SPANS)
@pytest.mark.parametrize("shape, told", [((5, 12), "gray level"), ((5, 4, 3), "level")])
def test_signed_wide_and_floating_point_samples_span_their_values(
    order, kind, low, high, shape, told
):
    samples = np.linspace(low, high, 60).reshape(shape).astype(kind)
    expected = np.rint((samples.astype(np.float64) - low) * (255 / (high - low)))
    check_read(of(samples, order), expected, stretched(low, f"{high:g}", told))


def test_transparency_beside_deep_samples():
    samples = RNG.random((5, 6, 4)).astype(np.float32)
    expected = np.rint(255 * samples.astype(np.float64))
    check_read(of(samples, t338=2), expected[..., :3], stretched(0, 1), alpha=expected[..., 3])
    multiplied = np.dstack([0.5 * samples[..., :3], np.full((5, 6, 1), 0.5, np.float32)])
    found = read_image(of(multiplied, t338=1))
    np.testing.assert_allclose(found.rgb, 255 * samples[..., :3], atol=0.51)
    pair = RNG.integers(0, 65536, (5, 6, 2)).astype(np.uint16)
    scaled = np.rint(pair / 257)
    check_read(of(pair, t338=2), scaled[..., 0], alpha=scaled[..., 1])
    check_read(of(pair), scaled[..., 0], SAMPLES_LEFT_OUT)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_and_size_of_deep_samples(orientation):
    levels = RNG.integers(0, 1024, (5, 8)).astype(np.uint16)
    eight = np.rint(levels * (255 / 1023)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected = read_image(saved(eight, exif=exif)).rgb
    check_read(of(levels, bits=10, t274=orientation), expected)


@both_orders
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("options", [STRIPS, STRIPS | PREDICTED, {"tile": (16, 32)} | PREDICTED])
@pytest.mark.parametrize("kind, low, high", [(np.uint16, 0, 65535), (np.int16, -9, 30000)])
def test_strips_tiles_planes_and_predictors_come_back(order, planar, options, kind, low, high):
    colors = RNG.integers(0, high, (40, 50, 3)).astype(kind)
    colors[0, :2, 0] = low, high
    stored = np.moveaxis(colors, -1, 0) if planar == "separate" else colors
    data = written(stored, photometric="rgb", planarconfig=planar, byteorder=order, **options)
    expected = (colors - float(low)) * (255 / (high - low))
    # Pillow keeps the upper bits of 16 of usual samples.
    upper = planar == "contig" and low == 0
    expected = colors >> 8 if upper else np.rint(expected)
    check_read(data, expected, *[stretched(low, high)] * (low < 0))


def test_predicted_floating_point_comes_back():
    """Adobe's technical note 3: bytes by weight, highest first, each less its left neighbor."""
    values = RNG.random((6, 20)).astype(np.float32)
    planes = np.ascontiguousarray(values.astype(">f4")).view(np.uint8).reshape(6, 20, 4)
    rows = planes.swapaxes(1, 2).reshape(6, 80)
    rows = np.diff(rows, axis=1, prepend=np.zeros((6, 1), np.uint8))
    strip = zlib.compress(rows.tobytes())
    tags = {256: 20, 257: 6, 258: 32, 339: 3, 259: 8, 317: 3, 279: len(strip)}
    expected = np.rint(255 * values.astype(np.float64))
    check_read(tiff(strip, tags), expected, stretched(0, 1, "gray level"))


def test_raw_files_are_refused_and_pixels_that_begin_with_a_cameras_letters_are_not():
    small = np.frombuffer(b"CR\2\0" + bytes(68), np.uint8).reshape(4, 6, 3)
    check_read(of(small), small)
    file = of(small)
    canon = file[:4] + struct.pack("<I", 16) + b"CR\2\0" + bytes(4) + file[80:] + file[8:80]
    raw = [of(small, **tags) for tags in ({"t50706": 1}, {"t262": 32803}, {"t262": 34892})]
    for data in (canon, *raw):
        with pytest.raises(UserError, match="a camera's raw file"):
            read_image(data)


def nested(below: np.ndarray, first: np.ndarray, marked: bool) -> bytes:
    """A TIFF whose first page has another below it; the smaller one may be marked as such."""
    tifffile, file = pytest.importorskip("tifffile"), io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for page, more in ((first, {"subifds": 1}), (below, {})):
            small = marked and len(page) == min(len(below), len(first))
            writer.write(page, photometric="rgb", subfiletype=int(small), **more)
    return file.getvalue()


def test_smaller_copies_below_a_picture_are_no_matter_and_larger_ones_are_refused():
    large = RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    small = large[::10, ::10]
    check_read(nested(small, large, marked=True), large)
    for marked in (True, False):
        for read in (read_image, image_size):
            with pytest.raises(UserError, match="its first page is a smaller copy of a later one"):
                read(nested(large, small, marked))


BYTES = RNG.integers(0, 256, (4, 6, 5)).astype(np.uint8)


@pytest.mark.parametrize(
    "file, told",
    [
        (of(BYTES[..., 0], bits=12, t259=7), "TIFF samples of 12 bits, .* compression 7"),
        (of(BYTES[..., 0], bits=12, t339=6), "TIFF samples of 12 bits"),
        (of(BYTES, t262=1), "not of a kind that Pillow knows"),
        # Plain chroma is not called truncated.
        (of(BYTES[..., :3], t262=6), "photometric interpretation 6, compression 1; save it as"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_samples_that_are_not_read_are_described(file, told):
    with pytest.raises(UserError, match=told):
        read_image(file)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_samples_of_no_stated_meaning_are_left_out_with_a_note(kind):
    file = of(BYTES[..., :4].astype(kind) * (np.iinfo(kind).max // 255), t338=0)
    check_read(file, BYTES[..., :3], SAMPLES_LEFT_OUT)
    assert read_image(file).alpha is None


@both_orders
def test_sixty_four_bit_offsets_are_read(order):
    levels = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    inverted, colors = 255 - np.rint(levels / 257), BYTES[..., :3]
    for samples, kind, expected in ((levels, "miniswhite", inverted), (colors, "rgb", colors)):
        check_read(written(samples, photometric=kind, bigtiff=True, byteorder=order), expected)


@pytest.mark.parametrize("compressed", [False, True])
def test_odd_samples_that_are_cut_off_are_refused(compressed):
    levels = RNG.integers(-999, 999, (30, 40)).astype(np.int16)
    rows = levels.tobytes()
    rows = zlib.compress(rows) if compressed else rows
    tags = {256: 40, 257: 30, 258: 16, 339: 2, 259: 8 if compressed else 1, 279: len(rows)}
    # What comes after the pixels, such as the directory, must not be taken for pixels.
    at = len(tiff(b"", tags))
    file = tiff(b"", tags | {273: at}) + rows
    expected = np.rint((levels - levels.min()) * (255 / np.ptp(levels.astype(int))))
    np.testing.assert_array_equal(read_image(file).rgb[..., 0], expected)
    for lost in (1, 300):
        with pytest.raises(UserError, match="truncated within its pixels"):
            read_image(file[:-lost])
