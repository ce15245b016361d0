"""Opens and parses image files of any format; any failure becomes one sentence."""

import contextlib
import io
import os
import re
import threading
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from PIL import Image

from fa_hific_jax.data import isobmff, jpeg, png, tiff, webp
from fa_hific_jax.data.image_names import reason
from fa_hific_jax.data.parsed import ParsedFile
from fa_hific_jax.errors import UserError

_guard_lock = threading.Lock()
_guard: list[int | None] = []  # Pillow's own limit, one entry per image that is being read


@contextlib.contextmanager
def readable(source: Any) -> Iterator[tuple[BufferedIOBase, object]]:
    """Yields a seekable file for a path, bytes or an open file, and a name for error messages.

    Any exception in the block but MemoryError becomes a UserError of one sentence with the name.
    A file that was already open is not closed.
    """
    name = source if isinstance(source, str | Path) else getattr(source, "name", "the image")
    try:
        with _seekable(source) as file, _without_bomb_guard():
            yield file, name
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow raises errors of many types on damaged files.
        unknown = isinstance(error, Image.UnidentifiedImageError)
        why = "not of a kind that Pillow knows" if unknown else reason(error)
        raise UserError(
            f"{name}: cannot be read as an image ({why}): give an intact file, such as PNG, JPEG, "
            "WebP or TIFF"
        ) from error


def parse(file: BufferedIOBase, header_only: bool = False) -> ParsedFile:
    """Parses a file of any format; a format without a parser here is left to Pillow.

    Raises ValueError if the file cannot be read; the message is the reason.
    """
    file.seek(0)
    start = file.read(64)
    file.seek(0)
    if not start:
        raise ValueError("it is empty")
    if start.startswith(png.SIGNATURE):
        return png.parse(file, header_only)
    for signature, parser in _PARSERS.items():
        if re.match(signature, start, re.DOTALL):
            return parser(file)
    return ParsedFile(file)


def _parse_jpeg_xl(file: BufferedIOBase) -> ParsedFile:
    try:
        import pillow_jxl  # noqa: F401  # The import registers the format.
    except ImportError as error:
        raise ValueError("JPEG XL; run pip install 'fa-hific-jax[jpegxl]'") from error
    return ParsedFile(file)


_PARSERS = {
    jpeg.SIGNATURE: jpeg.parse,
    rb"II[*+]\0|MM\0[*+]": tiff.parse,
    b"RIFF....WEBP": webp.parse,
    b"....ftyp": isobmff.parse,
    rb"\0\0\0\x0cjP  \r\n\x87\n": isobmff.parse_jp2,
    rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n": _parse_jpeg_xl,
}


def open_image(parsed: ParsedFile) -> Image.Image:
    """Returns Pillow's image of `parsed.pixels`, not yet decoded, with `parsed.info` added."""
    try:
        image = Image.open(parsed.pixels)
    except RuntimeError as error:  # The message of the JPEG XL plug-in says how to build libjxl.
        raise ValueError("it is damaged or incomplete") from error
    if image.format in ("EPS", "WMF"):  # Pillow would run external programs on them.
        raise ValueError("vector graphics; render it as PNG first")
    image.info.update(parsed.info)
    return image


def _seekable(source: Any) -> contextlib.AbstractContextManager[BufferedIOBase]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    opened = isinstance(source, str | os.PathLike)
    file = open(source, "rb") if opened else source
    if not (isinstance(file, BufferedIOBase) and file.seekable()):
        return io.BytesIO(file.read())
    return file if opened else contextlib.nullcontext(file)


@contextlib.contextmanager
def _without_bomb_guard() -> Iterator[None]:
    # Pillow's limit is global to the process and warns at 89 megapixels. While any thread reads an
    # image, `max_pixels` replaces it; the last reader restores it.
    with _guard_lock:
        _guard.append(_guard[0] if _guard else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _guard_lock:
            limit = _guard.pop()
            if not _guard:
                Image.MAX_IMAGE_PIXELS = limit
