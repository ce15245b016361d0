"""Image files opened: taken apart by kind, then by Pillow; what goes wrong is one sentence."""

import contextlib
import io
import threading
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from PIL import Image

from fa_hific_jax.data import isobmff, jp2, jpeg, png, tiff, webp
from fa_hific_jax.data.parts import Parts, open_file
from fa_hific_jax.errors import UserError

_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")


@contextlib.contextmanager
def readable(source: Any) -> Iterator[tuple[BufferedIOBase, object]]:
    """The open file and its name; what goes wrong meanwhile becomes a UserError with that."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", "the image")
    try:
        with contextlib.ExitStack() as stack:
            file = open_file(source)
            if file is not source:
                stack.enter_context(file)
            stack.enter_context(_without_bomb_guard())
            yield file, name
    except (UserError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise _unreadable(name, "not of a kind that Pillow knows") from error
    except Exception as error:  # Pillow raises errors of many types on broken files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _unreadable(name, " ".join(reason.split())) from error


def take_apart(file: BufferedIOBase, header_only: bool = False) -> Parts:
    """The parts of a file of any kind; raises ValueError, with the reason, where it is not read."""
    file.seek(0)
    start = file.read(64)
    file.seek(0)
    if not start:
        raise ValueError("it is empty")
    if start.startswith(png.SIGNATURE):
        return png.take_apart(file, header_only)
    if start.startswith(jpeg.SIGNATURE):
        return jpeg.take_apart(file)
    if start.startswith(tiff.SIGNATURES):
        return tiff.take_apart(file)
    if webp.is_webp(start):
        return webp.take_apart(file)
    if isobmff.brands(start):
        return isobmff.take_apart(file)
    if start.startswith(jp2.SIGNATURE):
        return jp2.take_apart(file)
    if start.startswith(_JPEG_XL):
        _register_jpeg_xl()
    return Parts(file)


def open_image(parts: Parts) -> Image.Image:
    """Pillow's image of the pixels, with what was read beside them."""
    try:
        image = Image.open(parts.pixels)
    except Image.UnidentifiedImageError as error:
        if not parts.size or parts.layout:
            raise
        raise ValueError(tiff.describe(parts.pixels) + ", which Pillow does not read") from error
    if image.format in ("EPS", "WMF"):  # Pillow would start other programs on them
        raise ValueError("vector graphics; draw it as PNG first")
    image.info.update(parts.info)
    return image


def check_size(name: object, size: tuple[int, ...], max_pixels: int) -> None:
    """Raises UserError for more pixels than that."""
    if size and size[0] * size[1] > max_pixels:
        raise UserError(
            f"{name}: {size[0]} x {size[1]} pixels are over the limit of {max_pixels} pixels: cut "
            "it into parts"
        )


def _register_jpeg_xl() -> None:
    try:
        import pillow_jxl  # noqa: F401  # Tells Pillow of the format.
    except ImportError as error:
        raise ValueError(
            "JPEG XL, for which the extra fa-hific-jax[jpegxl] is to be installed"
        ) from error


def loaded(image: Image.Image, parts: Parts, notes: list[str]) -> Image.Image:
    """The image with its pixels, of a JPEG also where its end is missing and nothing else is."""
    try:
        image.load()
        return image
    except OSError:
        if image.format != "JPEG":
            raise
    parts.pixels.seek(0)
    with Image.open(io.BytesIO(jpeg.ended(parts.pixels.read()))) as whole:
        whole.load()
    whole.info.update(parts.info)
    notes.append("its end is missing, after the last of its pixels")
    return whole


def _unreadable(name: object, reason: str) -> UserError:
    return UserError(
        f"{name}: cannot be read as an image ({reason}): give a whole PNG, JPEG, WebP, TIFF or such"
    )


_guard_lock = threading.Lock()
_guard: list[int | None] = []  # Pillow's own limit, once for each image that is being read


@contextlib.contextmanager
def _without_bomb_guard() -> Iterator[None]:
    # Pillow's guard is one global for the process, and warns at 89 megapixels: `max_pixels` takes
    # its place while images are read, in whatever threads, and the last reader restores it.
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
