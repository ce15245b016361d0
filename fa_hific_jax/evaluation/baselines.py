"""JPEG and WebP at the file size of the learned codec, through Pillow."""

import io
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import Image, features

from fa_hific_jax.errors import UserError

Pixels = UInt8[np.ndarray, "h w 3"]


class Coded(NamedTuple):
    """A file, what it decodes to, and the setting that made it."""

    data: bytes
    image: Pixels
    setting: str


class _Codec(NamedTuple):
    encode: Callable[[Image.Image, int], tuple[bytes, str]]
    lowest: int  # quality; the highest is 100 everywhere
    longest_side: int


def encode_nearest(image: Pixels, codec: str, target_bytes: int) -> Coded:
    """The file of `codec` whose size is nearest to `target_bytes`, over all integer qualities.

    Where even the lowest quality is larger than the target, that file is the nearest and is what
    comes back: compare `len(data)` with the target. On the Kodak images the floor is 0.07 to 0.16
    bits per pixel for JPEG and 0.06 to 0.21 for WebP. Of two files equally near the smaller wins.
    JPEG is 4:2:0 with optimised Huffman tables, progressive or baseline, whichever is smaller;
    WebP is lossy at method 6. Neither carries metadata.

    Args:
      image: RGB, values 0 to 255.
      codec: "jpeg" or "webp".
      target_bytes: wanted size of the whole file, header included.

    Raises:
      UserError: for an unknown codec, one that this Pillow lacks, or an image with a side that
        the format cannot hold.
    """
    encode, lowest = _checked(codec, image)
    source = Image.fromarray(image)
    encoded = cache(lambda quality: encode(source, quality))

    def miss(quality: int) -> tuple[int, int]:
        size = len(encoded(quality)[0])
        return abs(size - target_bytes), size

    first = _first_at_least(lambda quality: len(encoded(quality)[0]), target_bytes, lowest, 100)
    # Size is not quite monotone in quality, so the neighbours on both sides are tried as well.
    nearest = min(range(max(lowest, first - 2), min(100, first + 1) + 1), key=miss)
    data, setting = encoded(nearest)
    with Image.open(io.BytesIO(data)) as decoded:
        return Coded(data, np.asarray(decoded.convert("RGB")), setting)


def pillow_version() -> str:
    """The versions on which the sizes depend, e.g. "Pillow 11.0.0, libjpeg-turbo 3.0.4, …"."""
    jpeg, name = features.version("libjpeg_turbo"), "libjpeg-turbo"
    if jpeg is None:
        jpeg, name = features.version("jpg"), "libjpeg"
    return f"Pillow {PIL.__version__}, {name} {jpeg}, libwebp {features.version('webp')}"


def _checked(codec: str, image: Pixels) -> tuple[Callable[..., tuple[bytes, str]], int]:
    """The encoder and its lowest quality, or a UserError."""
    if codec not in _CODECS:
        raise UserError(f"unknown baseline codec {codec!r}: choose one of {', '.join(_CODECS)}")
    encode, lowest, longest_side = _CODECS[codec]
    if not features.check("jpg" if codec == "jpeg" else codec):
        raise UserError(f"this Pillow was built without {codec}: install Pillow from PyPI")
    height, width, _ = image.shape
    if max(height, width) > longest_side:
        raise UserError(
            f"a {width}x{height} image does not fit into {codec}, whose sides end at "
            f"{longest_side}: crop it or leave this baseline out"
        )
    return encode, lowest


def _first_at_least(size: Callable[[int], int], target: int, low: int, high: int) -> int:
    """The first quality in low..high whose size reaches target, or high (binary search)."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if size(middle) >= target else (middle + 1, high)
    return low


def _jpeg(image: Image.Image, quality: int) -> tuple[bytes, str]:
    def save(progressive: bool) -> bytes:
        options = {"subsampling": "4:2:0", "optimize": True, "progressive": progressive}
        return _saved(image, "JPEG", quality=quality, **options)

    baseline, progressive = save(False), save(True)
    if len(progressive) < len(baseline):
        return progressive, f"quality {quality}, 4:2:0, progressive"
    return baseline, f"quality {quality}, 4:2:0"


def _webp(image: Image.Image, quality: int) -> tuple[bytes, str]:
    return _saved(image, "WEBP", quality=quality, method=6), f"quality {quality}, method 6"


def _saved(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


_CODECS = {"jpeg": _Codec(_jpeg, 1, 65500), "webp": _Codec(_webp, 0, 16383)}
