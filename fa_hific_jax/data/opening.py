"""Opens and parses image files of any format; any failure becomes one sentence."""

import contextlib
import io
import os
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

_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_guard_lock = threading.Lock()
_guard: list[int | None] = []  # Pillow's own limit, one entry per image that is being read


@contextlib.contextmanager
def readable(source: Any) -> Iterator[tuple[BufferedIOBase, object]]:
    """Yields a seekable file for a path, bytes or an open file, and a name for error messages.

    A file that was already open is not closed.

    Raises:
      UserError: any exception in the block, as one sentence with the name. MemoryError and
        UserError pass unchanged.
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

    Raises:
      ValueError: the file cannot be read; the message is the reason.
    """
    file.seek(0)
    start = file.read(64)
    file.seek(0)
    if not start:
        raise ValueError("it is empty")
    if start.startswith(png.SIGNATURE):
        return png.parse(file, header_only)
    if start.startswith(jpeg.SIGNATURE):
        return jpeg.parse(file)
    if start.startswith(tiff.SIGNATURES):
        return tiff.parse(file)
    if webp.is_webp(start):
        return webp.parse(file)
    if isobmff.brands(start):
        return isobmff.parse(file)
    if start.startswith(isobmff.JP2):
        return isobmff.parse_jp2(file)
    if start.startswith(_JPEG_XL):
        try:
            import pillow_jxl  # noqa: F401  # The import registers the format.
        except ImportError as error:
            raise ValueError("JPEG XL; run pip install 'fa-hific-jax[jpegxl]'") from error
    return ParsedFile(file)


def open_image(parsed: ParsedFile) -> Image.Image:
    """Returns Pillow's image of `parsed.pixels`, not yet decoded, with `parsed.info` added."""
    try:
        image = Image.open(parsed.pixels)
    except Image.UnidentifiedImageError as error:
        if not parsed.size or parsed.decode:
            raise
        raise ValueError(tiff.describe(parsed.pixels) + ", which Pillow does not read") from error
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
