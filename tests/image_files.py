"""Image files of kinds that Pillow does not write, made chunk by chunk."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from fa_hific_jax.data.images import image_size, read_image


def saved(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    """The file that Pillow makes of an image."""
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, kind, **options)
    return file.getvalue()


def check_read(source, expected, *notes: str, alpha=None, atol: float = 0) -> None:
    """Checks what a file is read as, and its notes: gray (height, width), RGB or a single color."""
    picture, expected = read_image(source), np.asarray(expected)
    expected = expected[..., None] if expected.ndim == 2 else expected
    assert picture.rgb.dtype == np.uint8 and picture.rgb.flags.writeable
    expected = np.broadcast_to(expected, picture.rgb.shape)
    np.testing.assert_allclose(picture.rgb.astype(int), expected, rtol=0, atol=atol)
    assert picture.notes == notes
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        np.testing.assert_array_equal(picture.alpha, alpha)
    assert image_size(source) == picture.rgb.shape[:2]


def chunk(name: bytes, data: bytes) -> bytes:
    """One of PNG, with its checksum."""
    crc = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


def png(levels: np.ndarray, *chunks: bytes, bits: int = 8, after: bytes = b"") -> bytes:
    """A PNG of levels (height, width) or (height, width, 3 or 4), with chunks around the pixels."""
    color_type = {2: 0, 3: 2}[levels.ndim] if levels.ndim == 2 or levels.shape[2] == 3 else 6
    if bits < 8:
        spread = (levels[..., None] >> np.arange(bits)[::-1]) & 1
        rows = np.packbits(spread.reshape(len(levels), -1).astype(np.uint8), axis=1)
    else:
        rows = levels.astype(">u2" if bits == 16 else np.uint8)
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], bits, color_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", pixels), after, chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def segment(marker: int, data: bytes) -> bytes:
    """One of JPEG, to stand after the first two bytes."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def tiff(rows: bytes, tags: dict[int, int | tuple[int, ...]], order: str = "<") -> bytes:
    """A TIFF of one uncompressed strip; tags of 32 bits, width 256 and height 257 among them."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    rows += bytes(len(rows) % 2)
    tags = {258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: tags[257], 279: len(rows)} | tags
    place, values = 8 + len(rows), b""
    entries = struct.pack(f"{order}H", len(tags))
    for tag, value in sorted(tags.items()):
        numbers = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            behind = place + 6 + 12 * len(tags) + len(values)
            values, packed = values + packed, struct.pack(f"{order}I", behind)
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    return mark + struct.pack(f"{order}I", place) + rows + entries + bytes(4) + values
