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

from fa_hific_jax.data import isobmff, jp2, jpeg, png, tiff, webp
from fa_hific_jax.data.parsed import END_MISSING, ParsedFile
from fa_hific_jax.errors import UserError

_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


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
        with contextlib.ExitStack() as stack:
            file = _seekable(source)
            if file is not source:
                stack.enter_context(file)
            stack.enter_context(_without_bomb_guard())
            yield file, name
    except (UserError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise _unreadable(name, "not of a kind that Pillow knows") from error
    except Exception as error:  # Pillow raises errors of many types on damaged files.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _unreadable(name, " ".join(reason.split())) from error


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
    if start.startswith(jp2.SIGNATURE):
        return jp2.parse(file)
    if start.startswith(_JPEG_XL):
        _register_jpeg_xl()
    return ParsedFile(file)


def open_image(parsed: ParsedFile) -> Image.Image:
    """Returns Pillow's image of `parsed.pixels`, not yet decoded, with `parsed.info` added."""
    try:
        image = Image.open(parsed.pixels)
    except Image.UnidentifiedImageError as error:
        if not parsed.size or parsed.layout:
            raise
        raise ValueError(tiff.describe(parsed.pixels) + ", which Pillow does not read") from error
    except RuntimeError as error:  # The message of the JPEG XL plug-in says how to build libjxl.
        raise ValueError("it is damaged or incomplete") from error
    if image.format in ("EPS", "WMF"):  # Pillow would run external programs on them.
        raise ValueError("vector graphics; render it as PNG first")
    image.info.update(parsed.info)
    return image


def check_size(name: object, size: tuple[int, ...], max_pixels: int) -> None:
    """Raises UserError if a (width, height) has more than `max_pixels` pixels."""
    if size and size[0] * size[1] > max_pixels:
        raise UserError(
            f"{name}: {size[0]} x {size[1]} pixels are over the limit of {max_pixels} pixels: cut "
            "it into parts"
        )


def _register_jpeg_xl() -> None:
    try:
        import pillow_jxl  # noqa: F401  # The import registers the format.
    except ImportError as error:
        raise ValueError("JPEG XL; run pip install 'fa-hific-jax[jpegxl]'") from error


def loaded(image: Image.Image, parsed: ParsedFile, notes: list[str]) -> Image.Image:
    """Returns the decoded image, also for a JPEG that lacks nothing but its end marker.

    Raises:
      OSError, ValueError: pixels are missing or damaged.
    """
    try:
        image.load()
        return image
    except OSError:
        if image.format != "JPEG":
            raise
    parsed.pixels.seek(0)
    with Image.open(io.BytesIO(jpeg.ended(parsed.pixels.read()))) as whole:
        whole.load()
    whole.info.update(parsed.info)
    notes.append(END_MISSING)
    return whole


def _seekable(source: Any) -> BufferedIOBase:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    file = open(source, "rb") if isinstance(source, str | os.PathLike) else source
    usable = isinstance(file, BufferedIOBase) and file.seekable()
    return file if usable else io.BytesIO(file.read())


def _unreadable(name: object, reason: str) -> UserError:
    return UserError(
        f"{name}: cannot be read as an image ({reason}): give an intact file, such as PNG, JPEG, "
        "WebP or TIFF"
    )


_guard_lock = threading.Lock()
_guard: list[int | None] = []  # Pillow's own limit, one entry per image that is being read


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
