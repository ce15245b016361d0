"""Any image file to upright sRGB in 8 bits, with its transparency and notes on what was changed."""

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from fa_hific_jax.data import color, metadata, png, profiles, tiff
from fa_hific_jax.data.levels import colors_and_alpha
from fa_hific_jax.data.metadata import Metadata
from fa_hific_jax.data.opening import check_size, loaded, open_image, parse, readable
from fa_hific_jax.data.parsed import FURTHER_PAGES, FURTHER_SIZES, ParsedFile

MAX_PIXELS = 512 * 2**20  # also the most that a compressed file may announce

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
_SIDEWAYS = {5, 6, 7, 8}
# Many programs leave the fourth byte of a pixel zero in these, and all viewers show its color.
_PADDED = ("BMP", "DIB", "TGA")


class Picture(NamedTuple):
    """An upright image in sRGB: values 0 to 255, alpha 0 (clear) to 255, None where all is opaque.

    The colors are not multiplied by alpha. `notes` are sentences on what the file had that the
    picture has not.
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
    """The picture in a file (path, bytes or open file) of any kind that Pillow reads.

    docs/images.md tells what is converted, kept, noted and refused. Gray is repeated, palettes are
    looked up, CMYK, embedded profiles and stated color spaces become sRGB, the EXIF orientation is
    applied, 16 bits become 8 (round(v / 257), except for RGB, of which the upper byte counts), and
    of an animation the first frame counts. Other depths are scaled by `levels.eight_bits`. Damage
    in what the pixels do not need is noted. EXIF and XMP are dropped unless asked for.

    Raises:
      UserError: no image, a damaged one, or more than `max_pixels` pixels.
    """
    with readable(source) as (file, name):
        parsed = parse(file)
        check_size(name, parsed.size, max_pixels)
        image = open_image(parsed)
        check_size(name, parsed.size or image.size, max_pixels)
        notes = list(parsed.notes)
        image = loaded(image, parsed, notes)
        if getattr(image, "is_animated", False):
            notes.append(FURTHER_PAGES)
        if len(image.info.get("sizes", ())) > 1:  # of icons
            notes.append(FURTHER_SIZES)
        orientation = parsed.orientation if parsed.layout else _orientation(image, notes)
        turn = _UPRIGHT.get(orientation, lambda pixels: pixels)
        colors, alpha = _without_alpha(image, parsed, notes)
        rgb = np.array(turn(_srgb(image, colors, parsed, notes)), order="C")
        if alpha is not None:
            alpha = None if alpha.min() == 255 else np.array(turn(alpha), order="C")
        kept = metadata.of(image, parsed) if keep_metadata else Metadata()
        return Picture(rgb, alpha, tuple(notes), kept)


def decode(data: bytes, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """The image in the bytes of a file, as `read_image` makes it, transparency laid on white.

    Raises UserError, beginning with `name`, where they are no image or a damaged one.
    """
    file = _Named(data)
    file.name = name
    return on_white(read_image(file))


class _Named(io.BytesIO):
    name: str


def image_size(source: Path | str | bytes | io.IOBase) -> tuple[int, int]:
    """Height and width of the picture that `read_image` makes of a file, from its header alone.

    Raises:
      UserError: no image.
    """
    with readable(source) as (file, _):
        parsed = parse(file, header_only=True)
        if parsed.size:
            stored, (width, height) = _with_info(parsed.info), parsed.size
        else:
            stored = open_image(parsed)
            width, height = stored.size
        turned = {parsed.orientation, _orientation(stored, [])} & _SIDEWAYS
        return (width, height) if turned else (height, width)


def _with_info(info: dict[str, Any]) -> Image.Image:
    """Pillow's image of no other content, for what it makes of metadata."""
    image = Image.new("1", (1, 1))
    image.info.update(info)
    return image


def on_white(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    """The picture without transparency, laid on white."""
    if picture.alpha is None:
        return picture.rgb
    alpha = picture.alpha[..., None].astype(np.uint16)
    return ((picture.rgb * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        # The PNG class has a method of its own that decodes the whole image.
        told = Image.Image.getexif(image).get(_ORIENTATION)
    except (ValueError, TypeError, LookupError, SyntaxError, OSError, struct.error):
        notes.append("its EXIF data are damaged and were ignored")
        told = None
    return metadata.orientation(image.info.get("xmp", b"")) if told is None else told


def _without_alpha(
    image: Image.Image, parsed: ParsedFile, notes: list[str]
) -> tuple[Image.Image, np.ndarray | None]:
    """Colors and transparency apart; colors keep profile and, where they were gray, one band."""
    if parsed.layout is not None:
        planes = [np.asarray(image), *(np.asarray(Image.open(plane)) for plane in parsed.planes)]
        samples = tiff.samples(planes, parsed.layout, parsed.size[0])
        levels, alpha = colors_and_alpha(samples, parsed.layout, notes)
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
    """Where an image of PNG without an alpha channel has the level, or color, that is clear."""
    if len(parsed.key) == 3:
        levels = png.deep_color(parsed, image) if parsed.depth == 16 else np.asarray(image)
        return np.all(levels == np.array(parsed.key, levels.dtype), axis=-1)
    scale = 255 // (2**parsed.depth - 1) if parsed.depth < 8 else 1
    return np.asarray(image.convert("L") if image.mode == "1" else image) == scale * parsed.key[0]


def _srgb(
    image: Image.Image, colors: Image.Image, parsed: ParsedFile, notes: list[str]
) -> UInt8[np.ndarray, "h w 3"]:
    if parsed.space is None or "icc_profile" in colors.info:
        return np.asarray(profiles.to_srgb(colors, notes))
    if colors.mode.startswith("I"):
        levels = np.asarray(colors).astype(np.uint16)
    elif parsed.depth == 16 and image.mode in ("RGB", "RGBA"):
        levels = png.deep_color(parsed, image)
    else:
        levels = np.asarray(colors.convert("L" if colors.mode in ("1", "L") else "RGB"))
    rgb, more = color.to_srgb(levels, parsed.space)
    notes.extend(more)
    return rgb if rgb.ndim == 3 else np.repeat(rgb[..., None], 3, axis=-1)
