"""Classical codecs on the same images: real files, decoded again by the codec that wrote them."""

import time
from collections.abc import Callable
from functools import cache

from PIL import Image

from fa_hific_jax.errors import UserError
from fa_hific_jax.evaluation.baselines import with_pillow, with_programs
from fa_hific_jax.evaluation.baselines.codec import Codec, Coded, Pixels

# What Pillow and its plug-ins raise where the library behind them refuses.
_FAILURES = (OSError, ValueError, RuntimeError, Image.DecompressionBombError)

_CODECS: dict[str, Codec] = with_pillow.CODECS | with_programs.CODECS


def available() -> dict[str, str | None]:
    """Every codec's id, with None or the reason why it cannot be measured here.

    Looks anew at each call: programs are searched for on the PATH.
    """
    return {name: codec.missing() for name, codec in _CODECS.items()}


def label(codec: str) -> str:
    """The codec's name for people, e.g. "JPEG 2000"; raises UserError for an unknown id."""
    return _known(codec).label


def settings(codec: str) -> dict[str, str | int | bool]:
    """Options that all files of a codec share; raises UserError for an unknown id."""
    return dict(_known(codec).settings)


def sweep(codec: str) -> list[int]:
    """Default qualities, from the smallest file to the largest; raises UserError as `label`.

    On the Kodak images they span 0.05 to 1.5 bits per pixel, or what of it the format reaches.
    The number is the codec's own: quality for JPEG, WebP, AVIF and JPEG XL, the quantiser's step
    for BPG and VVC (where less is more), thousandths of a bit per pixel for JPEG 2000.
    """
    return list(_known(codec).sweep)


def version(codec: str) -> str:
    """Versions of what a file's size depends on, e.g. "Pillow 13.0.0, libwebp 1.6.0".

    Raises:
      UserError: the codec is unknown or not installed.
    """
    return _present(codec).version()


def encode(image: Pixels, codec: str, quality: int) -> Coded:
    """The file of `codec` at one of its qualities (see `sweep`), decoded again.

    Args:
      image: RGB, values 0 to 255.
      codec: one of the ids of `available`.
      quality: in the codec's own unit.

    Raises:
      UserError: the codec is unknown, missing, or fails; it has no such quality; or it does not
        take an image of this size.
    """
    found = _fitting(codec, image)
    if quality not in found.qualities:
        ends = sorted((found.qualities[0], found.qualities[-1]))
        raise UserError(f"{codec} has no quality {quality}: choose one of {ends[0]} to {ends[1]}")
    return _timed(found, codec, image, quality)


def encode_nearest(image: Pixels, codec: str, target_bytes: int) -> Coded:
    """The file of `codec` whose size is nearest to `target_bytes`, over all its qualities.

    Where even the lowest quality is larger than the target, that file is the nearest and is what
    comes back: compare `len(data)` with the target. Of two files equally near the smaller wins.
    The qualities are halved until the size is found, which takes some seven files, and then both
    neighbours are tried, as size is not quite monotone in quality.

    Args:
      image: RGB, values 0 to 255.
      codec: one of the ids of `available`.
      target_bytes: wanted size of the whole file, header included.

    Raises:
      UserError: as `encode`.
    """
    found = _fitting(codec, image)
    encoded = cache(lambda index: _timed(found, codec, image, found.qualities[index]))

    def miss(index: int) -> tuple[int, int]:
        size = len(encoded(index).data)
        return abs(size - target_bytes), size

    highest = len(found.qualities) - 1
    first = _first(lambda index: len(encoded(index).data) >= target_bytes, highest)
    nearest = min(range(max(0, first - 2), min(highest, first + 1) + 1), key=miss)
    return encoded(nearest)


def _timed(found: Codec, name: str, image: Pixels, quality: int) -> Coded:
    try:
        start = time.perf_counter()
        data, setting = found.encode(image, quality)
        encoded = time.perf_counter()
        decoded = found.decode(data)
        end = time.perf_counter()
    except UserError:
        raise
    except _FAILURES as error:
        raise UserError(f"{_refused(name, image)} ({error}): leave this baseline out") from error
    if decoded.shape != image.shape:
        height, width, _ = decoded.shape
        raise UserError(
            f"{_refused(name, image)}, it came back as {width}x{height}: leave this baseline out"
        )
    return Coded(data, decoded, setting, encoded - start, end - encoded)


def _refused(name: str, image: Pixels) -> str:
    return f"{name} could not code a {image.shape[1]}x{image.shape[0]} image"


def _known(name: str) -> Codec:
    if name not in _CODECS:
        raise UserError(f"unknown baseline codec {name!r}: choose one of {', '.join(_CODECS)}")
    return _CODECS[name]


def _present(name: str) -> Codec:
    found = _known(name)
    if reason := found.missing():
        raise UserError(f"{name} cannot be measured: {reason}")
    return found


def _fitting(name: str, image: Pixels) -> Codec:
    found = _present(name)
    height, width, _ = image.shape
    if max(height, width) > found.longest_side:
        raise UserError(
            f"a {width}x{height} image does not fit into {name}, whose sides end at "
            f"{found.longest_side}: crop it or leave this baseline out"
        )
    return found


def _first(reached: Callable[[int], bool], highest: int) -> int:
    """The first index up to `highest` that is reached, or `highest` (binary search)."""
    low = 0
    while low < highest:
        middle = (low + highest) // 2
        low, highest = (low, middle) if reached(middle) else (middle + 1, highest)
    return low
