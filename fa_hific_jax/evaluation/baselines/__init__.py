"""Classical codecs on the same images: real files, decoded again by the codec that wrote them."""

import bisect
import time
from functools import cache
from typing import NamedTuple

from PIL import Image

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.baselines import with_pillow, with_programs
from fa_hific_jax.evaluation.baselines.with_pillow import Codec, Pixels

# What Pillow and its plug-ins raise where the library behind them refuses.
_FAILURES = (OSError, ValueError, RuntimeError, Image.DecompressionBombError)

_CODECS: dict[str, Codec] = with_pillow.CODECS | with_programs.CODECS


class Coded(NamedTuple):
    """A file, the image that the same codec decodes from it, the setting, and the wall times."""

    data: bytes
    image: Pixels
    setting: str
    seconds_encode: float
    seconds_decode: float


def available() -> dict[str, str | None]:
    """Returns the id of every codec, with None or the reason why it cannot be measured here.

    Each call searches the PATH for programs anew.
    """
    return {name: codec.missing() for name, codec in _CODECS.items()}


def codec(name: str) -> Codec:
    """Returns the codec of an id; raises a UserError for an unknown one."""
    if name not in _CODECS:
        raise UserError(f"unknown baseline codec {name!r}: choose one of {', '.join(_CODECS)}")
    return _CODECS[name]


def encode(image: Pixels, name: str, quality: int) -> Coded:
    """Returns the file of a codec by its id at one of its `qualities`, decoded again.

    Raises a UserError if the codec is missing, has no such quality, or fails on this image.
    """
    found, height, width = codec(name), *image.shape[:2]
    if reason := found.missing():
        raise UserError(f"{name} cannot be measured: {reason}")
    if max(height, width) > found.longest_side:
        raise UserError(
            f"a {width}x{height} image does not fit into {name}, whose sides end at "
            f"{found.longest_side}: crop it or leave this baseline out"
        )
    if quality not in found.qualities:
        ends = sorted((found.qualities[0], found.qualities[-1]))
        raise UserError(f"{name} has no quality {quality}: choose one of {ends[0]} to {ends[1]}")
    refused = f"{name} could not code a {width}x{height} image"
    try:
        start = time.perf_counter()
        data, setting = found.encode(image, quality)
        encoded = time.perf_counter()
        decoded = found.decode(data)
        end = time.perf_counter()
    except UserError:
        raise
    except _FAILURES as error:
        raise UserError(f"{refused} ({error}): leave this baseline out") from error
    if decoded.shape != image.shape:
        size = f"{decoded.shape[1]}x{decoded.shape[0]}"
        raise UserError(f"{refused}, it came back as {size}: leave this baseline out")
    return Coded(data, decoded, setting, encoded - start, end - encoded)


def encode_nearest(image: Pixels, name: str, target_bytes: int) -> Coded:
    """Returns the file whose size is nearest to `target_bytes`, over all qualities of a codec.

    That may be far if even the lowest quality is larger than the target. Of two files equally near,
    the smaller is taken. After a bisection over the qualities the neighbors on both sides are
    tried, as size is not quite monotone in quality. Raises what `encode` raises.
    """
    qualities = codec(name).qualities
    encoded = cache(lambda index: encode(image, name, qualities[index]))
    highest = len(qualities) - 1
    first = bisect.bisect_left(range(highest), target_bytes, key=lambda i: len(encoded(i).data))

    near = map(encoded, range(max(0, first - 2), min(highest, first + 1) + 1))
    return min(near, key=lambda coded: (abs(len(coded.data) - target_bytes), len(coded.data)))
