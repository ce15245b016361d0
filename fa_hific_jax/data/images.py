"""Decodes any image file to upright 8-bit sRGB, with transparency and notes on what was changed."""

import io
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from PIL import Image

from fa_hific_jax.data import color, jpeg, metadata, png
from fa_hific_jax.data.metadata import Metadata
from fa_hific_jax.data.opening import open_image, parse, readable
from fa_hific_jax.data.parsed import END_MISSING, FURTHER_PAGES, ParsedFile
from fa_hific_jax.errors import UserError

MAX_PIXELS = 512 * 2**20  # also the limit for the size that a compressed file may state

_ORIENTATION = 0x0112  # EXIF tag; the values whose pictures are stored mirrored or turned:
_BOTTOM_UP, _RIGHT_TO_LEFT, _SIDEWAYS = (3, 4, 6, 7), (2, 3, 7, 8), (5, 6, 7, 8)
# Many programs write zeros as the fourth byte of a pixel in these formats. Viewers ignore it.
_PADDED = ("BMP", "DIB", "TGA")


class Picture(NamedTuple):
    """An upright image in sRGB.

    Attributes:
      rgb: colors from 0 to 255, not multiplied by alpha.
      alpha: 0 (transparent) to 255 (opaque); None if all pixels are opaque.
      notes: sentences about what the file contains and the picture does not.
      metadata: EXIF and XMP, if they were asked for.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None = None
    notes: tuple[str, ...] = ()
    metadata: Metadata = Metadata()


def read_image(
    source: Path | str | bytes | io.IOBase,
    max_pixels: int = MAX_PIXELS,
    *,
    keep_metadata: bool = False,
) -> Picture:
    """Decodes an image file of any format that Pillow reads; docs/images.md has the details.

    Args:
      source: a path, the bytes of a file or an open file.
      max_pixels: largest number of pixels that is accepted.
      keep_metadata: True to return EXIF and XMP.

    Raises:
      UserError: the file is no image, is damaged, or has more than `max_pixels` pixels.
    """
    with readable(source) as (file, name):
        parsed = parse(file)
        image = open_image(parsed)
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
            image = jpeg.completed(parsed.pixels.getvalue())
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
        kept = metadata.of(image, parsed) if keep_metadata else Metadata()
        return Picture(rgb, alpha, tuple(notes), kept)


def decode(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes the bytes of an image file on white; `read_image`'s errors begin with `name`."""
    file = io.BytesIO(data)
    file.name = name
    return on_white(read_image(file))


def image_size(source: Path | str | bytes | io.IOBase) -> tuple[int, int]:
    """Returns height and width of the picture that `read_image` returns, without decoding it.

    Raises:
      UserError: the file is no image.
    """
    with readable(source) as (file, _):
        parsed = parse(file, header_only=True)
        if parsed.size:
            stored, (width, height) = Image.new("1", (1, 1)), parsed.size
            stored.info.update(parsed.info)  # Only these decide about the orientation.
        else:
            stored = open_image(parsed)
            width, height = stored.size
        turned = parsed.orientation in _SIDEWAYS or _orientation(stored, []) in _SIDEWAYS
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
        levels = png.deep_color(parsed, image) if parsed.depth == 16 else np.asarray(image)
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
        levels = png.deep_color(parsed, image)
    else:
        levels = np.asarray(colors.convert("L" if colors.mode in ("1", "L") else "RGB"))
    rgb = color.levels_to_srgb(levels, parsed.space, notes)
    return rgb if rgb.ndim == 3 else np.repeat(rgb[..., None], 3, axis=-1)
