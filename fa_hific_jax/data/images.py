"""Decodes any image file to upright 8-bit sRGB, with transparency and notes on what was changed."""

import contextlib
import io
import os
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from fa_hific_jax.data import color, containers, jpeg, metadata, png, tiff
from fa_hific_jax.data.image_names import reason
from fa_hific_jax.data.metadata import Metadata
from fa_hific_jax.data.parsed import END_MISSING, FURTHER_PAGES, ParsedFile
from fa_hific_jax.errors import UserError

MAX_PIXELS = 512 * 2**20  # also the limit for the size that a compressed file may state

_ORIENTATION = 0x0112  # EXIF tag; the values whose pictures are stored mirrored or turned:
_BOTTOM_UP, _RIGHT_TO_LEFT, _SIDEWAYS = (3, 4, 6, 7), (2, 3, 7, 8), (5, 6, 7, 8)
# Many programs write zeros as the fourth byte of a pixel in these formats. Viewers ignore it.
_PADDED = ("BMP", "DIB", "TGA")
_PARSERS = {
    re.escape(png.SIGNATURE): png.parse,
    jpeg.SIGNATURE: jpeg.parse,
    rb"II[*+]\0|MM\0[*+]": tiff.parse,
    b"RIFF....WEBP": containers.parse_webp,
    b"....ftyp": containers.parse_heif,
    rb"\0\0\0\x0cjP  \r\n\x87\n": containers.parse_jp2,
    rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n": containers.parse_jpeg_xl,
}
_guard_lock = threading.Lock()
_guard: list[int | None] = []  # Pillow's own limit, one entry per image that is being read


class Picture(NamedTuple):
    """An upright image in sRGB."""

    rgb: UInt8[np.ndarray, "h w 3"]  # colors from 0 to 255, not multiplied by alpha
    alpha: UInt8[np.ndarray, "h w"] | None = None  # 255: opaque; None if all pixels are opaque
    notes: tuple[str, ...] = ()  # sentences about what the file contains and the picture does not
    metadata: Metadata = Metadata()  # EXIF and XMP, if they were asked for


def read_image(
    source: Path | str | bytes | io.IOBase,
    max_pixels: int = MAX_PIXELS,
    *,
    keep_metadata: bool = False,
) -> Picture:
    """Decodes an image file of any format that Pillow reads; docs/images.md has the details.

    Args:
      source: a path, also in a bucket, the bytes of a file or an open file.
      max_pixels: largest number of pixels that is accepted.
      keep_metadata: True to return EXIF and XMP.

    Raises:
      UserError: the file is no image, is damaged, or has more than `max_pixels` pixels.
    """
    with _opened(source) as (name, data, parsed, image):
        width, height = parsed.size or image.size
        if width * height > max_pixels:
            raise UserError(
                f"{name}: {width} x {height} pixels are over the limit of {max_pixels} pixels: cut "
                "it into parts"
            )
        notes = list(parsed.notes)
        try:
            image.load()
        except OSError:
            if image.format != "JPEG":
                raise
            image = jpeg.completed(parsed.pixels)
            image.info.update(parsed.info)
            notes.append(END_MISSING)
        if getattr(image, "is_animated", False):
            notes.append(FURTHER_PAGES)
        if len(image.info.get("sizes", ())) > 1:  # Only icons have these.
            notes.append("only the largest of its sizes is kept")
        orientation = parsed.orientation if parsed.decode else _orientation(image, notes)
        colors, alpha = _without_alpha(image, parsed, notes)
        rgb = _upright(_srgb(image, colors, parsed, notes), orientation)
        alpha = None if alpha is None or alpha.min() == 255 else _upright(alpha, orientation)
        kept = metadata.of(image, parsed, data) if keep_metadata else Metadata()
        return Picture(rgb, alpha, tuple(notes), kept)


def decode(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes the bytes of an image file on white; `read_image`'s errors begin with `name`."""
    file = io.BytesIO(data)
    file.name = name
    return on_white(read_image(file))


def image_size(source: Path | str | bytes | io.IOBase) -> tuple[int, int]:
    """Returns height and width of the picture that `read_image` returns, without decoding it.

    Raises UserError if the file is no image.
    """
    with _opened(source) as (_, _, parsed, image):
        # Pillow may have turned a TIFF's size already, and tells no orientation but the tag's.
        xmp = parsed.info.get("xmp", b"")
        other = metadata.orientation(xmp) if parsed.size else _orientation(image, [])
        turned = {parsed.orientation, other}.intersection(_SIDEWAYS)
        width, height = parsed.size or image.size
        return (width, height) if turned else (height, width)


def on_white(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """Composites the picture on a white background."""
    if picture.alpha is None:
        return picture.rgb
    alpha = picture.alpha[..., None].astype(np.uint16)
    return ((picture.rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        # The method of Pillow's PNG class would decode the whole image.
        found = Image.Image.getexif(image).get(_ORIENTATION)
    except (ValueError, TypeError, LookupError, SyntaxError, OSError, struct.error):
        notes.append("its EXIF data are damaged and were ignored")
        found = None
    return metadata.orientation(image.info.get("xmp", b"")) if found is None else found


def _upright(
    pixels: Shaped[np.ndarray, "h w *c"], orientation: int
) -> Shaped[np.ndarray, "h2 w2 *c"]:
    """Returns a copy of an image that is stored with this EXIF orientation."""
    pixels = pixels[::-1] if orientation in _BOTTOM_UP else pixels
    pixels = pixels[:, ::-1] if orientation in _RIGHT_TO_LEFT else pixels
    return np.array(pixels.swapaxes(0, 1) if orientation in _SIDEWAYS else pixels, order="C")


def _without_alpha(
    image: Image.Image, parsed: ParsedFile, notes: list[str]
) -> tuple[Image.Image, np.ndarray | None]:
    """Splits an image into colors, which keep their profile, and alpha (None if there is none).

    Gray stays in one channel.
    """
    if parsed.decode is not None:
        levels, alpha = parsed.decode(image, notes)
        colors = Image.fromarray(levels)
        colors.info.update(parsed.info)
        return colors, alpha
    if parsed.key:
        return image, np.where(_is_clear(image, parsed), 0, 255).astype(np.uint8)
    if not image.has_transparency_data:
        return image, None
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    colors = rgba.convert("L" if image.mode in ("L", "LA", "La") else "RGB")
    colors.info = {key: image.info[key] for key in ("icc_profile",) if key in image.info}
    alpha = np.asarray(rgba.getchannel("A"))
    if image.format in _PADDED and not alpha.any():
        notes.append("its transparency is zero throughout and was ignored")
        return colors, None
    return colors, alpha


def _is_clear(image: Image.Image, parsed: ParsedFile) -> Bool[np.ndarray, "h w"]:
    """Returns True where a PNG without an alpha channel has its transparent level or color."""
    if len(parsed.key) == 3:
        levels = png.deep_color(parsed.pixels, image) if parsed.depth == 16 else np.asarray(image)
        return np.all(levels == np.array(parsed.key, levels.dtype), axis=-1)
    scale = 255 // (2**parsed.depth - 1) if parsed.depth < 8 else 1
    return np.asarray(image.convert("L") if image.mode == "1" else image) == scale * parsed.key[0]


def _srgb(
    image: Image.Image, colors: Image.Image, parsed: ParsedFile, notes: list[str]
) -> UInt8[np.ndarray, "h w 3"]:
    if parsed.space is None or "icc_profile" in colors.info:
        return np.asarray(color.image_to_srgb(colors, notes))
    if colors.mode.startswith("I"):
        levels = np.asarray(colors).astype(np.uint16)
    elif parsed.depth == 16 and image.mode in ("RGB", "RGBA"):
        levels = png.deep_color(parsed.pixels, image)
    else:
        levels = np.asarray(colors.convert("L" if colors.mode in ("1", "L") else "RGB"))
    rgb = color.levels_to_srgb(levels, parsed.space, notes)
    return rgb if rgb.ndim == 3 else np.repeat(rgb[..., None], 3, axis=-1)


@contextlib.contextmanager
def _opened(source: Any) -> Iterator[tuple[object, bytes, ParsedFile, Image.Image]]:
    """Yields a name for messages, the bytes of a file, its parts and Pillow's undecoded image.

    Any exception in the block but MemoryError becomes a UserError of one sentence with the name.
    """
    name = source if isinstance(source, str | os.PathLike) else getattr(source, "name", "the image")
    try:
        data = _bytes_of(source)
        if not data:
            raise ValueError("it is empty")
        parsers = (p for signature, p in _PARSERS.items() if re.match(signature, data, re.DOTALL))
        with _without_bomb_guard():
            parsed = next(parsers, ParsedFile)(data)
            try:
                image = Image.open(io.BytesIO(parsed.pixels))
            except RuntimeError as error:  # That of the JPEG XL plug-in says how to build libjxl.
                raise ValueError("it is damaged or incomplete") from error
            if image.format in ("EPS", "WMF"):  # Pillow would run external programs on them.
                raise ValueError("vector graphics; render it as PNG first")
            image.info.update(parsed.info)
            yield name, data, parsed, image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow raises errors of many types on damaged files.
        unknown = isinstance(error, Image.UnidentifiedImageError)
        why = "not of a kind that Pillow knows" if unknown else reason(error)
        raise UserError(
            f"{name}: cannot be read as an image ({why}): give an intact file, such as PNG, JPEG, "
            "WebP or TIFF"
        ) from error


def _bytes_of(source: Any) -> bytes:
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        return epath.Path(source).read_bytes()
    if source.seekable():
        source.seek(0)
    return source.read()


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
