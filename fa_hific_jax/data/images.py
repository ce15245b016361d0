"""Any image file to upright sRGB in 8 bits, with its transparency and notes on what was changed."""

import contextlib
import functools
import io
import struct
import threading
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageChops, ImageCms

from fa_hific_jax.data import color, isobmff, jpeg, metadata, png, tiff, webp
from fa_hific_jax.data.levels import colors_and_alpha, eight_bits
from fa_hific_jax.data.metadata import Metadata
from fa_hific_jax.data.parts import Parts, open_file
from fa_hific_jax.errors import UserError

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
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"}
_JPEG_XL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_PROFILE_IGNORED = "its colour profile is damaged or of another kind and was ignored"


class Picture(NamedTuple):
    """An upright image in sRGB: values 0 to 255, alpha 0 (clear) to 255, None where all is opaque.

    The colours are not multiplied by alpha. `notes` are sentences on what the file had that the
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

    docs/images.md tells what is converted, kept, noted and refused. Grey is repeated, palettes are
    looked up, CMYK, embedded profiles and stated color spaces become sRGB, the EXIF orientation is
    applied, 16 bits become 8 (round(v / 257), except for RGB, of which the upper byte counts), and
    of an animation the first frame counts. Other depths are scaled by `levels.eight_bits`. Damage
    in what the pixels do not need is noted. EXIF and XMP are dropped unless asked for.

    Raises:
      UserError: no image, a damaged one, or more than `max_pixels` pixels.
    """
    with _readable(source) as (file, name):
        parts = _take_apart(file)
        _check_size(name, parts.size, max_pixels)
        image = _open(parts)
        _check_size(name, parts.size or image.size, max_pixels)
        notes = list(parts.notes)
        image = _loaded(image, parts, notes)
        if getattr(image, "is_animated", False):
            notes.append("of its several frames or pages only the first is kept")
        orientation = parts.orientation if parts.layout else _orientation(image, notes)
        turn = _UPRIGHT.get(orientation, lambda pixels: pixels)
        colours, alpha = _without_alpha(image, parts, notes)
        rgb = np.array(turn(_srgb(image, colours, parts, notes)), order="C")
        if alpha is not None:
            alpha = None if alpha.min() == 255 else np.array(turn(alpha), order="C")
        kept = metadata.of(image, parts) if keep_metadata else Metadata()
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
    with _readable(source) as (file, _):
        parts = _take_apart(file, header_only=True)
        if parts.size:
            stored, (width, height) = _with_info(parts.info), parts.size
        else:
            stored = _open(parts)
            width, height = stored.size
        turned = {parts.orientation, _orientation(stored, [])} & _SIDEWAYS
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


@contextlib.contextmanager
def _readable(source: Any) -> Iterator[tuple[BufferedIOBase, object]]:
    """The open file and its name; what goes wrong meanwhile becomes a UserError with that."""
    name = source if isinstance(source, str | Path) else getattr(source, "name", "the image")
    try:
        with contextlib.ExitStack() as stack:
            file = open_file(source)
            if file is not source:
                stack.enter_context(file)
            stack.enter_context(_without_bomb_guard())
            yield file, name
    except UserError:
        raise
    except Image.UnidentifiedImageError as error:
        raise _unreadable(name, "not of a kind that Pillow knows") from error
    except Exception as error:  # Pillow raises errors of many types on broken files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise _unreadable(name, " ".join(reason.split())) from error


def _take_apart(file: BufferedIOBase, header_only: bool = False) -> Parts:
    file.seek(0)
    start = file.read(64)
    file.seek(0)
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
    if start.startswith(_JPEG_XL):
        _register_jpeg_xl()
    return Parts(file)


def _open(parts: Parts) -> Image.Image:
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


def _check_size(name: object, size: tuple[int, ...], max_pixels: int) -> None:
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


def _loaded(image: Image.Image, parts: Parts, notes: list[str]) -> Image.Image:
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


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        # The PNG class has a method of its own that decodes the whole image.
        return Image.Image.getexif(image).get(_ORIENTATION, 1)
    except (ValueError, TypeError, LookupError, SyntaxError, OSError, struct.error):
        notes.append("its EXIF data are damaged and were ignored")
        return 1


def _without_alpha(
    image: Image.Image, parts: Parts, notes: list[str]
) -> tuple[Image.Image, np.ndarray | None]:
    """Colours and transparency apart; colours keep profile and, where they were grey, one band."""
    if parts.layout is not None:
        samples = tiff.samples(np.asarray(image), parts.layout, parts.size[0])
        levels, alpha = colors_and_alpha(samples, parts.layout, notes)
        colours = Image.fromarray(levels)
        colours.info.update(parts.info)
        return colours, alpha
    if parts.key:
        return image, np.where(_is_clear(image, parts), 0, 255).astype(np.uint8)
    if not image.has_transparency_data:
        return image, None
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    colours = rgba.convert("L" if image.mode in ("L", "LA", "La") else "RGB")
    colours.info = {key: image.info[key] for key in ("icc_profile",) if key in image.info}
    return colours, np.asarray(rgba.getchannel("A"))


def _is_clear(image: Image.Image, parts: Parts) -> Bool[np.ndarray, "h w"]:
    """Where an image of PNG without an alpha channel has the level, or color, that is clear."""
    if len(parts.key) == 3:
        levels = png.deep_color(parts, image) if parts.depth == 16 else np.asarray(image)
        return np.all(levels == np.array(parts.key, levels.dtype), axis=-1)
    scale = 255 // (2**parts.depth - 1) if parts.depth < 8 else 1
    return np.asarray(image.convert("L") if image.mode == "1" else image) == scale * parts.key[0]


def _srgb(
    image: Image.Image, colours: Image.Image, parts: Parts, notes: list[str]
) -> UInt8[np.ndarray, "h w 3"]:
    if parts.space is None or "icc_profile" in colours.info:
        return np.asarray(_to_srgb(colours, notes))
    if colours.mode.startswith("I"):
        levels = np.asarray(colours).astype(np.uint16)
    elif parts.depth == 16 and image.mode in ("RGB", "RGBA"):
        levels = png.deep_color(parts, image)
    else:
        levels = np.asarray(colours.convert("L" if colours.mode in ("1", "L") else "RGB"))
    rgb, more = color.to_srgb(levels, parts.space)
    notes.extend(more)
    return rgb if rgb.ndim == 3 else np.repeat(rgb[..., None], 3, axis=-1)


def _to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow takes all for Adobe's, which are inverted
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(eight_bits(np.asarray(image), notes))
    if not profile and image.mode != "LAB":
        return image.convert("RGB")
    try:
        mode, transform = _transform(profile)
        fits = {"RGB": image.mode not in ("CMYK", "LAB"), "L": image.mode in ("1", "L")}
        if not fits.get(mode, image.mode == mode):
            raise ImageCms.PyCMSError(f"a profile for {mode} in an image of mode {image.mode}")
        image = image.convert(mode)
        return transform.apply(image) if transform else image.convert("RGB")
    except (ImageCms.PyCMSError, OSError, ImportError):
        notes.append(_PROFILE_IGNORED)
        return image.convert("RGB")


@functools.lru_cache(maxsize=8)  # photographs of one camera share their profile
def _transform(profile: bytes | None) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode of images that the profile is for, and how to make sRGB of them; None: as it is."""
    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    space = source.profile.xcolor_space  # pyright: ignore[reportAttributeAccessIssue]
    mode = _PROFILE_MODES.get(space.strip())
    if mode is None:
        raise ImageCms.PyCMSError("a colour space of another kind")
    srgb = ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(source, srgb, mode, "RGB")
    if mode in ("RGB", "L"):
        # The many profiles that are sRGB but for rounding must not touch the pixels.
        levels = np.arange(0, 256, 15).astype(np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 1, 3)
        probe = Image.fromarray(cube).convert(mode)
        change = ImageChops.difference(transform.apply(probe), probe.convert("RGB"))
        if np.max(np.asarray(change)) <= 1:
            return mode, None
    return mode, transform
